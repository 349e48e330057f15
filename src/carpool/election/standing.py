"""What one election remembers, and the changes of role that every part of it shares.

States: INIT (cannot serve), BACKUP (listens), MASTER (serves while its lease lives).

Timers of a group, one sentence each:
- advertise_at    MASTER: the next advertisement, one interval after the last one that was sent;
- claim_until     MASTER that has advertised and listens before it serves: for a rival that began
                  at the same instant, or until another master has yielded or its lease is over;
- announce_at     MASTER: repeats of the announcements, 1 and 5 intervals after taking over;
- probe_at        MASTER: looks for another owner of its addresses, first after 5 intervals;
- master_down_at  BACKUP: takes over, one master-down time after the last advertisement;
- handover.until  either: the other side's answer is no longer awaited.
- lease_until     MASTER: the kernel's gate has shut; whoever handles an event after it is no master
                  any more, whether the timer woke it or not;
- forgive_at      BACKUP that could not send as a master: its demotion for that ends.
"""

from dataclasses import dataclass, field
from typing import Final

from carpool.base.journal import RoleChanged
from carpool.base.time import Instant, after
from carpool.election.effects import Effect, Record, Report, ShutGate, TakeOver, Withdraw
from carpool.election.events import AdvertisementHeard
from carpool.election.parameters import (
    CLAIM_RACE_NS,
    FREEBSD_SKEW_MAX,
    LEASE_MIN_NS,
    PROBE_FIRST_NS,
    SEND_ERRORS_KEPT_NS,
    SEND_ERRORS_MAX,
    TAKEOVER_WINDOW_NS,
    DemoteMode,
    Kind,
    Member,
    Parameters,
    State,
)
from carpool.election.succession import PeerView, Rivalry
from carpool.wire.carp import master_down_ns

NEVER: Final = Instant(0)


@dataclass(frozen=True, slots=True)
class MasterHeard:
    """The last advertisement (or heartbeat) of the master this node listens to."""

    source: str
    node: str
    kind: Kind
    advbase: int
    advskew: int
    demote: int
    at: Instant

    @property
    def claims(self) -> tuple[str, int, int, int]:
        """Return who it is and how good it says that it is."""
        return self.name, self.advbase, self.advskew, self.demote

    @property
    def name(self) -> str:
        """Return the node's name, or the address when it is not one of ours."""
        return self.node or self.source


def master_heard(event: AdvertisementHeard) -> MasterHeard:
    """Return the master that an advertisement tells of."""
    return MasterHeard(
        source=event.source,
        node=event.node,
        kind=event.kind,
        advbase=event.advbase,
        advskew=event.advskew,
        demote=event.demote,
        at=event.received_at,
    )


@dataclass(slots=True)
class Handover:
    """A planned move under way. Phases: "offered", "transferred" (giver); "accepted" (taker)."""

    phase: str
    node: str
    serial: int
    until: Instant
    began: Instant
    cause: str
    reason: str
    tried: frozenset[str] = frozenset()
    to: str = ""  # the only node it may go to, "" for the best one
    give_until: Instant | None = None  # end of the lease of a giver that has shut its gate already
    hold: bool = False


@dataclass(slots=True)
class Standing:
    """The memory of one election. Only the modules of this package write to it."""

    parameters: Parameters
    state: State = State.INIT
    reason: str = "starting"
    cause: str = "start"
    since: Instant = NEVER
    changes: int = 0
    enabled_at: Instant = NEVER
    was_disabled: bool = False  # the interface was not usable since we last took part
    demotion: int = 0
    companion_master: bool = False
    companion_known: bool = False
    peers: dict[str, PeerView] = field(default_factory=dict)
    master: MasterHeard | None = None
    advert_at: Instant = NEVER  # last CARP advertisement heard, heartbeats not counted
    # Who advertised within a master-down time, by node or else by source, and when.
    heard: dict[str, Instant] = field(default_factory=dict)
    # MASTER
    lease_until: Instant | None = None  # None while the first advertisement is not out
    serving: bool = False
    held: bool = False  # an operator moved the group here: it is not preempted
    advertise_at: Instant | None = None
    announce_at: list[Instant] = field(default_factory=list)
    probe_at: Instant | None = None
    claim_until: Instant | None = None
    claim_from: str = ""  # the other master whose leaving ends the claim
    owes_taken: tuple[str, int] | None = None  # who handed over to us waits for this answer
    rival_at: Instant | None = None
    rival_adverts: dict[str, Instant] = field(default_factory=dict)  # of other masters, by node
    rivalries: dict[str, Rivalry] = field(default_factory=dict)  # masters by their heartbeats
    window_until: Instant = NEVER  # of the last take-over
    send_errors: int = 0
    forgive_at: Instant | None = None  # BACKUP: when its errors of sending are forgotten
    yielded_to: str = ""
    unheard_since: Instant | None = None
    # BACKUP
    master_down_at: Instant | None = None
    succession_cause: str = ""  # why master_down_at was brought forward
    succession_of: str = ""  # who is gone then
    former_down_ns: int = 0  # our master-down time before a reload, which leases were counted from
    former_until: Instant = NEVER
    late_extensions: int = 0
    asked_at: Instant | None = None
    asked_serial: int = 0  # of our last Request: only its Refuse counts
    offered_serials: dict[str, int] = field(default_factory=dict)  # node -> its newest Offer
    handover: Handover | None = None
    serial: int = 0
    retiring: str = ""  # why this node leaves the group for good: paused, stopping
    conflicts: dict[str, tuple[str, Instant]] = field(default_factory=dict)
    conflict_macs: dict[str, Instant] = field(default_factory=dict)  # written down, last seen
    conflict_noted_at: Instant | None = None
    conflict_announced_at: Instant | None = None

    @property
    def group(self) -> str:
        """Return the group's name."""
        return self.parameters.group

    @property
    def pace(self) -> tuple[int, int]:
        """Return our (advbase, advskew) as sent."""
        return self.parameters.advbase, self.parameters.skew(self.total_demotion)

    @property
    def total_demotion(self) -> int:
        """Return the operator's demotion and, while we cannot send, what BSD adds for that."""
        if self.send_errors < SEND_ERRORS_MAX:
            return self.demotion
        openbsd = self.parameters.demote_mode is DemoteMode.OPENBSD
        return self.demotion + (1 if openbsd else FREEBSD_SKEW_MAX)

    @property
    def demote_byte(self) -> int:
        """Return byte 4 as sent."""
        return self.parameters.demote_byte(self.total_demotion)

    @property
    def interval_ns(self) -> int:
        """Return the time between two advertisements of ours.

        FREEBSD (ip_carp.c, carp_send_ad) counts the demotion in. OURS: the demoted skew is told but
        the pace stays, because the lease ends a fixed time after an advertisement.
        """
        return self.parameters.interval_ns()

    @property
    def master_down_ns(self) -> int:
        """Return our master-down time."""
        return self.parameters.master_down_ns(self.total_demotion)

    @property
    def lease_ns(self) -> int:
        """Return how long the gate stays open after an advertisement.

        A member that is linked says how patient it really is: while a reload goes from node to
        node its file is not ours. What it said last counts until its link is lost.
        """
        views = self.peers.values()
        waits = [master_down_ns(view.advbase, view.advskew) for view in views]
        if not waits:
            return self.parameters.lease_ns
        shortest = max(LEASE_MIN_NS, min(waits) - self.parameters.margin_ns)
        return min(self.parameters.lease_ns, shortest)

    @property
    def advertise_gap_ns(self) -> int:
        """Return the time to our next advertisement: sooner where a lease was cut short."""
        if self.lease_ns == self.parameters.lease_ns:
            return self.interval_ns
        return min(self.interval_ns, self.lease_ns // 2)

    def member(self, name: str) -> Member | None:
        """Return the member of that name."""
        return next((m for m in self.parameters.members if m.name == name), None)

    def other_master(self, than: str) -> str:
        """Return a live node other than `than` that says that it is master, "" if none does."""
        views = self.peers.items()
        found = (n for n, view in views if view.state is State.MASTER and n != than)
        return next(found, "")

    def note_heard(self, source: str, node: str, at: Instant) -> None:
        """Remember who advertised: until a master-down time later it may be serving."""
        oldest = at - self.master_down_ns
        self.heard = {name: seen for name, seen in self.heard.items() if seen > oldest}
        self.heard[node or source] = at  # several nodes may send from 0.0.0.0

    def forget_heard(self, node: str, source: str = "") -> None:
        """Forget who has left: it serves no more."""
        self.heard.pop(node, None)
        self.heard.pop(source, None)

    def may_another_serve(self, now: Instant, leaving: str) -> bool:
        """Return whether a node other than `leaving` advertised lately or says that it is master.

        Who leaves takes only its own lease back; what another one has advertised stands.
        """
        advertised = any(now < after(at, self.master_down_ns) for at in self.heard.values())
        return advertised or bool(self.other_master(leaving))

    def next_serial(self, now: Instant) -> int:
        """Return a number that this node has not used for a hand-over before."""
        self.serial = max(self.serial + 1, now)
        return self.serial


def change_role(
    standing: Standing, state: State, now: Instant, *, cause: str, reason: str
) -> list[Effect]:
    """Set the role and its reason; return the record of it."""
    entry = RoleChanged(
        group=standing.group, before=standing.state, after=state, cause=cause, reason=reason
    )
    if state is not State.MASTER:
        standing.held = False
    standing.asked_at = None
    if standing.state is not state:
        standing.changes += 1
        standing.since = now
    standing.state, standing.cause, standing.reason = state, cause, reason
    return [Record(entry), Report(standing.group)]


def take_over(
    standing: Standing,
    now: Instant,
    *,
    cause: str,
    reason: str,
    claim_until: Instant | None = None,
    at_once_until: Instant | None = None,
) -> list[Effect]:
    """Become MASTER. The addresses follow when the advertisement is known to be out.

    claim_until: when the other master, who is alive, has yielded or its lease is over.
    at_once_until: the giver has shut its gate, nobody else may act before this instant: serve with
    the first advertisement. Otherwise two nodes may have decided at the same instant (their timers
    began at different events), so the advertisement goes first, and the addresses follow when no
    rival was heard for CLAIM_RACE_NS after it.
    """
    named = claim_until is not None and standing.master is not None
    standing.claim_from = standing.master.name if named and standing.master else ""
    if claim_until is None and at_once_until is None and standing.parameters.members:
        claim_until = after(now, CLAIM_RACE_NS)
    standing.serving = False
    standing.lease_until = None
    standing.claim_until = claim_until
    standing.master_down_at = None
    standing.forgive_at = None
    standing.succession_cause = ""
    standing.late_extensions = 0
    standing.advertise_at = after(now, standing.advertise_gap_ns)
    standing.announce_at = []
    standing.probe_at = after(now, max(PROBE_FIRST_NS, 5 * standing.interval_ns))
    standing.unheard_since = None
    standing.rival_at = None
    standing.rival_adverts = {}
    standing.rivalries = {}
    standing.window_until = at_once_until or after(now, TAKEOVER_WINDOW_NS)
    advbase, advskew = standing.pace
    order = TakeOver(
        group=standing.group,
        advbase=advbase,
        advskew=advskew,
        demote=standing.demote_byte,
        window_until=standing.window_until,
        lease_until=after(now, standing.lease_ns),
        serve=claim_until is None,
    )
    # The record goes first: what the order brings about is handled, and recorded, at once.
    return [*change_role(standing, State.MASTER, now, cause=cause, reason=reason), order]


def stop_serving(standing: Standing) -> list[Effect]:
    """Forget everything a master has; return what shuts its addresses."""
    standing.serving = False
    standing.lease_until = None
    standing.advertise_at = None
    standing.announce_at = []
    standing.probe_at = None
    standing.claim_until = None
    standing.claim_from = ""
    standing.owes_taken = None
    standing.rival_at = None
    standing.unheard_since = None
    standing.forgive_at = None
    return [ShutGate(standing.group)]


def become_backup(standing: Standing, now: Instant, *, cause: str, reason: str) -> list[Effect]:
    """Leave INIT or MASTER for BACKUP and wait a full master-down time."""
    effects: list[Effect] = []
    if standing.state is State.MASTER:
        effects += [*stop_serving(standing), Withdraw(standing.group)]
    standing.master_down_at = after(now, standing.master_down_ns)
    standing.succession_cause = ""
    standing.late_extensions = 0
    standing.forgive_at = after(now, SEND_ERRORS_KEPT_NS) if standing.send_errors else None
    return effects + change_role(standing, State.BACKUP, now, cause=cause, reason=reason)
