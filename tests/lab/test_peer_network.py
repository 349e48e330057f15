"""The peer link over a real network: kills, a pulled cable, and a forger of resets.

cp-P-1 alpha 10.77.0.1/24 ---- veth ---- 10.77.0.2/24 bravo cp-P-2
"""

import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carpool.base.time import NS_PER_MS
from carpool.drivers.clock import boottime_ns

pytestmark = pytest.mark.lab

TESTS = Path(__file__).parents[1]
NODE = TESTS / "unit/drivers/peer_program.py"
FORGER = TESTS / "lab/peer_forger.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src")}
KILLS = 10
NUMBERS = itertools.count(1)


def ip(*words: str) -> None:
    """Run the ip command."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Wire:
    """Two namespaces and a cable."""

    def __init__(self) -> None:
        """Name them; nothing exists yet."""
        self.names = [f"cp-{os.getpid()}-peer{next(NUMBERS)}" for _ in range(2)]
        self.processes: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        """Make the namespaces and lay the cable."""
        alpha, bravo = self.names
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", alpha, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", bravo)
        for number, name in enumerate(self.names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def node(self, number: int) -> subprocess.Popen[str]:
        """Start node 1 (alpha) or 2 (bravo) and wait until it listens."""
        names = ("alpha", "bravo")
        words = [names[number - 1], f"10.77.0.{number}", "7112", names[2 - number]]
        process = self.run(number, str(NODE), *words, f"10.77.0.{3 - number}")
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        return process

    def run(self, number: int, *words: str) -> subprocess.Popen[str]:
        """Start a Python program in a namespace (ip netns exec becomes it: same process id)."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[number - 1], sys.executable, *words],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        self.processes.append(process)
        return process

    def remove(self) -> None:
        """End every process and take everything away."""
        for process in self.processes:
            process.kill()
            process.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A cable between two namespaces; gone afterwards."""
    wire = Wire()
    try:
        wire.build()
        yield wire
    finally:
        wire.remove()


def wait_for(process: subprocess.Popen[str], kind: str) -> list[tuple[int, str, str]]:
    """Return the events up to the first one of `kind`; the test's time limit is the deadline."""
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        instant, name, how = line.split()
        events.append((int(instant), name, how))
        if name == kind:
            return events
    raise AssertionError(f"the node ended without {kind}: {events}")


def test_kill_is_proved_within_milliseconds(wire: Wire) -> None:
    """Each of ten kills is told by a closed connection and a refused reconnect, and a restart."""
    alpha = wire.node(1)
    took: list[int] = []
    for number in range(KILLS):
        bravo = wire.node(2)
        events = wait_for(alpha, "LinkUp")
        assert bool(number) == any(name == "PeerRestarted" for _, name, _ in events)
        wait_for(alpha, "MessageHeard")
        killed_at = boottime_ns()
        bravo.kill()
        events = wait_for(alpha, "PeerRefused")
        assert next(how for _, name, how in events if name == "LinkClosed") in ("fin", "reset")
        took.append(events[-1][0] - killed_at)
        bravo.wait(5)
    print(f"kill -9 to refused reconnect: {sorted(value // 1000 for value in took)} us")  # noqa: T201  measured
    assert statistics.median(took) < 30 * NS_PER_MS


def test_pulled_cable_is_silence(wire: Wire) -> None:
    """A cable that is pulled gives a time-out, no refusal, and the same process afterwards."""
    alpha = wire.node(1)
    wire.node(2)
    wait_for(alpha, "LinkUp")
    wait_for(alpha, "MessageHeard")
    ip("-n", wire.names[1], "link", "set", "eth0", "down")
    events = wait_for(alpha, "LinkClosed")
    assert events[-1][2] in ("timeout", "error")
    ip("-n", wire.names[1], "link", "set", "eth0", "up")
    events = wait_for(alpha, "LinkUp")
    assert {name for _, name, _ in events} <= {"LinkUp", "LinkClosed", "MessageHeard"}


def test_forged_resets_move_nothing(wire: Wire) -> None:
    """Ten forged RST segments close connections; each time messages flow on, same instances."""
    forger = wire.run(1, str(FORGER))
    output, _ = forger.communicate(timeout=60)
    assert forger.returncode == 0
    kinds = output.splitlines()
    assert kinds.count("attacked -") == 10
    assert kinds.count("LinkClosed reset") >= 5
    assert set(kinds) <= {"attacked -", "LinkClosed reset", "LinkUp -"}
