"""What an election can hear. Names are past tense; instants are boot time of this node."""

from dataclasses import dataclass
from typing import TypeAlias

from carpool.base.time import Instant
from carpool.election.parameters import Kind, Parameters, State
from carpool.wire.peer import Accept, Offer, Refuse, Request, Taken, Transfer


@dataclass(frozen=True, slots=True)
class Enabled:
    """The interface is usable; `alone` = re-entry after our own crash while nobody else lives."""

    alone: bool = False


@dataclass(frozen=True, slots=True)
class Disabled:
    """The group cannot be served here."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The deadline was reached (or anything else woke us)."""


@dataclass(frozen=True, slots=True)
class AdvertisementHeard:
    """A verified advertisement of another member."""

    source: str  # IP address
    node: str  # node name if the source is known to be one of ours, else ""
    kind: Kind
    family: int  # 4 or 6
    primary: bool  # the family that decides ties (4 if the group has IPv4 addresses)
    lower: bool  # the source's address is lower than ours, for ties with foreign members
    advbase: int
    advskew: int
    demote: int
    received_at: Instant


@dataclass(frozen=True, slots=True)
class AdvertisementSent:
    """What Advertise or TakeOver asked for is on the wire and the lease is set."""

    lease_until: Instant
    serving: bool


@dataclass(frozen=True, slots=True)
class AdvertisementFailed:
    """Nothing was sent, so the lease was not extended."""

    reason: str


@dataclass(frozen=True, slots=True)
class PeerReported:
    """Another node's heartbeat said this about the group."""

    node: str
    state: State
    advbase: int
    advskew: int
    demote: int
    ready: bool  # may become master: enabled, not paused, not stopping
    hears: str  # the master it hears by CARP, "" if none
    same_file: bool = True  # its revision of the configuration is ours


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The last path to a node is gone; why is not known."""

    node: str


@dataclass(frozen=True, slots=True)
class PeerGone:
    """A node's election process has certainly ended; its gate is shut."""

    node: str
    closed_at: Instant


@dataclass(frozen=True, slots=True)
class PeerSaid:
    """A hand-over message about this group."""

    node: str
    message: Request | Offer | Accept | Refuse | Transfer | Taken


@dataclass(frozen=True, slots=True)
class StepDownOrdered:
    """Hand over, to a given node or the best one. `stay_out`: and do not come back."""

    to: str
    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class DemotionSet:
    """The group's demotion counter has a new value."""

    demotion: int
    reason: str


@dataclass(frozen=True, slots=True)
class CompanionSeen:
    """A group that moves with this one is (not) mastered here."""

    master_here: bool


@dataclass(frozen=True, slots=True)
class ConflictHeard:
    """Another MAC answers for one of the group's addresses."""

    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class ParametersChanged:
    """A reload changed the group without moving it."""

    parameters: Parameters


Event: TypeAlias = (
    Enabled
    | Disabled
    | TimePassed
    | AdvertisementHeard
    | AdvertisementSent
    | AdvertisementFailed
    | PeerReported
    | PeerLost
    | PeerGone
    | PeerSaid
    | StepDownOrdered
    | DemotionSet
    | CompanionSeen
    | ConflictHeard
    | ParametersChanged
)
