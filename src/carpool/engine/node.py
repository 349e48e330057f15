"""What one node's brain remembers: its groups, its interfaces, the other nodes."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from carpool.base.counters import Counters
from carpool.base.time import Instant
from carpool.election.machine import Election
from carpool.engine.events import InterfaceFacts
from carpool.engine.setup import GroupSetup, IpAddress, NodeSetup
from carpool.wire.carp import Authenticator
from carpool.wire.peer import GroupReport

OWN_COUNTERS_KEPT = 32  # a loop brings an advertisement back within a few intervals
COUNTER_MODULUS = 1 << 64


@dataclass(slots=True)
class GroupBrain:
    """One group: its election and what signs and recognises its advertisements."""

    setup: GroupSetup
    election: Election
    authenticator: Authenticator
    counter: int
    shared: frozenset[IpAddress]
    own_counters: deque[int] = field(default_factory=lambda: deque(maxlen=OWN_COUNTERS_KEPT))
    loop_noted_at: Instant | None = None

    def next_counter(self) -> int:
        """Return the counter of the next advertisement and remember it, to know loops."""
        self.counter = (self.counter + 1) % COUNTER_MODULUS
        self.own_counters.append(self.counter)
        return self.counter


def make_group(setup: GroupSetup, counter: int) -> GroupBrain:
    """Return the brain of a group, in INIT."""
    authenticator = Authenticator(setup.key, setup.parameters.vhid, setup.v4, setup.v6)
    shared: frozenset[IpAddress] = frozenset((*setup.v4, *setup.v6))
    return GroupBrain(setup, Election(setup.parameters), authenticator, counter, shared)


@dataclass(slots=True)
class PeerKnowledge:
    """Another node, as the peer link shows it."""

    paths: dict[str, bytes] = field(default_factory=dict)  # live paths and who answers there
    since: dict[str, Instant] = field(default_factory=dict)
    instance: bytes = b""  # the process that answered last, on any path
    closed_at: Instant | None = None  # when its kernel closed a path last
    refused: bool = False
    lost_at: Instant | None = None  # when an unexplained close counts as lost
    heard_at: Instant | None = None
    sent_at: int = 0  # of its newest heartbeat, by its own clock
    revision: str = ""
    reports: Mapping[str, GroupReport] = field(default_factory=dict)

    @property
    def up(self) -> bool:
        """Return whether a path lives."""
        return bool(self.paths)


@dataclass(slots=True)
class Node:
    """The memory of one node's brain."""

    setup: NodeSetup
    started_at: Instant
    counter_start: int
    groups: dict[str, GroupBrain] = field(default_factory=dict)
    facts: dict[str, InterfaceFacts | None] = field(default_factory=dict)
    peers: dict[str, PeerKnowledge] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    alone: set[str] = field(default_factory=set)
    paused: bool = False
    paused_by: str = ""
    demotions: dict[str, int] = field(default_factory=dict)
    stopping: bool = False
    stop_until: Instant | None = None
    pending: dict[str, tuple[int, Instant]] = field(default_factory=dict)  # group -> order
    pause_order: tuple[int, Instant] | None = None
    heartbeat_at: Instant | None = None
    report_due: bool = True
    lateness_ns_max: int = 0
