"""What a node's brain can ask for. The hands carry effects out in the order they are returned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from carpool.base.journal import Entry
from carpool.base.time import Instant
from carpool.election.effects import Announce, Probe, Serve, ShutGate, Withdraw
from carpool.engine.setup import NodeSetup
from carpool.wire.peer import Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send one advertisement of a group, then extend its lease; answered by the event Sent.

    window_until: set when taking over: open the gate for advertisements only, until then.
    lease_until: 0 for a bow-out, which leases nothing and shuts the gate again.
    """

    group: str
    payload: bytes
    window_until: Instant | None
    lease_until: Instant
    serve: bool


@dataclass(frozen=True, slots=True)
class TellPeer:
    """Send a message to a node over every path; to all nodes if `node` is empty."""

    node: str
    message: Message


@dataclass(frozen=True, slots=True)
class Journal:
    """Write a journal entry."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer an operator's order."""

    number: int
    ok: bool
    text: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep this over a restart of the daemon: pause and demotions."""

    paused: bool
    demotions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rearrange:
    """Groups were added, removed or changed: the hands arrange gate, sockets and addresses."""

    before: NodeSetup
    after: NodeSetup


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything is handed over; the process may end."""


Effect: TypeAlias = (
    Send
    | ShutGate
    | Serve
    | Withdraw
    | Announce
    | Probe
    | TellPeer
    | Journal
    | Answer
    | Remember
    | Rearrange
    | Finished
)
