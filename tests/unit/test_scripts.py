"""The scripts around the package: set-up, the BPF probe, the manual pages, the service unit.

The shell functions of packaging/setup.sh run in a copy of the tree, with a PATH of fakes that write
down how they were called: nothing is installed.
"""

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SCRIPTS: Final = ("demo", "test", ".ci/run", "packaging/setup.sh", "packaging/prove-fresh")
# ARCHITECTURE.md, "Processes and privileges".
CAPABILITIES: Final = "BPF IPC_LOCK NET_ADMIN NET_RAW PERFMON SYS_NICE"

FAKE: Final = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
"""
DPKG_WITHOUT_UCARP: Final = """#!/bin/sh
case "$*" in
*ucarp) exit 1 ;;
*clang) printf config-files ;;
*) printf installed ;;
esac
"""
DPKG_COMPLETE: Final = "#!/bin/sh\nprintf installed\n"
PYTHON_TOO_OLD: Final = "#!/bin/sh\nexit 1\n"


class Sandbox:
    """A copy of what set-up reads, and fake programs before the real ones."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.programs = folder / "bin"
        self.calls = folder / "calls"
        self.programs.mkdir(parents=True)
        self.calls.touch()
        for name in ("packaging", "src/carpool/drivers/bpf"):
            shutil.copytree(ROOT / name, self.tree / name)
        for name in ("requirements-dev.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.tree / name)
        (self.tree / "src/carpool/drivers/bpf/gate.bin").touch()
        for name in ("apt-get", "pip"):
            self.program(name, FAKE)
        self.program("dpkg-query", DPKG_COMPLETE)
        self.program("id", "#!/bin/sh\necho 0\n")

    def program(self, name: str, text: str) -> Path:
        """Put a program before all others."""
        file = self.programs / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def run(self, commands: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run shell commands in the copy, after sourcing setup.sh."""
        return subprocess.run(
            ["/bin/sh", "-euc", f". packaging/setup.sh\n{commands}"],
            cwd=self.tree,
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "CALLS": str(self.calls),
                **variables,
            },
            text=True,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """Return a fresh sandbox."""
    return Sandbox(tmp_path)


def load(name: str) -> ModuleType:
    """Return packaging/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(
        f"packaging_{name}", ROOT / f"packaging/{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page() -> Callable[[str], list[str]]:
    """Return a function from markdown to the lines below the roff page's heading."""
    man = load("man")

    def lines(markdown: str) -> list[str]:
        text: str = man.page("carpool", "8", markdown)
        return text.splitlines()[3:]

    return lines


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_parses(name: str) -> None:
    """The system's sh reads every script; on Debian that is dash, which knows POSIX only."""
    done = subprocess.run(["/bin/sh", "-n", ROOT / name], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_missing_packages_are_named(sandbox: Sandbox) -> None:
    """A package that dpkg does not know, or only has the settings of, is missing."""
    sandbox.program("dpkg-query", DPKG_WITHOUT_UCARP)
    assert sandbox.run("missing_packages").stdout.split() == ["clang", "ucarp"]


def test_root_installs_what_is_missing(sandbox: Sandbox) -> None:
    """Root asks apt for exactly the missing packages, without a question to a person."""
    sandbox.program("dpkg-query", DPKG_WITHOUT_UCARP)
    assert sandbox.run("install_packages").returncode == 0
    update, install = sandbox.calls.read_text().splitlines()
    assert update.startswith("apt-get update")
    assert "--yes" in install
    assert install.endswith("--no-install-recommends clang ucarp")


def test_others_are_told_what_to_install(sandbox: Sandbox) -> None:
    """Without root the set-up stops with the command that an administrator has to run."""
    sandbox.program("dpkg-query", DPKG_WITHOUT_UCARP)
    sandbox.program("id", "#!/bin/sh\necho 1000\n")
    done = sandbox.run("install_packages")
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends clang ucarp" in done.stderr
    assert sandbox.calls.read_text() == ""


def test_second_run_asks_nobody(sandbox: Sandbox) -> None:
    """With the packages and the stamp in place neither apt nor pip nor Python is started."""
    (sandbox.tree / ".venv").mkdir()
    sandbox.run('echo "$(fingerprint) $(bpf_fingerprint)" >"$STAMP"')
    broken = str(sandbox.program("broken-python", PYTHON_TOO_OLD))
    done = sandbox.run("set_up", PYTHON=broken)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sandbox.calls.read_text() == ""


@pytest.mark.parametrize("name", ["requirements-dev.txt", "pyproject.toml"])
def test_changed_requirements_are_noticed(sandbox: Sandbox, name: str) -> None:
    """The stamp is no longer good when what .venv was made from has changed."""
    before = sandbox.run("fingerprint").stdout
    (sandbox.tree / name).write_text("changed\n")
    assert sandbox.run("fingerprint").stdout != before


def test_moved_tree_is_noticed(sandbox: Sandbox, tmp_path: Path) -> None:
    """A copied .venv points at the old place, so the tree's path is part of the stamp."""
    before = sandbox.run("fingerprint").stdout
    sandbox.tree = sandbox.tree.rename(tmp_path / "elsewhere")
    assert sandbox.run("fingerprint").stdout != before


def test_changed_gate_is_built_again(sandbox: Sandbox) -> None:
    """A change of the BPF source rebuilds the object and leaves .venv alone."""
    python = sandbox.tree / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    shutil.copy(sandbox.program("python", FAKE), python)
    sandbox.run('echo "$(fingerprint) $(bpf_fingerprint)" >"$STAMP"')
    source = sandbox.tree / "src/carpool/drivers/bpf/gate.bpf.c"
    source.write_text(source.read_text() + "\n")
    assert sandbox.run("set_up").returncode == 0
    assert sandbox.calls.read_text() == "python packaging/hatch_build.py\n"
    assert sandbox.run("set_up").stdout == ""


def test_old_python_is_refused(sandbox: Sandbox) -> None:
    """Where no Python is new enough the set-up stops with a line that says what is needed."""
    old = str(sandbox.program("old-python", PYTHON_TOO_OLD))
    done = sandbox.run("set_up", PYTHON=old)
    assert done.returncode == 1
    assert done.stderr.startswith("carpool: needs Python 3.11 or newer")


def test_good_python_is_found(sandbox: Sandbox) -> None:
    """An interpreter with venv and of the right age is taken."""
    good = str(sandbox.program("good-python", "#!/bin/sh\nexit 0\n"))
    old = str(sandbox.program("old-python", PYTHON_TOO_OLD))
    assert sandbox.run("find_python", PYTHON=f"{old} {good}").stdout.strip() == good


def test_bpf_probe_answers() -> None:
    """The probe says yes or no by its exit status, and prints nothing."""
    command = [sys.executable, str(ROOT / "packaging/probe_bpf.py")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode in {0, 1}
    assert done.stdout + done.stderr == b""


@pytest.mark.parametrize(
    ("markdown", "roff"),
    [
        ("## Exit status", ['.SH "EXIT STATUS"']),
        ("## `[hot.NAME]`", ['.SH "[hot.NAME]"']),
        ("### To wait", ['.SS "To wait"']),
        ("one\ntwo", [".PP", "one two"]),
        ("`--json` *FILE* **now**", [".PP", r"\fB\-\-json\fR \fIFILE\fR \fBnow\fR"]),
        (".leading 'dot' \\", [".PP", r"\&.leading \(aqdot\(aq \e"]),
        ("snake_case_name", [".PP", "snake_case_name"]),
        ("[guide](docs/x.md)", [".PP", "guide (docs/x.md)"]),
        ("```toml\n.x = 1\n\n```", [".PP", ".RS 4", ".nf", r"\&.x = 1", r"\&", ".fi", ".RE"]),
        ("- one\n  two\n- three", [r'.IP "\(bu" 4', "one two", r'.IP "\(bu" 4', "three"]),
        ("1. one", ['.IP "1." 4', "one"]),
        ("`-n`\n: lines", [".TP", r"\fB\-n\fR", "lines"]),
        ("`-n`\n\n: lines\n: more", [".TP", r"\fB\-n\fR", "lines", ".sp", "more"]),
        ("| a | b |\n|---|---|\n| 0 | ok |", [".TP", "0", "ok"]),
        ("# carpool(8)\n<!-- comment -->", []),
    ],
)
def test_manual_page(page: Callable[[str], list[str]], markdown: str, roff: list[str]) -> None:
    """Each kind of markdown that the manual pages use becomes the right roff."""
    assert page(markdown) == roff


def unit() -> dict[str, str]:
    """Return the [Service] section of the unit."""
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have case
    parser.read(ROOT / "packaging/carpool.service")
    return dict(parser["Service"])


def test_unit_grants_exactly_our_capabilities() -> None:
    """The service holds the six capabilities that carpoold needs and can get no other."""
    service = unit()
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        names = sorted(name.removeprefix("CAP_") for name in service[key].split())
        assert names == CAPABILITIES.split()
    assert service["NoNewPrivileges"] == "yes"
    assert service["User"] == "carpool"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "10"),
        ("Restart", "on-failure"),
        ("KillMode", "mixed"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("RuntimeDirectory", "carpool"),
        ("StateDirectory", "carpool"),
        ("LimitMEMLOCK", "infinity"),
    ],
)
def test_unit_says(key: str, value: str) -> None:
    """The service is started, watched and stopped as carpoold(8) describes."""
    assert unit()[key] == value
