"""What happened to the peer link: values that its driver returns and the brain judges.

Follows ARCHITECTURE.md "Peer link" and "Who takes over". They live here, below both, because the
engine and the drivers do not know each other. `path` is the peer's address on that path.

What each one proves about the other machine:

    LinkClosed fin, reset  its kernel, or a forger, says the connection is over: no proof yet
    PeerRefused            after such a close nobody listens there any more: the process is gone
    LinkUp, same instance  the process lives: whatever closed the connection moved nothing
    PeerRestarted          another process answers: the old one is gone, and what it held with it
    LinkClosed timeout     silence: a cable, a freeze, a power cut; the election's timers judge that
    LinkClosed goodbye     closed on purpose (MessageHeard with the Goodbye comes first): a stop, a
                           path or a key taken out; says nothing about the process
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from carpool.base.errors import Reject
from carpool.wire.peer import Message

How: TypeAlias = Literal["fin", "reset", "timeout", "error", "goodbye"]


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A path to the node carries messages now."""

    node: str
    path: str
    instance: bytes  # of the node's `elect` process
    version: str  # of the node's program


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The last connection of a path ended."""

    node: str
    path: str
    how: How
    instance: bytes
    detail: str  # a few words for the journal


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """After a close without a goodbye the reconnect was refused: nobody listens there."""

    node: str
    path: str


@dataclass(frozen=True, slots=True)
class PeerRestarted:
    """The node answers with another `elect` process than the one last known. LinkUp follows."""

    node: str
    path: str
    old_instance: bytes
    new_instance: bytes


@dataclass(frozen=True, slots=True)
class MessageHeard:
    """An authenticated message; the same one may come over every path."""

    node: str
    path: str
    message: Message


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something from `source` was not accepted, and its connection was closed."""

    reason: Reject
    source: str


LinkEvent: TypeAlias = LinkUp | LinkClosed | PeerRefused | PeerRestarted | MessageHeard | Rejected


@dataclass(frozen=True, slots=True)
class PathStatus:
    """One path for `status`."""

    path: str
    up: bool
    since: int  # instant of the last change, 0 if it was never up
