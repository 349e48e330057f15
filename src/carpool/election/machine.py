"""The election of one group: one door, one clock hand.

    INIT --enabled--> BACKUP --master down, master gone, hand-over, claim--> MASTER
      ^                 ^                                                      |
      |                 +---- better master, lease expired, handed over -------+
      +---------------- disabled, paused, stopping (from either) --------------+

States and rules follow OpenBSD sys/netinet/ip_carp.c; the lease, the hand-over and the succession
are DESIGN 4. Everybody starts as BACKUP and waits the full master-down time; nobody goes straight
to MASTER, but a node that is alone and re-enters after its own crash.
"""

from carpool.base.journal import DemotionChanged
from carpool.base.time import Instant, after
from carpool.election import backup, handover, master
from carpool.election.effects import Effect, Record
from carpool.election.events import (
    AdvertisementFailed,
    AdvertisementHeard,
    AdvertisementSent,
    CompanionSeen,
    ConflictHeard,
    DemotionSet,
    Disabled,
    Enabled,
    Event,
    ParametersChanged,
    PeerGone,
    PeerLost,
    PeerReported,
    PeerSaid,
    StepDownOrdered,
    TimePassed,
)
from carpool.election.parameters import SETTLE_NS, Parameters, State
from carpool.election.standing import Standing, become_backup, change_role
from carpool.election.succession import PeerView


class Election:
    """Who holds the addresses of one group, as one node decides it."""

    def __init__(self, parameters: Parameters) -> None:
        """Start in INIT."""
        self.standing = Standing(parameters)

    @property
    def state(self) -> State:
        """Return the role."""
        return self.standing.state

    @property
    def ready(self) -> bool:
        """Return whether this node could take over when asked."""
        return self.standing.state is State.BACKUP and not self.standing.retiring

    @property
    def deadline(self) -> Instant | None:
        """Return when `handle(TimePassed())` must be called at the latest."""
        standing = self.standing
        hands = [
            standing.advertise_at,
            standing.claim_until,
            standing.probe_at,
            standing.master_down_at,
            standing.announce_at[0] if standing.announce_at else None,
            standing.handover.until if standing.handover else None,
            standing.lease_until,
            standing.forgive_at,
        ]
        return min((hand for hand in hands if hand is not None), default=None)

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Return the effects of `event`, in the order they must be carried out."""
        standing = self.standing
        effects = master.expired(standing, now)
        effects += self._dispatch(event, now)
        if standing.retiring and standing.state is State.BACKUP:
            standing.master_down_at = None
            effects += change_role(
                standing, State.INIT, now, cause="retired", reason=standing.retiring
            )
        return effects

    def _dispatch(self, event: Event, now: Instant) -> list[Effect]:
        """Route one event."""
        standing = self.standing
        match event:
            case TimePassed():
                return self._time_passed(now)
            case AdvertisementHeard():
                return self._heard(event, now)
            case AdvertisementSent():
                return master.sent(standing, event, now)
            case AdvertisementFailed():
                return master.failed(standing, event, now)
            case ConflictHeard():
                return master.conflict(standing, event, now)
            case PeerReported() | PeerLost() | PeerGone() | PeerSaid():
                return self._peer(event, now)
            case _:
                return self._ordered(event, now)

    def _peer(
        self, event: PeerReported | PeerLost | PeerGone | PeerSaid, now: Instant
    ) -> list[Effect]:
        """What the peer link brought."""
        match event:
            case PeerReported():
                return self._reported(event, now)
            case PeerLost():
                self.standing.peers.pop(event.node, None)
                self.standing.rivalries.pop(event.node, None)
                self.standing.offered_serials.pop(event.node, None)  # a reboot counts anew
                return []
            case PeerGone():
                self.standing.rivalries.pop(event.node, None)
                self.standing.offered_serials.pop(event.node, None)
                return backup.gone(self.standing, event.node, event.closed_at, now)
            case PeerSaid():
                return handover.said(self.standing, event.node, event.message, now)

    def _ordered(
        self,
        event: Enabled
        | Disabled
        | StepDownOrdered
        | DemotionSet
        | CompanionSeen
        | ParametersChanged,
        now: Instant,
    ) -> list[Effect]:
        """What the machine below or the operator above wants."""
        match event:
            case Enabled():
                return self._enabled(event, now)
            case Disabled():
                return self._disabled(event, now)
            case StepDownOrdered():
                return self._step_down(event, now)
            case DemotionSet():
                return self._demotion(event, now)
            case CompanionSeen():
                self.standing.companion_known = True
                self.standing.companion_master = event.master_here
                self.standing.asked_at = None  # a refusal was about how things were
                return []
            case ParametersChanged():
                return self._parameters(event, now)

    def _time_passed(self, now: Instant) -> list[Effect]:
        effects = handover.timed_out(self.standing, now)
        if self.standing.state is State.MASTER:
            return effects + master.timers(self.standing, now)
        if self.standing.state is State.BACKUP:
            return effects + backup.timers(self.standing, now)
        return effects

    def _heard(self, event: AdvertisementHeard, now: Instant) -> list[Effect]:
        if self.standing.state is State.MASTER:
            return master.heard(self.standing, event, now)
        if self.standing.state is State.BACKUP:
            return backup.heard(self.standing, event, now)
        return []

    def _reported(self, event: PeerReported, now: Instant) -> list[Effect]:
        standing = self.standing
        before = standing.peers.get(event.node)
        view = PeerView(
            state=event.state,
            advbase=event.advbase,
            advskew=event.advskew,
            demote=event.demote,
            ready=event.ready,
            hears=event.hears,
            same_file=event.same_file,
        )
        standing.peers[event.node] = view
        backup.reported(standing, event.node, view, now)
        stepped_back = before is not None and before.state is State.MASTER
        effects: list[Effect] = []
        if view.state is State.MASTER:
            effects = master.rival_reported(standing, event.node, view, now)
        elif stepped_back:
            standing.forget_heard(event.node)
            effects = master.rival_left(standing, event.node, now)
        return effects + master.shorten_lease(standing, now)

    def _enabled(self, event: Enabled, now: Instant) -> list[Effect]:
        standing = self.standing
        if standing.state is not State.INIT or standing.retiring:
            return []
        standing.enabled_at = now
        effects = become_backup(
            standing, now, cause="enabled", reason="listening for a master before anything else"
        )
        if event.alone:
            standing.master_down_at = now
            standing.succession_cause = "alone"
        elif standing.was_disabled and standing.parameters.members:
            # A cable that is in again does not carry at once (linkwatch, a switch's spanning tree):
            # silence proves nothing yet.
            settled = max(standing.master_down_ns, SETTLE_NS)
            standing.master_down_at = after(now, settled)
        standing.was_disabled = False
        return effects

    def _disabled(self, event: Disabled, now: Instant) -> list[Effect]:
        standing = self.standing
        standing.was_disabled = True
        if standing.state is State.INIT:
            standing.reason = event.reason
            return []
        return master.disable(standing, now, event.reason)

    def _step_down(self, event: StepDownOrdered, now: Instant) -> list[Effect]:
        standing = self.standing
        if event.cause in handover.MUST_GO:
            standing.retiring = event.reason
        if standing.state is not State.MASTER:
            return []
        return handover.begin(standing, now, to=event.to, cause=event.cause, reason=event.reason)

    def _demotion(self, event: DemotionSet, now: Instant) -> list[Effect]:
        """A raise makes a master tell at once: a better standby asks for the group."""
        standing = self.standing
        if standing.demotion == event.demotion:
            return []
        entry = DemotionChanged(
            group=standing.group,
            before=standing.demotion,
            after=event.demotion,
            reason=event.reason,
        )
        before_ns = standing.master_down_ns
        standing.demotion = event.demotion
        standing.asked_at = None
        if standing.master_down_at is not None and not standing.succession_cause:
            longer_ns = standing.master_down_ns - before_ns  # FreeBSD's way: skew is time as well
            standing.master_down_at = after(standing.master_down_at, longer_ns)
        told = master.advertise(standing, now) if standing.serving else []
        return [Record(entry), *told]

    def _parameters(self, event: ParametersChanged, now: Instant) -> list[Effect]:
        """A reload moved nothing: keep the role, take the new numbers."""
        standing = self.standing
        before_ns = standing.master_down_ns
        standing.parameters = event.parameters
        if standing.master_down_ns < before_ns:
            standing.former_down_ns, standing.former_until = before_ns, after(now, before_ns)
        names = {member.name for member in event.parameters.members}
        standing.peers = {name: view for name, view in standing.peers.items() if name in names}
        return master.advertise(standing, now) if standing.serving else []

    def resume(self) -> None:
        """Take part again after a pause; the next Enabled makes this node BACKUP."""
        self.standing.retiring = ""
