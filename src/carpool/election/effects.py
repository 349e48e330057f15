"""What an election can ask for, in the imperative.

The order of a returned list is the order in which the hands carry it out.

Taking over: TakeOver (window, advertisement, then the lease), Serve (addresses and announcements).
Giving up:   ShutGate first, whatever else follows.
"""

from dataclasses import dataclass
from typing import TypeAlias

from carpool.base.journal import Entry
from carpool.base.time import Instant
from carpool.wire.peer import Accept, Offer, Refuse, Request, Taken, Transfer


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Let advertisements out until `window_until`, send one, and only then lease the addresses.

    If the kernel's clock has passed the window the gate drops the advertisement, nothing is leased
    and AdvertisementFailed comes back: a decision that went stale (freeze, starvation) is void.
    With `serve` false the addresses stay shut: a rival may be heard, or another master must yield,
    first. An Advertise with `serve` follows then.
    """

    group: str
    advbase: int
    advskew: int
    demote: int
    window_until: Instant
    lease_until: Instant
    serve: bool


@dataclass(frozen=True, slots=True)
class Advertise:
    """Send one advertisement while the lease still lives; then extend the lease."""

    group: str
    advbase: int
    advskew: int
    demote: int
    lease_until: Instant
    serve: bool


@dataclass(frozen=True, slots=True)
class BowOut:
    """Send one 255/255 advertisement: whoever hears it may take over at once."""

    group: str
    window_until: Instant


@dataclass(frozen=True, slots=True)
class ShutGate:
    """Answer for the group's addresses no more."""

    group: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Put the addresses on the interface and announce each."""

    group: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the addresses off the interface."""

    group: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Gratuitous ARP and unsolicited neighbour advertisement for each address."""

    group: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask whether another machine answers for the addresses."""

    group: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a node over every path."""

    node: str
    message: Request | Offer | Accept | Refuse | Transfer | Taken


@dataclass(frozen=True, slots=True)
class Report:
    """Tell all nodes our state now, not only at the next heartbeat."""

    group: str


@dataclass(frozen=True, slots=True)
class Record:
    """Write a journal entry."""

    entry: Entry


Effect: TypeAlias = (
    TakeOver
    | Advertise
    | BowOut
    | ShutGate
    | Serve
    | Withdraw
    | Announce
    | Probe
    | Tell
    | Report
    | Record
)
