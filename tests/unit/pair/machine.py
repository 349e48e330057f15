"""One machine of the simulated site: its kernel's gates, its interface, what it keeps on disk."""

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from tests.unit.pair.kernel import KernelGate
from tests.unit.pair.process import Process

from carpool.base.journal import Entry, RoleChanged
from carpool.engine.events import (
    Event,
    InterfaceFacts,
    InterfaceSeen,
    Ordered,
    Reconfigured,
    StopOrdered,
)
from carpool.engine.setup import NodeSetup
from carpool.wire.link import LinkClosed

if TYPE_CHECKING:
    from tests.unit.pair.world import World

    from carpool.engine.effects import Answer


class Machine:
    """A machine that may run, freeze, die and start again."""

    def __init__(self, world: "World", setup: NodeSetup, number: int) -> None:
        """Make a machine that is switched on and runs nothing yet."""
        self.world = world
        self.setup = setup
        self.name = setup.node
        self.address = IPv4Address(f"192.0.2.{11 + number}")
        self.mac = bytes((2, 0, 0, 0, 0, number))
        self.gates = {group.name: KernelGate(self._opened) for group in setup.groups}
        self.configured = {group.name: False for group in setup.groups}
        self.process: Process | None = None
        self.frozen_until = 0
        self.carrier = True
        self.powered = True
        self.paused = False
        self.demotions: dict[str, int] = {}
        self.answers: list[Answer] = []
        self.entries: list[tuple[int, Entry]] = []
        self.roles: dict[str, str] = {}
        self.orders = 0

    def _opened(self) -> None:
        self.world.look_for_two_owners()

    def facts(self) -> InterfaceFacts:
        """Return what the kernel says about the interface."""
        return InterfaceFacts(2, self.mac, up=True, carrier=self.carrier, v4=self.address, v6=None)

    def can_send(self) -> bool:
        """Return whether the card would take a frame."""
        return self.carrier

    def record(self, entry: Entry) -> None:
        """Keep a journal entry; a group's roles must follow upon each other."""
        self.entries.append((self.world.now, entry))
        if isinstance(entry, RoleChanged):
            before = self.roles.get(entry.group, "INIT")
            assert entry.before == before, f"{self.name} was {before}, the journal says {entry}"
            self.roles[entry.group] = entry.after

    def start(self, *, alone: frozenset[str] = frozenset()) -> None:
        """Start the program; addresses that a dead predecessor left are removed."""
        assert self.process is None
        self.roles.clear()
        self.configured = dict.fromkeys(self.configured, False)
        instance = self.world.random.randbytes(16)
        self.process = Process(self, instance, alone=alone)
        facts = {group.interface for group in self.setup.groups}
        self.process.inbox.extend(InterfaceSeen(name, self.facts()) for name in sorted(facts))
        self.world.network.started(self)
        self.wake()

    def tell(self, event: Event) -> None:
        """Put an event where the process finds it at its next turn."""
        if self.process is not None:
            self.process.inbox.append(event)
            self.wake()

    def order(self, verb: str, group: str = "", argument: str = "") -> int:
        """Give an operator's order; return its number."""
        self.orders += 1
        self.tell(Ordered(self.orders, verb, group, argument, "tester"))
        return self.orders

    def stop(self) -> None:
        """Ask the program to end."""
        self.tell(StopOrdered())

    def reload(self, setup: NodeSetup) -> None:
        """Take another configuration."""
        self.tell(Reconfigured(setup))

    def plug(self, *, carrier: bool) -> None:
        """Plug the cable in or out."""
        self.carrier = carrier
        for name in sorted({group.interface for group in self.setup.groups}):
            self.tell(InterfaceSeen(name, self.facts()))

    def noticed(self, event: Event) -> None:
        """The link driver dials when its process sees a connection end."""
        if isinstance(event, LinkClosed):
            self.world.network.dial_soon(self, event)

    def wake(self) -> None:
        """Let a sleeping process take a turn."""
        process = self.process
        if process is not None and process.asleep:
            process.asleep = False
            self.world.schedule(process)
