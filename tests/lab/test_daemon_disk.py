"""A full disk, torn files, and what an operator ordered before a crash.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from carpool.daemon.state import State
from carpool.lab import facts, processes
from carpool.lab.shell import run
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PAIR = Shape(nodes=("alpha", "bravo"))
ALONE = Shape(nodes=("alpha",), heartbeat=False)
PATIENCE_S = 10.0
DISK_BYTES = 64 << 10

TORN = [
    "",
    "{",
    "null",
    "[]",
    "7",
    '{"paused": true}',
    '{"paused": false, "demotions": {"edge": "many"}}',
    '{"paused": false, "demotions": {"edge": 1e999}}',
    '{"paused": false, "demotions": {"edge": -4, "inner": 99999}}',
    '{"paused": false, "demotions": [1, 2]}',
    "[" * 100_000,
    "\0\xff\xfe",
]
HISTORY = [
    '{"at": 1, "entry": {"kind": "Noted", "group": "", "name": "a", "text": "before the crash"}}',
    '{"at": "yesterday", "entry": {"kind": "Noted"}}',
    '{"at": 2, "entry": 5}',
    '{"at": 3, "entry": {"kind": "Unheard of", "size": 4}}',
    "[" * 100_000,
    '{"at": 4, "entry": {"kind": "Noted", "group": "", "na',
]


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Put a file system of 64 KiB at `path`."""
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)])
    try:
        yield path
    finally:
        run(["umount", "--lazy", str(path)])


def fill(path: Path) -> None:
    """Leave no byte free on the file system at `path`."""
    with (path / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def pid_of(stage: Stage, process: str) -> int:
    """Return the id of one of alpha's processes."""
    return int((stage.daemon("alpha").runtime / f"{process}.pid").read_text())


def kill(stage: Stage, pid: int) -> None:
    """Send SIGKILL to one of alpha's processes and wait for its end."""
    processes.send([pid], signal.SIGKILL)
    wait_for(lambda: processes.gone([pid]), PATIENCE_S, "its end")
    wait_for(lambda: len(stage.daemon("alpha").pids()) == 3, PATIENCE_S, "three processes")


def test_full_disks(build: Build) -> None:
    """With full disks behind both directories orders, deaths and reload pass; status tells."""
    stage = build(ALONE)
    alpha = stage.daemon("alpha")
    with small_disk(alpha.runtime), small_disk(alpha.state):
        stage.start_daemons()
        elect, serve = pid_of(stage, "elect"), pid_of(stage, "serve")
        fill(alpha.state)
        fill(alpha.runtime)
        alpha.order("demote", group="edge", n=3)
        alpha.order("reload")
        wait_for(lambda: complaint(stage), PATIENCE_S, "the warning")
        kill(stage, serve)
        wait_for(alpha.status, PATIENCE_S, "serve to answer")
        kill(stage, elect)
        stage.wait_role("alpha", "MASTER")
        assert "state is not written" in facts.carpool(alpha, "status").stdout
        assert alpha.group("edge")["demotion"] == 3
        named = {int(path.read_text()) for path in alpha.runtime.glob("*.pid")}
        assert named < set(alpha.pids())  # rather none than a wrong one
        alpha.stop()
        assert alpha.pids() == []


def complaint(stage: Stage) -> bool:
    """Return whether alpha's status says that the disk is full."""
    words = "No space left on device"
    return any(words in text for text in stage.daemon("alpha").status().get("warnings", ()))


def test_torn_files_are_ignored(build: Build) -> None:
    """Whatever stands in state.json the daemon starts; torn lines of the history are skipped."""
    stage = build(ALONE)
    alpha = stage.daemon("alpha")
    alpha.state.mkdir(parents=True)
    (alpha.state / "history.jsonl").write_text("\n".join(HISTORY))
    file = alpha.state / "state.json"
    for text in TORN:
        file.write_bytes(text.encode("latin-1"))
        assert State(alpha.state).orders() == (False, {}), text[:40]
    for number, text in enumerate(TORN[-3:]):
        file.write_bytes(text.encode("latin-1"))
        alpha.start()
        alpha.wait_ready()
        status = alpha.status()
        assert (status["paused"], alpha.group("edge")["demotion"]) == (False, 0), text[:40]
        if number == 0:
            assert facts.said(alpha, "before the crash")
            assert facts.said(alpha, "listening for a master")
        alpha.kill()


def test_orders_survive(build: Build) -> None:
    """Pause and demotion hold after a restart, after kill -9, and after the death of elect."""
    stage = build(PAIR)
    stage.start_daemons()
    alpha = stage.daemon("alpha")
    alpha.order("demote", group="edge", n=7)
    alpha.order("pause")
    stage.wait_role("bravo", "MASTER")
    for end in (alpha.stop, alpha.kill):
        end()
        alpha.start()
        wait_for(lambda: ordered(stage) == (True, 7, "INIT"), PATIENCE_S, f"{end.__name__}")
    kill(stage, pid_of(stage, "elect"))
    wait_for(lambda: alpha.status()["processes"], PATIENCE_S, "a snapshot of the new elect")
    assert ordered(stage) == (True, 7, "INIT")
    alpha.order("resume")
    alpha.order("demote", group="edge", n=0)
    stage.wait_master("alpha")
    alpha.kill()
    alpha.start()
    alpha.wait_ready()
    assert ordered(stage)[:2] == (False, 0)


def ordered(stage: Stage) -> tuple[bool, int, str]:
    """Return what alpha says of its orders: paused, demotion, state."""
    group = stage.daemon("alpha").group("edge")
    return bool(group.get("paused")), int(group.get("demotion", -1)), str(group.get("state", ""))
