"""What a node's brain can hear: frames, interfaces, the peer link, orders, results, time."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from carpool.base.time import Instant
from carpool.engine.setup import NodeSetup
from carpool.wire.link import LinkEvent


@dataclass(frozen=True, slots=True)
class InterfaceFacts:
    """An interface as it is now."""

    index: int
    mac: bytes
    up: bool
    carrier: bool
    v4: IPv4Address | None  # where IPv4 advertisements come from
    v6: IPv6Address | None  # the link-local address, where IPv6 advertisements come from
    trouble: str = ""  # why nothing may be served there although the interface is fine


@dataclass(frozen=True, slots=True)
class FrameHeard:
    """A frame with IP protocol 112 arrived."""

    interface: str
    frame: bytes
    received_at: Instant


@dataclass(frozen=True, slots=True)
class NeighbourHeard:
    """An ARP packet or neighbour advertisement arrived."""

    interface: str
    frame: bytes
    received_at: Instant


@dataclass(frozen=True, slots=True)
class InterfaceSeen:
    """The state of an interface; `facts` is None when there is none of that name."""

    interface: str
    facts: InterfaceFacts | None


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of an Advertise or TakeOver: `families` went out, `lease_until` is set."""

    group: str
    families: frozenset[int]
    lease_until: Instant
    serving: bool
    error: str


@dataclass(frozen=True, slots=True)
class ServeFailed:
    """The addresses could not be put on the interface."""

    group: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator's order, to be answered under `number`."""

    number: int
    verb: str  # "step-down" | "demote" | "pause" | "resume"
    group: str
    argument: str
    who: str


@dataclass(frozen=True, slots=True)
class StopOrdered:
    """The daemon ends: hand over and leave."""


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """A new, whole and checked configuration."""

    setup: NodeSetup


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed.

    judge: everything that arrived before is heard. Otherwise nobody's silence is judged; only who
    serves goes on advertising.
    """

    judge: bool = True


Event: TypeAlias = (
    FrameHeard
    | NeighbourHeard
    | InterfaceSeen
    | Sent
    | ServeFailed
    | LinkEvent
    | Ordered
    | StopOrdered
    | Reconfigured
    | Tick
)
