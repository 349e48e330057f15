"""`carpool` as a process: exit codes, output, what it loads, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import carpool
from carpool.base import journal
from carpool.cli.main import main
from carpool.cli.render import Paint, plain, plain_lines
from carpool.cli.verbs import VERBS
from carpool.control import client
from carpool.lab.waiting import wait_for

WAIT_S = 20.0
Run = Callable[..., "subprocess.Popen[str]"]
Parent = Any  # tests/unit/conftest.py has it


def _end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Return the exit code, the output and the complaints of a process that ends."""
    output, complaints = process.communicate(timeout=WAIT_S)
    return process.returncode, output, complaints


@pytest.fixture
def fresh(parent: Parent, status: dict[str, Any]) -> dict[str, Any]:
    """Return a status taken just now, and sent: relative times are those of status.json."""
    from carpool.drivers.clock import boottime_ns  # noqa: PLC0415  only this fixture needs a clock

    later = boottime_ns() - status["at"]
    status["at"] += later
    for member in ("since", "lease_until", "master_heard_at"):
        status["groups"][0][member] += later
    parent.snapshot(status)
    return status


@pytest.mark.usefixtures("fresh")
def test_status_of_a_healthy_site(parent: Parent, run_carpool: Run) -> None:
    """The screen comes without colour when nobody looks, and the code is 0."""
    code, output, complaints = _end(run_carpool("--socket", parent.path, "status"))
    assert (code, complaints) == (0, "")
    assert "edge   alpha    bravo charlie" in output
    assert "\x1b" not in output


def test_status_for_programs(parent: Parent, fresh: dict[str, Any], run_carpool: Run) -> None:
    """`--json` has a version, the verdict and the snapshot's own members."""
    code, output, _ = _end(run_carpool("status", "--json", "--socket", parent.path))
    data = json.loads(output)
    assert (code, data["v"], data["verdict"]) == (0, 1, {"code": 0, "reasons": []})
    assert {name: data[name] for name in fresh} == fresh


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"standby": []}, 3),
        ({"state": "INIT", "lease_until": 0, "master": ""}, 4),
    ],
)
def test_the_verdict_is_the_exit_code(
    parent: Parent, fresh: dict[str, Any], run_carpool: Run, change: dict[str, Any], code: int
) -> None:
    """3 for degraded, 4 for down, for the shell and in `--json` alike."""
    fresh["groups"][0].update(change)
    parent.snapshot(fresh)
    assert _end(run_carpool("--socket", parent.path, "status"))[0] == code
    got, output, _ = _end(run_carpool("--socket", parent.path, "status", "--json"))
    assert (got, json.loads(output)["verdict"]["code"]) == (code, code)


def test_status_watch_shows_each_change(
    parent: Parent, fresh: dict[str, Any], run_carpool: Run
) -> None:
    """`--watch --json` writes a line at once and one for a change; Ctrl-C ends it."""
    process = run_carpool("--socket", parent.path, "status", "--watch", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["paused"] is False
    parent.snapshot({**fresh, "paused": True})
    assert json.loads(process.stdout.readline())["paused"] is True
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_S) == 130


def test_no_daemon_is_5(tmp_path: Path, run_carpool: Run) -> None:
    """Every verb that needs the daemon says which socket it tried."""
    path = str(tmp_path / "control.sock")
    for verb in (["status"], ["history"], ["metrics"], ["explain", "edge"], ["pause"]):
        code, output, complaints = _end(run_carpool("--socket", path, *verb))
        assert (code, output) == (5, "")
        assert complaints == f"carpool: {path}: no daemon answers: No such file or directory\n"


def test_a_daemon_that_died_is_5(tmp_path: Path, run_carpool: Run) -> None:
    """The file of a socket nobody listens on, and one that hangs up, are no daemon either."""
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = run_carpool("--socket", path, "status")
        listener.accept()[0].close()
        code, _, complaints = _end(process)
        assert (code, complaints) == (5, "carpool: the daemon hung up\n")
    code, _, complaints = _end(run_carpool("--socket", path, "status"))
    assert code == 5
    assert "Connection refused" in complaints


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["statsu"],
        ["status", "--jsno"],
        ["explain"],
        ["history", "-n", "0"],
        ["history", "-n", "x"],
        ["demote", "edge"],
        ["demote", "edge", "256"],
        ["demote", "edge", "1.5"],
        ["step-down"],
        ["--socket", "x" * 300, "status"],
    ],
)
def test_wrong_usage_is_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is written wrongly gives 64 and a line on stderr, nothing on stdout."""
    try:
        code: object = main(arguments)
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    assert (code, said.out) == (64, "")
    assert said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "carpool: say what to do: status, explain, "),
        (["lab"], "carpool lab: say what to do: up, "),
        (["history", "-n", "x"], "argument -n: x is not a number from 1 to 10000"),
        (["demote", "edge", "+300"], "+300 is not 0 to 255, +N or -N"),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing or wrong is said in words of the manual, not of the parser."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 64
    assert said in capsys.readouterr().err


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """`carpool --help` shows each verb with its line."""
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert all(f"  {name:<11}{verb.summary}" in said for name, verb in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`carpool VERB --help` works for each verb of the table."""
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"usage: carpool {verb}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways to ask for the version give the package's."""
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"carpool {carpool.__version__}\n"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("arguments", "verb", "args"),
    [
        (["step-down", "edge"], "step-down", {"group": "edge"}),
        (["step-down", "edge", "--to", "bravo"], "step-down", {"group": "edge", "to": "bravo"}),
        (["demote", "edge", "7"], "demote", {"group": "edge", "n": 7}),
        (["demote", "edge", "+1"], "demote", {"group": "edge", "n": "+1"}),
        (["demote", "edge", "-1"], "demote", {"group": "edge", "n": "-1"}),
        (["pause"], "pause", {}),
        (["pause", "--force"], "pause", {"force": True}),
        (["resume"], "resume", {}),
        (["reload"], "reload", {}),
    ],
)
def test_an_order_is_given_and_its_outcome_printed(
    parent: Parent, run_carpool: Run, arguments: list[str], verb: str, args: dict[str, object]
) -> None:
    """The order reaches the daemon as it was meant; its sentence comes back to the terminal."""
    process = run_carpool("--socket", parent.path, *arguments)
    order = parent.obey(f"{verb}: it is done")
    assert (order["verb"], order["args"]) == (verb, args)
    assert _end(process) == (0, f"{verb}: it is done\n", "")


@pytest.mark.parametrize("code", [1, 77])
def test_a_refused_order_is_said(parent: Parent, run_carpool: Run, code: int) -> None:
    """The daemon's refusal is printed as it is, and its code is the exit code."""
    process = run_carpool("--socket", parent.path, "reload")
    number = parent.order()["id"]
    parent.say(type="answer", id=number, ok=False, error="not\x1b today", code=code)
    assert _end(process) == (code, "", "carpool: not? today\n")


def test_a_refusal_of_several_lines_keeps_them(parent: Parent, run_carpool: Run) -> None:
    """A refused file's report is printed line by line as `check` prints it, each line cleaned."""
    process = run_carpool("--socket", parent.path, "reload")
    number = parent.order()["id"]
    report = "a.toml:1:1: error: site: is missing\na.toml:2:1: error: no\x1b"
    parent.say(type="answer", id=number, ok=False, error=report, code=1)
    shown = "a.toml:1:1: error: site: is missing\na.toml:2:1: error: no?\n"
    assert _end(process) == (1, "", shown)


def test_a_full_disk_is_said(parent: Parent, fresh: dict[str, Any]) -> None:
    """Where the answer cannot be written there is one line about it and 1, no traceback."""
    parent.snapshot(fresh)
    source = str(Path(carpool.__file__).parents[1])
    for verb in ("status", "metrics", "version"):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "carpool.cli.main", "--socket", parent.path, verb],
                env={**os.environ, "PYTHONPATH": source},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=WAIT_S,
                check=False,
            )
        said = "carpool: cannot write the answer: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize(
    ("limit", "arguments"),
    [
        ("READ_S_MAX", ["status"]),
        ("READ_S_MAX", ["status", "--watch"]),
        ("READ_S_MAX", ["explain", "edge"]),
        ("READ_S_MAX", ["history", "-f"]),
        ("READ_S_MAX", ["metrics"]),
        ("ORDER_S_MAX", ["pause"]),
    ],
)
def test_a_frozen_daemon_is_5(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: str,
    arguments: list[str],
) -> None:
    """A daemon that takes connections and answers nothing is given up on, and that is said."""
    assert (client.READ_S_MAX, client.ORDER_S_MAX) == (3.0, 20.0)
    monkeypatch.setattr(client, limit, 0.02)
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert main(["--socket", path, *arguments]) == 5
    said = f"carpool: {path}: the daemon does not answer: nothing within 0 s (is it frozen?)\n"
    assert capsys.readouterr().err == said


@pytest.mark.usefixtures("fresh")
def test_explain_and_metrics_print(parent: Parent, run_carpool: Run) -> None:
    """Explain prints its sentences, `--json` its members; metrics the page as it is."""
    code, output, _ = _end(run_carpool("--socket", parent.path, "explain", "edge"))
    assert (code, output.splitlines()[0][:23]) == (0, "alpha is MASTER of edge")
    _, output, _ = _end(run_carpool("--socket", parent.path, "explain", "edge", "--json"))
    assert json.loads(output)["group"] == "edge"
    _, output, _ = _end(run_carpool("--socket", parent.path, "metrics"))
    assert output.startswith("# HELP carpool_config_info")
    assert output.endswith("\n")
    code, _, complaints = _end(run_carpool("--socket", parent.path, "explain", "egde"))
    assert (code, complaints) == (1, "carpool: no group egde (groups: edge)\n")


def test_history_follows(parent: Parent, run_carpool: Run) -> None:
    """`history -f` prints what was and what comes, each entry once, in order."""

    def say(*numbers: int) -> None:
        entries = (journal.Noted("edge", "test", f"entry {number}") for number in numbers)
        data = [{"at": number, "entry": journal.to_json(e)} for number, e in enumerate(entries)]
        parent.say(type="entries", data=data)

    say(1, 2, 3)
    process = run_carpool("--socket", parent.path, "history", "-n", "2", "--follow")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    say(4)
    lines.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_S) == 130
    assert [line.split("edge: ")[1].strip() for line in lines] == ["entry 2", "entry 3", "entry 4"]


def test_history_for_programs(parent: Parent, run_carpool: Run) -> None:
    """`--json` gives one versioned object a line with the entry's own members."""
    entry = journal.to_json(journal.OrderTaken("pause", "uid 0 pid 1", "begun"))
    parent.say(type="entries", data=[{"at": 17, "entry": entry}])
    code, output, _ = _end(run_carpool("--socket", parent.path, "history", "--json"))
    text = "pause by uid 0 pid 1: begun"
    assert (code, json.loads(output)) == (
        0,
        {"v": 1, "seq": 1, "at": 17, "text": text, "entry": entry},
    )


def test_a_reader_that_leaves_is_no_error(parent: Parent, run_carpool: Run) -> None:
    """`carpool history | head` ends quietly."""
    note = journal.to_json(journal.Noted("edge", "test", "x" * 200))
    for _ in range(10):
        parent.say(type="entries", data=[{"at": 1, "entry": note}] * 200)
    process = run_carpool("--socket", parent.path, "history", "-n", "2000")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, complaints = process.communicate(timeout=WAIT_S)
    assert (process.returncode, complaints) == (141, "")


@pytest.mark.usefixtures("fresh")
def test_status_loads_little(parent: Parent) -> None:
    """What costs time to import (DESIGN 1: status below 150 ms) is not imported for `status`."""
    program = (
        "import sys; from carpool.cli.main import main;"
        f"code = main(['--socket', {parent.path!r}, 'status']);"
        "heavy = {'pydantic', 'asyncio', 'dataclasses', 'inspect', 'subprocess', 'ctypes'};"
        "sys.exit(code or ' '.join(heavy & set(sys.modules)) or 0)"
    )
    source = str(Path(carpool.__file__).parents[1])
    # -S: what a site's .pth files import is not ours.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_socket_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CARPOOL_SOCKET is where the daemon is asked, unless --socket says otherwise."""
    monkeypatch.setenv("CARPOOL_SOCKET", str(tmp_path / "named"))
    assert main(["status"]) == 5
    assert "/named: no daemon" in capsys.readouterr().err
    assert main(["--socket", str(tmp_path / "given"), "status"]) == 5
    assert "/given: no daemon" in capsys.readouterr().err


def test_paint_and_plain() -> None:
    """Styles colour only where they may, and control characters never pass."""
    assert Paint(enabled=True)("x", "bad") == "\x1b[1;31mx\x1b[0m"
    assert Paint(enabled=False)("x", "bad") == "x"
    assert Paint(enabled=True)("x", "") == "x"
    assert plain("a\x1b[2J\nb\u202e") == "a?[2J?b?"
    assert plain_lines("a\x1b\nb\u202e\n") == "a?\nb?"


def test_a_terminal_gets_colour_unless_told_otherwise(
    parent: Parent, fresh: dict[str, Any]
) -> None:
    """On a terminal the screen is coloured; with NO_COLOR it is not."""
    parent.snapshot(fresh)
    for no_color, coloured in (("", True), ("1", False)):
        ours, theirs = os.openpty()
        source = str(Path(carpool.__file__).parents[1])
        process = subprocess.Popen(
            [sys.executable, "-m", "carpool.cli.main", "--socket", parent.path, "status"],
            env={**os.environ, "PYTHONPATH": source, "NO_COLOR": no_color, "TERM": "xterm"},
            stdout=theirs,
        )
        os.close(theirs)
        try:
            wait_for(lambda it=process: it.poll() is not None, WAIT_S, "status to end")
            assert (b"\x1b[" in os.read(ours, 1 << 16)) is coloured
        finally:
            process.kill()
            process.wait()
            os.close(ours)
