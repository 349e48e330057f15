"""What carpoold says when it cannot start, as a process: one clear text and the right exit code."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from carpool.lab.shell import inside, tool_environment
from carpool.lab.site import FILE_NAME, Shape
from carpool.lab.stage import Stage

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
START_S_MAX = 20


@pytest.fixture
def stage(build: Build) -> Stage:
    """Return a site of one node whose daemon does not run."""
    built = build(Shape(nodes=("alpha",), heartbeat=False))
    for folder in (built.daemon("alpha").runtime, built.daemon("alpha").state):
        folder.mkdir(mode=0o755)
    return built


def start(
    stage: Stage, *wrapper: str, node: str = "alpha", more: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run carpoold on alpha under `wrapper` until it ends, and return what it said."""
    alpha = stage.daemon("alpha")
    command = [
        *(*wrapper, sys.executable, "-m", "carpool.daemon.main", "--node", node),
        *("--config", str(alpha.directory / FILE_NAME)),
        *("--runtime-dir", str(alpha.runtime), "--state-dir", str(alpha.state), *more),
    ]
    return subprocess.run(
        inside(stage.lab.namespace("alpha"), command),
        env=tool_environment(),
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )


@pytest.mark.parametrize(
    ("wrapper", "lacking"),
    [
        (("setpriv", "--bounding-set=-all"), "CAP_NET_ADMIN, CAP_NET_RAW"),
        (("setpriv", "--bounding-set=-net_raw"), "CAP_NET_RAW"),
        (("setpriv", "--bounding-set=-net_admin"), "CAP_NET_ADMIN"),
    ],
)
def test_no_privilege(stage: Stage, wrapper: tuple[str, ...], lacking: str) -> None:
    """Without a privilege it ends at once with one line that names the capability, exit code 77."""
    ended = start(stage, *wrapper)
    assert ended.stderr.splitlines() == [
        f"carpoold: needs {lacking} (run it as root, or by the systemd unit)"
    ]
    assert ended.returncode == 77


def test_secret_readable_by_others(stage: Stage) -> None:
    """A password or secret file that others can read is refused, with its name and place."""
    for name in ("edge.pass", "site.secret"):
        secret = stage.lab.directory / name
        secret.chmod(0o644)
        ended = start(stage)
        assert ended.returncode == 1
        assert re.search(rf"{FILE_NAME}:\d+:\d+: error: .*{name}.*", ended.stderr), ended.stderr
        assert "0600" in ended.stderr
        secret.chmod(0o600)


def test_unknown_node(stage: Stage) -> None:
    """A node that the file does not name is refused, with the names that it has."""
    ended = start(stage, node="delta")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "'delta'" in ended.stderr
    assert "alpha" in ended.stderr


def test_second_daemon(stage: Stage) -> None:
    """A second carpoold in the same runtime directory is refused; the first one goes on."""
    stage.start_daemons()
    ended = start(stage)
    assert ended.returncode == 1
    assert ended.stderr == f"carpoold: another carpoold runs in {stage.daemon('alpha').runtime}\n"
    assert len(stage.daemon("alpha").pids()) == 3
    assert stage.daemon("alpha").role("edge") == "MASTER"
    assert (stage.daemon("alpha").runtime / "carpoold.pid").exists()


def test_all_errors_at_once(stage: Stage) -> None:
    """A file with several errors: each one with its place, exit code 1, nothing started."""
    path = stage.daemon("alpha").directory / FILE_NAME
    text = path.read_text().replace("vhid = 1", "vhid = 0").replace('"192.0.2.11"', '"nowhere"')
    path.write_text(text.replace("preempt = true", "pre_empt = true"))
    ended = start(stage)
    assert ended.returncode == 1
    for word in ("vhid", "address", "pre_empt"):
        assert re.search(rf"{FILE_NAME}:\d+:\d+: error: .*{word}", ended.stderr), ended.stderr
    assert "3 errors" in ended.stderr
    assert not (stage.daemon("alpha").runtime / "carpoold.pid").exists()


def test_missing_file(stage: Stage) -> None:
    """A configuration file that is not there is named."""
    path = stage.daemon("alpha").directory / FILE_NAME
    path.unlink()
    ended = start(stage)
    assert ended.returncode == 1
    assert str(path) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_runtime_directory_in_the_way(stage: Stage) -> None:
    """A runtime directory that cannot be made is named, without a traceback."""
    (stage.lab.directory / "file").write_text("")
    place = stage.lab.directory / "file" / "run"
    ended = start(stage, more=("--runtime-dir", str(place)))
    assert ended.returncode == 1
    assert ended.stderr == f"carpoold: {place}: Not a directory\n"


def test_gate_that_is_not_to_be_had(stage: Stage) -> None:
    """With --gate bpf where BPF is refused it says which capability is missing, exit code 77."""
    wrapper = ("setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon")
    ended = start(stage, *wrapper, more=("--gate", "bpf"))
    assert ended.returncode == 77, ended.stderr
    assert "CAP_BPF" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not Path(stage.daemon("alpha").socket).exists()
