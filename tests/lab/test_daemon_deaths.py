"""kill -9 and SIGSTOP of single processes, at any moment: nothing is left that needs a hand.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0
"""

import random
import signal
from collections.abc import Callable, Iterator

import pytest

from carpool.base.time import NS_PER_S
from carpool.lab import facts, processes
from carpool.lab.nodes import Daemon
from carpool.lab.site import FILE_NAME, Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import Tap, tap
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PAIR = Shape(nodes=("alpha", "bravo"))
ALONE = Shape(nodes=("alpha",), heartbeat=False)
SHARED = ("192.0.2.10", "2001:db8::10")
PATIENCE_S = 10.0
TIMES = 5
MOMENT_S_MAX = 0.2  # two intervals: any phase of the clockwork
START_S_MAX = 0.35  # from the interpreter's first line to the first snapshot


@pytest.fixture(scope="module")
def pair() -> Iterator[Stage]:
    """Return a site of two nodes that the tests of single deaths share."""
    with Stage.build(facts.place("deaths"), PAIR) as built:
        built.start_daemons()
        yield built


def pid_of(daemon: Daemon, process: str) -> int:
    """Return the id of one process of a daemon."""
    return int((daemon.runtime / f"{process}.pid").read_text())


def kill(daemon: Daemon, process: str) -> int:
    """Send SIGKILL to one process, wait for its end, and return its id."""
    pid = pid_of(daemon, process)
    assert pid in daemon.pids()
    processes.send([pid], signal.SIGKILL)
    wait_for(lambda: processes.gone([pid]), PATIENCE_S, f"the end of {process}")
    return pid


def start_again(daemon: Daemon) -> int:
    """Start carpoold in the same directories, whatever lives there still; return its id."""
    known = daemon.lab.python(
        "daemon",
        daemon.node,
        "carpool.daemon.main",
        [
            *("--config", str(daemon.directory / FILE_NAME), "--node", daemon.node),
            *("--state-dir", str(daemon.state), "--runtime-dir", str(daemon.runtime)),
        ],
    )
    return known.pid


def owners(stage: Stage, client: Tap) -> set[str]:
    """Return which nodes answer for both addresses; "" stands for an address without an answer."""
    names = stage.topology.owner_names()
    found: set[str] = set()
    for macs in client.owners(SHARED).values():
        found |= {names.get(mac, mac) for mac in macs} or {""}
    return found


def whole(daemon: Daemon) -> bool:
    """Return whether exactly three processes live, the ones that the files name."""
    named = {pid_of(daemon, name) for name in ("carpoold", "elect", "serve")}
    return set(daemon.pids()) == named and len(named) == 3


def settled(stage: Stage) -> None:
    """Wait until alpha serves, bravo stands by, and both daemons are whole."""
    stage.wait_master("alpha")
    stage.wait_standby("bravo")
    for daemon in stage.daemons.values():
        wait_for(lambda each=daemon: whole(each), PATIENCE_S, f"{daemon.node} to be whole")
    with tap(stage.lab, "client") as client:
        wait_for(lambda: owners(stage, client) == {"alpha"}, PATIENCE_S, "alpha to answer")


def any_moment(lottery: random.Random) -> None:
    """Let a random part of two intervals pass."""
    wait_for(facts.passed(lottery.random() * MOMENT_S_MAX), PATIENCE_S, "a moment")


@pytest.mark.parametrize("process", ["carpoold", "elect", "serve"])
def test_killed_at_any_moment(pair: Stage, process: str) -> None:
    """Five kills of one process at random moments: whole again each time, alpha serves."""
    lottery = random.Random(process)
    alpha = pair.daemon("alpha")
    for _ in range(TIMES):
        settled(pair)
        changes = alpha.group("edge")["changes"]
        any_moment(lottery)
        kill(alpha, process)
        if process == "carpoold":
            any_moment(lottery)
            start_again(alpha)
        if process == "serve":
            wait_for(lambda: whole(alpha) and alpha.status(), PATIENCE_S, "serve to answer")
            assert alpha.group("edge")["changes"] == changes
    settled(pair)
    assert facts.said(alpha, "carpoold") or process != "carpoold"


def test_orphan_hands_over(pair: Stage) -> None:
    """An election process without its parent hands over to the standby, and ends."""
    settled(pair)
    alpha = pair.daemon("alpha")
    since = pair.now()
    kill(alpha, "carpoold")
    took = facts.timed(lambda: pair.daemon("bravo").role("edge") == "MASTER", PATIENCE_S, "bravo")
    facts.show(f"handed over {took:.0f} ms after the parent's death")
    wait_for(lambda: not alpha.pids(), PATIENCE_S, "the end of alpha's processes")
    assert not set(SHARED) & facts.addresses(pair, "alpha")["eth0"]
    assert facts.said(pair.daemon("bravo"), "alpha handed over", since=since)
    start_again(alpha)
    settled(pair)


def test_orphan_alone_serves_on(build: Build) -> None:
    """Alone, it serves on without its parent; a new carpoold ends it and serves soon after."""
    stage = build(ALONE)
    stage.start()
    alpha = stage.daemon("alpha")
    orphan = pid_of(alpha, "elect")
    with stage.scene("kill -9 of the parent of a lone node", ["alpha"]) as scene:
        kill(alpha, "carpoold")
        still = facts.passed(5 * stage.master_down_ns() / NS_PER_S)
        wait_for(still, PATIENCE_S, "five timers")
        assert alpha.pids() == [orphan]
    assert scene.gap_ns < NS_PER_S // 10
    with stage.scene("a new carpoold replaces the orphan", ["alpha"]) as scene:
        start_again(alpha)
        wait_for(lambda: orphan not in alpha.pids(), PATIENCE_S, "the orphan to end")
        alpha.wait_ready()
        stage.wait_role("alpha", "MASTER")
    facts.show(f"replacing the orphan: gap {scene.gap_ns / 1e6:.0f} ms")
    assert whole(alpha)


def test_orphan_killed_too(build: Build) -> None:
    """Killed after its parent, the orphan answers for nothing; a new carpoold takes over."""
    stage = build(ALONE)
    stage.start_daemons()
    alpha = stage.daemon("alpha")
    kill(alpha, "carpoold")
    kill(alpha, "elect")
    wait_for(lambda: not alpha.pids(), PATIENCE_S, "the end of alpha's processes")
    with tap(stage.lab, "client") as client:
        assert owners(stage, client) == {""}
        start_again(alpha)
        alpha.wait_ready()
        stage.wait_role("alpha", "MASTER")
        wait_for(lambda: owners(stage, client) == {"alpha"}, PATIENCE_S, "alpha to answer")
    assert whole(alpha)


def test_killed_while_starting(build: Build) -> None:
    """A parent killed at any moment of its start leaves nothing that disturbs the next one."""
    stage = build(ALONE)
    stage.start_daemons()
    alpha = stage.daemon("alpha")
    lottery = random.Random(1)
    kill(alpha, "carpoold")
    for _ in range(TIMES):
        pid = start_again(alpha)
        wait_for(facts.passed(0.15 + lottery.random() * START_S_MAX), PATIENCE_S, "a moment")
        processes.send([pid], signal.SIGKILL)
        wait_for(lambda each=pid: processes.gone([each]), PATIENCE_S, "the parent's end")
    start_again(alpha)
    alpha.wait_ready()
    stage.wait_role("alpha", "MASTER")
    wait_for(lambda: whole(alpha), PATIENCE_S, "three processes")


@pytest.mark.parametrize("process", ["carpoold", "serve"])
def test_stopped_helper_moves_nothing(pair: Stage, process: str) -> None:
    """SIGSTOP of the parent or of serve alone moves no address; afterwards everything goes on."""
    settled(pair)
    alpha, bravo = pair.daemon("alpha"), pair.daemon("bravo")
    changes = bravo.group("edge")["changes"]
    pid = pid_of(alpha, process)
    processes.send([pid], signal.SIGSTOP)
    still = facts.passed(5 * pair.master_down_ns() / NS_PER_S)
    wait_for(lambda: still() or bravo.role("edge") != "BACKUP", PATIENCE_S, "five timers")
    with tap(pair.lab, "client") as client:
        assert owners(pair, client) == {"alpha"}
    processes.send([pid], signal.SIGCONT)
    settled(pair)
    assert bravo.group("edge")["changes"] == changes
