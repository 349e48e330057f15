"""What the operator chose for one group, as one member of it sees it, with the limits.

Source: OpenBSD carp(4), `advbase`, `advskew`, `carpdemote`; DESIGN 4 for the lease.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.wire.carp import interval_ns, master_down_ns

DEMOTION_MAX: Final = 255  # byte 4 of the advertisement
FREEBSD_SKEW_MAX: Final = (
    240  # FreeBSD clamps the demoted skew to 0..240 (ip_carp.c, DEMOTE_ADVSKEW)
)
SUCCESSION_WAIT_NS: Final = (
    2 * NS_PER_MS
)  # the dead master's gate shuts up to 0.8 ms after the link
SUCCESSION_STEP_NS: Final = 50 * NS_PER_MS  # a better standby acts within 30 ms; then the next may
TAKEOVER_WINDOW_NS: Final = 10 * NS_PER_MS  # a decision older than this is void; a rank is 11.7 ms
CLAIM_FOREIGN_NS: Final = 20 * NS_PER_MS  # what a foreign master needs to hear us and yield
CLAIM_RACE_NS: Final = 3 * NS_PER_MS  # ten times a switched network's delay: see standing.take_over
TRANSFER_PROMPT_NS: Final = (
    3 * NS_PER_MS
)  # a Transfer this soon after our Accept needs no listening
TRANSFER_WINDOW_NS: Final = 5 * NS_PER_MS  # when the giver dies, another serves 5 ms later or more
OFFER_TIMEOUT_NS: Final = 100 * NS_PER_MS  # a successor's answer; then the next one is asked
ACCEPT_VALID_NS: Final = 150 * NS_PER_MS  # must be shorter than TRANSFER_TIMEOUT_NS, see handover
TRANSFER_TIMEOUT_NS: Final = 200 * NS_PER_MS
REQUEST_GAP_NS: Final = 200 * NS_PER_MS  # a standby asks for the address at most this often
REFUSED_GAP_NS: Final = 10 * NS_PER_S  # and this seldom after the master said no
PROBE_GAP_NS: Final = 30 * NS_PER_S  # how often a master looks for another owner of its addresses
PROBE_FIRST_NS: Final = 100 * NS_PER_MS  # and this long after taking over for the first time
CONFLICT_KEPT_NS: Final = 60 * NS_PER_S  # how long a conflict is shown after it was last seen
CONFLICTS_KEPT_MAX: Final = 16  # addresses shown, machines remembered; a flood fills no memory
CONFLICT_ANNOUNCE_GAP_NS: Final = NS_PER_S  # an answer to a flood is none itself
CONFLICT_NOTED_GAP_NS: Final = 10 * NS_PER_S  # lines in the journal, whatever MACs are made up
LEASE_MIN_NS: Final = 5 * NS_PER_MS  # of a lease cut short for a hasty member: never nothing
UNHEARD_EXTRA_NS: Final = NS_PER_S  # two heartbeats: what a standby hears is told by those
SETTLE_NS: Final = 1500 * NS_PER_MS  # a cable that is in again carries later (linkwatch: up to 1 s)
SEND_ERRORS_MAX: Final = 3  # OpenBSD: demote after three consecutive errors
SEND_ERRORS_KEPT_NS: Final = 60 * NS_PER_S  # a backup sends nothing: after this it may try again
LATE_EXTENSIONS_MAX: Final = 3  # how often our own lateness may postpone a take-over in a row


class State(StrEnum):
    """The role of this node in one group."""

    INIT = "INIT"
    BACKUP = "BACKUP"
    MASTER = "MASTER"


class Kind(StrEnum):
    """Whose CARP a member speaks: decides how ties end and how long it may be owner."""

    CARPOOL = "carpool"
    OPENBSD = "openbsd"
    FREEBSD = "freebsd"
    NETBSD = "netbsd"
    UCARP = "ucarp"


class DemoteMode(StrEnum):
    """How trouble is told: in byte 4 (OpenBSD) or added to advskew (FreeBSD)."""

    OPENBSD = "openbsd"
    FREEBSD = "freebsd"


@dataclass(frozen=True, slots=True)
class Member:
    """Another member of the group."""

    name: str  # node name, or the address of a foreign member
    kind: Kind
    advbase: int
    advskew: int
    rank: int  # place in `nodes`; foreign members come last


@dataclass(frozen=True, slots=True)
class Parameters:
    """One group on one node."""

    group: str
    vhid: int
    advbase: int
    advskew: int
    rank: int
    members: tuple[Member, ...]  # the others
    lease_ns: int
    margin_ns: int = 5 * NS_PER_MS  # what the lease leaves of the earliest master-down time
    preempt: bool = True
    preempt_delay_ns: int = 0
    demote_mode: DemoteMode = DemoteMode.OPENBSD

    @property
    def foreign(self) -> bool:
        """Whether a member that is not carpool belongs to the group."""
        return any(member.kind is not Kind.CARPOOL for member in self.members)

    def skew(self, demotion: int) -> int:
        """Return the advskew to send and to count with, in 1/256 s."""
        if self.demote_mode is DemoteMode.OPENBSD:
            return self.advskew
        # Never below the configured skew: the others' leases are counted from that.
        return max(self.advskew, min(FREEBSD_SKEW_MAX, self.advskew + demotion))

    def demote_byte(self, demotion: int) -> int:
        """Return byte 4 of the advertisement."""
        if self.demote_mode is DemoteMode.FREEBSD:
            return 0
        return max(0, min(DEMOTION_MAX, demotion))

    def interval_ns(self) -> int:
        """Return the time between two advertisements of ours."""
        return interval_ns(self.advbase, self.advskew)

    def master_down_ns(self, demotion: int = 0) -> int:
        """Return the silence after which this node takes over."""
        return master_down_ns(self.advbase, self.skew(demotion))
