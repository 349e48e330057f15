"""The simulated wire and peer link.

Wire: a frame reaches every other machine on the same side of a partition within 0.3 ms, is stamped
by its kernel and waits in the socket while the process is frozen.
Peer link: one connection for a pair and path. Messages keep their order and wait while the receiver
is frozen or the path is cut. The death of a process closes its connections within a millisecond
(research/hot, correction 2); the other side then dials: refused, or another instance answers.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carpool.base.time import NS_PER_MS, NS_PER_S, NS_PER_US, Instant
from carpool.engine.events import FrameHeard
from carpool.wire import carp
from carpool.wire.link import LinkClosed, LinkEvent, LinkUp, MessageHeard, PeerRefused
from carpool.wire.link import PeerRestarted as Restarted
from carpool.wire.peer import Message

if TYPE_CHECKING:
    from tests.unit.pair.machine import Machine
    from tests.unit.pair.world import World

FRAME_NS = (50 * NS_PER_US, 300 * NS_PER_US)
MESSAGE_NS = (100 * NS_PER_US, 500 * NS_PER_US)
FIN_NS = (200 * NS_PER_US, NS_PER_MS)
DIAL_NS = (100 * NS_PER_US, NS_PER_MS)
IDLE_NS = 3 * NS_PER_S
REDIAL_NS = 100 * NS_PER_MS


@dataclass(slots=True)
class Path:
    """One path between two machines; each side has its own idea of whether it is up."""

    sides: tuple[str, str]
    number: int
    up: dict[str, bool] = field(default_factory=dict)
    instance: dict[str, bytes] = field(default_factory=dict)  # of the other side's process
    heard_at: dict[str, int] = field(default_factory=dict)
    arrives_at: dict[str, int] = field(default_factory=dict)  # keeps the order of a direction
    unconfirmed: dict[str, bool] = field(default_factory=dict)
    held: list[tuple[str, LinkEvent]] = field(default_factory=list)  # while it is cut
    cut: bool = False

    def other(self, name: str) -> str:
        """Return the machine at the other end."""
        return self.sides[1] if name == self.sides[0] else self.sides[0]


class Network:
    """Everything between the machines."""

    def __init__(self, world: "World", names: list[str], paths: int) -> None:
        """Join every machine with every other over `paths` paths."""
        self.world = world
        self.wire_cut: set[tuple[str, str]] = set()  # (from, to)
        self.paths = [
            Path((one, two), number)
            for index, one in enumerate(names)
            for two in names[index + 1 :]
            for number in range(paths)
        ]

    # The wire.

    def broadcast(self, sender: "Machine", payload: bytes) -> None:
        """Carry an advertisement to the others."""
        frame = carp.multicast_frame(payload, sender.mac, sender.address)
        for machine in self.world.machines.values():
            if machine is sender or (sender.name, machine.name) in self.wire_cut:
                continue
            arrival = self.world.now + self.world.random.randint(*FRAME_NS)
            self.world.at(arrival, lambda to=machine: self._arrived(to, frame))

    def _arrived(self, machine: "Machine", frame: bytes) -> None:
        if machine.process is None or not machine.carrier:
            return
        interface = machine.setup.groups[0].interface
        machine.process.frames.append(FrameHeard(interface, frame, Instant(self.world.now)))
        machine.wake()

    # The peer link.

    def of(self, name: str) -> list[Path]:
        """Return the paths of a machine."""
        return [path for path in self.paths if name in path.sides]

    def tell(self, sender: "Machine", node: str, message: Message) -> None:
        """Send over every live path to `node`, or to all."""
        for path in self.of(sender.name):
            to = path.other(sender.name)
            if path.up.get(sender.name) and node in {"", to}:
                self._deliver(path, to, MessageHeard(sender.name, f"path{path.number}", message))

    def _deliver(self, path: Path, to: str, event: LinkEvent, delay: int | None = None) -> None:
        if path.cut:
            path.held.append((to, event))
            return
        delay = self.world.random.randint(*MESSAGE_NS) if delay is None else delay
        arrival = max(self.world.now + delay, path.arrives_at.get(to, 0) + 1)
        path.arrives_at[to] = arrival
        process = self.world.machines[to].process
        self.world.at(arrival, lambda: self._hear(path, to, event, process))

    def _hear(self, path: Path, to: str, event: LinkEvent, process: object) -> None:
        machine = self.world.machines[to]
        if machine.process is not process or not path.up.get(to):
            return  # the connection it came over is gone
        path.heard_at[to] = self.world.now
        if isinstance(event, LinkClosed):
            path.up[to] = False
            path.unconfirmed[to] = event.how in {"fin", "reset"}
        machine.tell(event)

    def started(self, machine: "Machine") -> None:
        """A new process dials everybody."""
        for path in self.of(machine.name):
            path.up[machine.name] = False
            self._dial_later(path, machine)

    def ended(self, machine: "Machine", how: str) -> None:
        """A process is gone: its kernel closes what it had."""
        for path in self.of(machine.name):
            to = path.other(machine.name)
            if path.up.get(machine.name) and path.up.get(to):
                event = LinkClosed(
                    machine.name, f"path{path.number}", how, path.instance[to], "closed"
                )
                self._deliver(path, to, event, self.world.random.randint(*FIN_NS))
            path.up[machine.name] = False

    def dial_soon(self, machine: "Machine", event: LinkClosed) -> None:
        """The driver saw a connection end and dials again."""
        for path in self.of(machine.name):
            if path.other(machine.name) == event.node and event.path == f"path{path.number}":
                self._dial_later(path, machine)

    def _dial_later(self, path: Path, machine: "Machine") -> None:
        process = machine.process
        delay = self.world.random.randint(*DIAL_NS)
        self.world.at(self.world.now + delay, lambda: self._dial(path, machine, process))

    def _dial(self, path: Path, machine: "Machine", process: object) -> None:
        """Dial: refused, answered, or tried again later."""
        if machine.process is not process or path.up.get(machine.name):
            return
        other = self.world.machines[path.other(machine.name)]
        if not path.cut and other.process is None and other.powered:
            if path.unconfirmed.get(machine.name):
                path.unconfirmed[machine.name] = False
                machine.tell(PeerRefused(other.name, f"path{path.number}"))
        elif not path.cut and other.process is not None and self._both_run(machine, other):
            self._establish(path, machine, other)
            return
        again = self.world.now + REDIAL_NS
        self.world.at(again, lambda: self._dial(path, machine, process))

    def _both_run(self, one: "Machine", two: "Machine") -> bool:
        return max(one.frozen_until, two.frozen_until) <= self.world.now

    def _establish(self, path: Path, one: "Machine", two: "Machine") -> None:
        path.held.clear()
        for here, there in ((one, two), (two, one)):
            assert here.process is not None
            assert there.process is not None
            was_up = path.up.get(here.name) and path.instance[here.name] == there.process.instance
            path.unconfirmed[here.name] = False
            path.heard_at[here.name] = self.world.now
            if was_up:
                continue  # a second connection to the same process
            name = f"path{path.number}"
            known = here.process.known.get(there.name)
            if known not in {None, there.process.instance}:
                assert known is not None
                self._forget(here, there.name, known)
                here.tell(Restarted(there.name, name, known, there.process.instance))
            path.up[here.name] = True
            path.instance[here.name] = there.process.instance
            here.process.known[there.name] = there.process.instance
            here.tell(LinkUp(there.name, name, there.process.instance, "0"))

    def _forget(self, here: "Machine", node: str, known: bytes) -> None:
        """Close what is left of a node's former process (drivers/peerlink.py, _forget)."""
        for path in self.of(here.name):
            if path.other(here.name) == node and path.up.get(here.name):
                path.up[here.name] = False
                here.tell(LinkClosed(node, f"path{path.number}", "reset", known, "replaced"))

    def cut(self, path: Path) -> None:
        """Pull the cable of a path."""
        path.cut = True

    def mend(self, path: Path) -> None:
        """Plug it in again: what TCP still holds arrives."""
        path.cut = False
        held, path.held = path.held, []
        for to, event in held:
            self._deliver(path, to, event)

    def expire(self) -> None:
        """Close what has been silent for too long, as the driver of a running process does."""
        for path in self.paths:
            for name in path.sides:
                machine = self.world.machines[name]
                process = machine.process
                runs = process is not None and machine.frozen_until <= self.world.now
                if not runs or not path.up.get(name) or (process and process.inbox):
                    continue
                if self.world.now - path.heard_at[name] < IDLE_NS:
                    continue
                self._time_out(path, machine)

    def _time_out(self, path: Path, machine: "Machine") -> None:
        to = path.other(machine.name)
        path.up[machine.name] = False
        instance = path.instance[machine.name]
        name = f"path{path.number}"
        machine.tell(LinkClosed(to, name, "timeout", instance, "nothing heard"))
        if path.up.get(to):
            closed = LinkClosed(machine.name, name, "fin", path.instance[to], "closed")
            self._deliver(path, to, closed)
