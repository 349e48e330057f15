"""One node's brain: owns the elections, routes events, returns effects.

`handle(event, now)` is the one door, `deadline` the one clock hand. Nothing here reads a clock,
opens a socket or draws a lot: the first counter of the advertisements is handed in.
"""

from collections.abc import Mapping
from typing import Final

from carpool.base.journal import ConfigChanged, HandoverEnded
from carpool.base.time import NS_PER_MS, NS_PER_S, Instant, after
from carpool.election import effects as election
from carpool.election.events import (
    AdvertisementFailed,
    AdvertisementSent,
    CompanionSeen,
    DemotionSet,
    Disabled,
    Enabled,
    ParametersChanged,
    StepDownOrdered,
    TimePassed,
)
from carpool.election.events import Event as ElectionEvent
from carpool.election.parameters import State
from carpool.engine import hearing, orders, peers, rearranging
from carpool.engine.effects import (
    Answer,
    Effect,
    Finished,
    Journal,
    Send,
    TellPeer,
)
from carpool.engine.events import (
    Event,
    FrameHeard,
    InterfaceFacts,
    InterfaceSeen,
    NeighbourHeard,
    Ordered,
    Reconfigured,
    Sent,
    ServeFailed,
    StopOrdered,
    Tick,
)
from carpool.engine.node import GroupBrain, Node, make_group
from carpool.engine.setup import NodeSetup
from carpool.engine.snapshot import NodeSnapshot
from carpool.engine.viewing import view
from carpool.wire import carp
from carpool.wire.link import LinkEvent
from carpool.wire.peer import Goodbye, Offer

HEARTBEAT_NS: Final = 500 * NS_PER_MS  # beside those that go with every advertisement
STOP_WITHIN_NS: Final = NS_PER_S  # a stop never takes longer, whatever the peers do
COMPANION_ROUNDS_MAX: Final = 8  # groups that move together settle in two; a guard

Told = list[tuple[GroupBrain, ElectionEvent]]


class Engine:
    """Every group of one node, and what they share."""

    def __init__(
        self,
        setup: NodeSetup,
        *,
        now: Instant,
        counter_start: int,
        alone: frozenset[str] = frozenset(),
        paused: bool = False,
        demotions: Mapping[str, int] | None = None,
    ) -> None:
        """Start with every group in INIT.

        counter_start: 64 random bits. alone: groups to re-enter at once after our own crash.
        paused, demotions: what the operator had ordered before the restart.
        """
        self.node = Node(setup, now, counter_start, alone=set(alone), paused=paused)
        self.node.demotions = dict(demotions or {})
        self.node.heartbeat_at = now
        for offset, group in enumerate(setup.groups):
            brain = make_group(group, counter_start + (offset << 32))
            self.node.groups[group.name] = brain
            if paused:
                brain.election.standing.reason = "paused before the restart"
            brain.election.standing.demotion = self.node.demotions.get(group.name, 0)
            brain.election.standing.since = now

    @property
    def deadline(self) -> Instant | None:
        """Return when `handle(Tick())` must be called at the latest."""
        node = self.node
        hands = [brain.election.deadline for brain in node.groups.values()]
        hands += [node.heartbeat_at, node.stop_until]
        hands += [until for _, until in node.pending.values()]
        hands += [peer.lost_at for peer in node.peers.values()]
        if node.pause_order is not None:
            hands.append(node.pause_order[1])
        return min((hand for hand in hands if hand is not None), default=None)

    def snapshot(self, now: Instant, gate: str) -> NodeSnapshot:
        """Return the whole state as one value; `gate` is the kind of gate in use."""
        return view(self.node, now, gate)

    def alone_groups(self, now: Instant) -> set[str]:
        """Return the groups that are mastered here while no other member is known to live.

        Foreign standbys are silent, so a group with foreign members is never called alone.
        """
        found = set()
        for name, brain in self.node.groups.items():
            standing = brain.election.standing
            heard = now < after(standing.advert_at, standing.master_down_ns)
            linked = any(
                self.node.peers[member.name].up
                for member in standing.parameters.members
                if member.name in self.node.peers
            )
            serving = standing.state is State.MASTER and not standing.parameters.foreign
            if serving and not linked and not heard:
                found.add(name)
        return found

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Return the effects of `event`, in the order they must be carried out."""
        effects = self._dispatch(event, now)
        effects += self._companions(now)
        if self.node.report_due:
            self.node.report_due = False
            self.node.heartbeat_at = after(now, HEARTBEAT_NS)
            effects += [TellPeer("", beat) for beat in peers.heartbeats(self.node, now)]
        return effects + self._settle(now)

    def _dispatch(self, event: Event, now: Instant) -> list[Effect]:
        match event:
            case Tick():
                return self._tick(now, judge=event.judge)
            case FrameHeard():
                return self._frame(event, now)
            case NeighbourHeard():
                return self._tell(list(hearing.conflicts(self.node, event)), now)
            case InterfaceSeen():
                self.node.facts[event.interface] = event.facts
                return self._evaluate(event.interface, now)
            case Sent() | ServeFailed():
                return self._result(event, now)
            case Ordered():
                return self._ordered(event, now)
            case StopOrdered():
                return self._stop(now)
            case Reconfigured():
                return self._reconfigure(event.setup, now)
            case _:
                return self._peer(event, now)

    def _peer(
        self,
        event: LinkEvent,
        now: Instant,
    ) -> list[Effect]:
        told, noted = peers.learn(self.node, event, now)
        effects = self._tell(told, now)
        for record in noted:
            assert isinstance(record, election.Record)
            effects.append(Journal(record.entry))
        return effects

    def _tick(self, now: Instant, *, judge: bool) -> list[Effect]:
        node = self.node
        late = [
            now - brain.election.deadline
            for brain in node.groups.values()
            if brain.election.deadline is not None
        ]
        node.lateness_ns_max = max([node.lateness_ns_max, *late])
        due: Told = [
            (brain, TimePassed())
            for brain in node.groups.values()
            if brain.election.deadline is not None and brain.election.deadline <= now
            if judge or brain.election.standing.serving
        ]
        effects = self._tell(due + (peers.lost(node, now) if judge else []), now)
        if node.heartbeat_at is not None and now >= node.heartbeat_at:
            node.report_due = True
        return effects

    def _tell(self, told: Told, now: Instant) -> list[Effect]:
        """Let elections handle their events and translate what they ask for."""
        effects: list[Effect] = []
        for brain, event in told:
            if self.node.groups.get(brain.setup.name) is brain:
                effects += self._translate(brain, brain.election.handle(event, now), now)
        return effects

    def _translate(
        self, brain: GroupBrain, wanted: list[election.Effect], now: Instant
    ) -> list[Effect]:
        effects: list[Effect] = []
        follow: Told = []
        for effect in wanted:
            match effect:
                case election.TakeOver() | election.Advertise() | election.BowOut():
                    effects.append(self._send(brain, effect))
                case election.Tell():
                    effects.append(TellPeer(effect.node, effect.message))
                    if isinstance(effect.message, Offer):
                        follow += self._follow(brain, effect.node, hold=effect.message.hold)
                case election.Report():
                    self.node.report_due = True
                case election.Record():
                    effects.append(Journal(effect.entry))
                    effects += self._answer(brain, effect)
                case _:
                    effects.append(effect)
        return effects + self._tell(follow, now)

    def _send(
        self,
        brain: GroupBrain,
        effect: election.TakeOver | election.Advertise | election.BowOut,
    ) -> Send:
        """Sign an advertisement with the next counter."""
        if isinstance(effect, election.BowOut):
            advbase, advskew, demote = *carp.BOW_OUT, 0
            lease_until, serve = Instant(0), False
        else:
            advbase, advskew, demote = effect.advbase, effect.advskew, effect.demote
            lease_until, serve = effect.lease_until, effect.serve
        advertisement = carp.advertise(
            brain.authenticator,
            advbase=advbase,
            advskew=advskew,
            demote=demote,
            counter=brain.next_counter(),
        )
        return Send(
            group=brain.setup.name,
            payload=carp.encode(advertisement),
            window_until=None if isinstance(effect, election.Advertise) else effect.window_until,
            lease_until=lease_until,
            serve=serve,
        )

    def _follow(self, brain: GroupBrain, to: str, *, hold: bool) -> Told:
        """Groups that move with an offered one are offered to the same node, and stay there too."""
        cause = "step-down" if hold else "with"
        event = StepDownOrdered(to=to, cause=cause, reason=f"moves with {brain.setup.name}")
        others = [self.node.groups.get(name) for name in brain.setup.moves_with]
        return [
            (other, event)
            for other in others
            if other is not None
            and other.election.state is State.MASTER
            and other.election.standing.handover is None
        ]

    def _answer(self, brain: GroupBrain, record: election.Record) -> list[Effect]:
        """Answer the step-down that waits for this group, if its outcome is now known."""
        entry = record.entry
        pending = self.node.pending.get(brain.setup.name)
        if pending is None:
            return []
        if isinstance(entry, HandoverEnded):
            if entry.outcome != "taken" and brain.election.standing.handover is not None:
                return []  # the next standby is being asked
            del self.node.pending[brain.setup.name]
            text = f"{entry.group}: {entry.successor}: {entry.outcome}"
            return [Answer(pending[0], ok=entry.outcome == "taken", text=text)]
        return []

    def _frame(self, event: FrameHeard, now: Instant) -> list[Effect]:
        found = hearing.advertisement(self.node, event, now)
        if isinstance(found, tuple):
            return self._tell([found], now)
        return [Journal(effect.entry) for effect in found if isinstance(effect, election.Record)]

    def _result(self, event: Sent | ServeFailed, now: Instant) -> list[Effect]:
        brain = self.node.groups.get(event.group)
        if brain is None:
            return []
        if isinstance(event, ServeFailed):
            return self._tell([(brain, Disabled(event.reason))], now)
        setup = brain.setup
        wanted = {family for family, have in ((4, setup.v4), (6, setup.v6)) if have}
        # BSD has a timer for each family, so a foreign member must hear both (hot 1.4).
        complete = wanted <= event.families if setup.parameters.foreign else bool(event.families)
        if not complete:
            self.node.counters.add(f"send-error.{event.group}")
            return self._tell([(brain, AdvertisementFailed(event.error))], now)
        self.node.counters.add(f"sent.{event.group}")
        self.node.report_due = True
        sent = AdvertisementSent(event.lease_until, event.serving)
        return self._tell([(brain, sent)], now)

    def _evaluate(self, interface: str, now: Instant) -> list[Effect]:
        """Enable or disable the groups of an interface."""
        facts = self.node.facts.get(interface)
        told: Told = []
        for brain in self.node.groups.values():
            if brain.setup.interface != interface or self.node.paused or self.node.stopping:
                continue
            reason = self._trouble(brain, facts)
            if reason:
                told.append((brain, Disabled(reason)))
            elif brain.election.state is State.INIT:
                name = brain.setup.name
                told.append((brain, Enabled(alone=name in self.node.alone)))
                self.node.alone.discard(name)
        self.node.report_due = True
        return self._tell(told, now)

    @staticmethod
    def _trouble(brain: GroupBrain, facts: InterfaceFacts | None) -> str:
        """Return why a group cannot be served on its interface, "" if it can."""
        name = brain.setup.interface
        if facts is None:
            return f"interface {name} is missing"
        if facts.trouble:
            return f"no gate on {name}: {facts.trouble}"
        if not facts.up:
            return f"interface {name} is down"
        if not facts.carrier:
            return f"interface {name} has no carrier"
        if facts.v6 is None and not brain.setup.v4:
            return f"interface {name} has no IPv6 link-local address"
        return ""

    def _companions(self, now: Instant) -> list[Effect]:
        """Demote groups whose companions cannot serve; the first of a set leads the others."""
        effects: list[Effect] = []
        for _ in range(COMPANION_ROUNDS_MAX):
            told = self._companion_news()
            if not told:
                break
            effects += self._tell(told, now)
        return effects

    def _companion_news(self) -> Told:
        told: Told = []
        for brain in self.node.groups.values():
            if not brain.setup.moves_with:
                continue
            standing = brain.election.standing
            total = orders.total_demotion(self.node, brain)
            if total != standing.demotion:
                told.append((brain, DemotionSet(total, "a group that moves with it changed")))
            leader = min((brain.setup.name, *brain.setup.moves_with))
            known = leader != brain.setup.name
            chief = self.node.groups.get(leader)
            here = known and chief is not None and chief.election.state is State.MASTER
            if known and (not standing.companion_known or standing.companion_master != here):
                told.append((brain, CompanionSeen(master_here=here)))
        return told

    def _ordered(self, event: Ordered, now: Instant) -> list[Effect]:
        told, effects = orders.take(self.node, event, now)
        effects += self._tell(told, now)
        if event.verb == "resume":
            for interface in {brain.setup.interface for brain in self.node.groups.values()}:
                effects += self._evaluate(interface, now)
        self.node.report_due = True
        return effects

    def _stop(self, now: Instant) -> list[Effect]:
        node = self.node
        node.stopping = True
        node.stop_until = after(now, STOP_WITHIN_NS)
        event = StepDownOrdered(to="", cause="stop", reason="carpoold stops")
        return self._tell([(brain, event) for brain in node.groups.values()], now)

    def _settle(self, now: Instant) -> list[Effect]:
        """Answer what has waited long enough, finish a pause or a stop."""
        node = self.node
        effects: list[Effect] = []
        for group, (number, until) in list(node.pending.items()):
            if now >= until:
                del node.pending[group]
                effects.append(Answer(number, ok=False, text=f"{group}: no outcome in time"))
        if node.pause_order is not None:
            number, until = node.pause_order
            if orders.settled(node) or now >= until:
                node.pause_order = None
                done = orders.settled(node)
                text = "paused: everything is handed over" if done else "still handing over"
                effects.append(Answer(number, ok=done, text=text))
        if node.stop_until is not None and (orders.settled(node) or now >= node.stop_until):
            node.stop_until = None
            effects += [TellPeer("", Goodbye(reason="carpoold stops")), Finished()]
        return effects

    def _reconfigure(self, setup: NodeSetup, now: Instant) -> list[Effect]:
        """Take a new configuration: what did not change is not touched."""
        before = self.node.setup
        plan = rearranging.plan(self.node, setup)
        effects: list[Effect] = []
        for brain in plan.leaving:
            effects += self._tell([(brain, Disabled("removed from the configuration"))], now)
        for brain in plan.joining:
            brain.election.standing.since = now
        effects += rearranging.carry_out(self.node, setup, plan)
        told: Told = [(brain, ParametersChanged(brain.setup.parameters)) for brain in plan.changed]
        effects += self._tell(told, now)
        for interface in sorted({brain.setup.interface for brain in plan.joining}):
            effects += self._evaluate(interface, now)
        self.node.report_due = True
        same = before.revision == setup.revision
        detail = "unchanged" if same else f"{plan.summary()} (was {before.revision})"
        effects.append(Journal(ConfigChanged(revision=setup.revision, detail=detail)))
        return effects
