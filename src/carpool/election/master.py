"""What a MASTER does: advertises, renews its lease, announces, and yields to a better one.

A master never trusts its own memory of being master: the lease decides (`expired`), and the lease
is only ever extended after an advertisement was really sent.
"""

from carpool.base.journal import ConflictSeen, Noted
from carpool.base.time import Instant, after
from carpool.election import handover
from carpool.election.carp import (
    Action,
    better_because,
    decide,
    demotion,
    is_bow_out,
    speed,
    tie_yields,
)
from carpool.election.effects import (
    Advertise,
    Announce,
    BowOut,
    Effect,
    Probe,
    Record,
    Serve,
    Tell,
    Withdraw,
)
from carpool.election.events import (
    AdvertisementFailed,
    AdvertisementHeard,
    AdvertisementSent,
    ConflictHeard,
)
from carpool.election.parameters import (
    CLAIM_FOREIGN_NS,
    CLAIM_RACE_NS,
    CONFLICT_ANNOUNCE_GAP_NS,
    CONFLICT_KEPT_NS,
    CONFLICT_NOTED_GAP_NS,
    CONFLICTS_KEPT_MAX,
    PROBE_GAP_NS,
    SEND_ERRORS_MAX,
    TAKEOVER_WINDOW_NS,
    UNHEARD_EXTRA_NS,
    Kind,
    State,
)
from carpool.election.standing import (
    MasterHeard,
    Standing,
    become_backup,
    change_role,
    master_heard,
    stop_serving,
)
from carpool.election.succession import PeerView, Rivalry, live_standbys, merit
from carpool.wire.carp import interval_ns
from carpool.wire.peer import Taken

RIVAL_INTERVALS = 2  # without an advertisement of another master: the wire does not settle it
ANNOUNCE_AFTER_INTERVALS = (1, 5)  # DESIGN 4: some switches miss the first announcement


def advertise(standing: Standing, now: Instant) -> list[Effect]:
    """Send the next advertisement; the lease follows when it is out."""
    standing.advertise_at = after(now, standing.advertise_gap_ns)
    advbase, advskew = standing.pace
    return [
        Advertise(
            group=standing.group,
            advbase=advbase,
            advskew=advskew,
            demote=standing.demote_byte,
            lease_until=after(now, standing.lease_ns),
            serve=standing.claim_until is None,
        )
    ]


def shorten_lease(standing: Standing, now: Instant) -> list[Effect]:
    """A member turned out to be less patient than the lease that runs: take a shorter one."""
    if not standing.serving or standing.lease_until is None:
        return []
    if standing.lease_until <= after(now, standing.lease_ns):
        return []
    return advertise(standing, now)


def sent(standing: Standing, event: AdvertisementSent, now: Instant) -> list[Effect]:
    """The advertisement is out: the lease counts; the first one brings the addresses."""
    if standing.state is not State.MASTER:
        return []
    first = standing.lease_until is None
    standing.lease_until = event.lease_until
    standing.send_errors = 0
    effects: list[Effect] = []
    if first and standing.owes_taken is not None:
        node, serial = standing.owes_taken
        standing.owes_taken = None
        effects.append(Tell(node, Taken(group=standing.group, serial=serial)))
    if first and standing.claim_until is not None:
        # Whoever decided at the same instant is heard by then, however late we were ourselves.
        listen_until = after(now, CLAIM_RACE_NS)
        standing.claim_until = Instant(max(standing.claim_until, listen_until))
    if not event.serving or standing.serving:
        return effects
    standing.serving = True
    standing.announce_at = [
        after(now, count * standing.interval_ns) for count in ANNOUNCE_AFTER_INTERVALS
    ]
    return [Serve(standing.group), *effects]


def failed(standing: Standing, event: AdvertisementFailed, now: Instant) -> list[Effect]:
    """Nothing went out: a first one voids the take-over, a later one leaves the old lease."""
    if standing.state is not State.MASTER:
        return []
    standing.send_errors += 1
    if standing.lease_until is None:
        if now < standing.window_until:  # not too late but impossible: let another one try
            standing.send_errors = max(standing.send_errors, SEND_ERRORS_MAX)
        reason = f"could not advertise: {event.reason}"
        return become_backup(standing, now, cause="send-failed", reason=reason)
    if standing.send_errors != SEND_ERRORS_MAX:
        return []
    text = f"{SEND_ERRORS_MAX} advertisements in a row were not sent: {event.reason}"
    return [Record(Noted(group=standing.group, name="send-errors", text=text))]


def expired(standing: Standing, now: Instant) -> list[Effect]:
    """Return what ends a mastership whose lease has run out, nothing while it lives."""
    if standing.state is not State.MASTER or standing.lease_until is None:
        return []
    if now < standing.lease_until:
        return []
    late_ms = (now - standing.lease_until) / 1e6
    reason = f"the lease ran out {late_ms:.0f} ms ago: frozen, starved or unable to send"
    handover.void_offer(standing)  # what we offered is not ours any more
    return become_backup(standing, now, cause="lease-expired", reason=reason)


def timers(standing: Standing, now: Instant) -> list[Effect]:
    """Do what is due."""
    effects: list[Effect] = []
    if standing.claim_until is not None and now >= standing.claim_until:
        effects += end_claim(standing, now)
    elif standing.advertise_at is not None and now >= standing.advertise_at:
        effects += advertise(standing, now)
        effects += _give_up_if_unheard(standing, now)
    if standing.announce_at and now >= standing.announce_at[0]:
        standing.announce_at = [at for at in standing.announce_at if at > now]
        effects.append(Announce(standing.group))
    if standing.probe_at is not None and now >= standing.probe_at:
        standing.probe_at = after(now, PROBE_GAP_NS)
        effects.append(Probe(standing.group))
    return effects


def end_claim(standing: Standing, now: Instant) -> list[Effect]:
    """The other master has yielded, or its lease is over: serve."""
    standing.claim_until = None
    standing.claim_from = ""
    return advertise(standing, now)


def _give_up_if_unheard(standing: Standing, now: Instant) -> list[Effect]:
    """Hand over when two or more live standbys all hear nothing of us on the wire.

    With one standby only nobody can tell whose cable it is: the master stays (docs, limits). One
    that runs another configuration (a reload goes from node to node) may refuse what we advertise,
    so its deafness counts for nothing.
    """
    standbys = [name for _, name in live_standbys(standing.parameters, standing.peers)]
    heard_by_one = any(standing.peers[name].hears for name in standbys)
    names = [name for name in standbys if standing.peers[name].same_file]
    unheard = len(names) >= 2 and not heard_by_one
    if not unheard:
        standing.unheard_since = None
        return []
    if standing.unheard_since is None:
        standing.unheard_since = now
    if now < after(standing.unheard_since, standing.master_down_ns + UNHEARD_EXTRA_NS):
        return []
    standing.unheard_since = now
    reason = f"none of {', '.join(names)} hears us on the wire"
    return handover.begin(standing, now, to="", cause="unheard", reason=reason)


def heard(standing: Standing, event: AdvertisementHeard, now: Instant) -> list[Effect]:
    """Another master: the table says who stays."""
    if is_bow_out(event.advbase, event.advskew):
        if _is_claimed_from(standing, event.node, event.source):
            return end_claim(standing, now)
        return _other_left(standing, now)
    if event.node:
        standing.rival_adverts[event.node] = event.received_at
    action = decide(
        standing.parameters.demote_mode,
        State.MASTER,
        preempt=standing.parameters.preempt,
        demoted=demotion(event.demote, standing.demote_byte),
        pace=speed((event.advbase, event.advskew), standing.pace),
    )
    if action is Action.TIE:
        action = _tie(standing, event)
    if action is Action.YIELD:
        return _yield_to(standing, event, now)
    _contest(standing, event)
    return _outrank(standing, now)


def _contest(standing: Standing, event: AdvertisementHeard) -> None:
    """A worse master is there while we listen: serve when it has yielded or its lease is over."""
    if standing.claim_until is None:
        return
    if event.kind is Kind.CARPOOL:
        free_at = after(event.received_at, standing.master_down_ns)
    else:
        free_at = after(event.received_at, CLAIM_FOREIGN_NS)
    standing.claim_from = event.node or event.source
    standing.claim_until = Instant(max(standing.claim_until, free_at))


def _is_claimed_from(standing: Standing, *names: str) -> bool:
    """Return whether we wait for one of these to yield."""
    return (
        standing.claim_until is not None
        and standing.claim_from != ""
        and standing.claim_from in names
    )


def _tie(standing: Standing, event: AdvertisementHeard) -> Action:
    """Break a tie between equal masters; only the first family's advertisements count."""
    if not event.primary:
        return Action.STAY
    member = standing.member(event.node)
    rank_lower = member.rank < standing.parameters.rank if member else event.lower
    yields = tie_yields(
        event.kind,
        rank_lower=rank_lower,
        source_lower=event.lower,
        yielded_before=standing.yielded_to == event.source,
    )
    if yields and event.kind is not Kind.CARPOOL:
        standing.yielded_to = event.source
    return Action.YIELD if yields else Action.STAY


def _yield_to(standing: Standing, event: AdvertisementHeard, now: Instant) -> list[Effect]:
    """Shut the gate, tell a claiming node that it is shut, and listen."""
    name = event.node or event.source
    theirs = (event.demote, event.advbase, event.advskew)
    reason = f"yields to {name}: {better_because(theirs, (standing.demote_byte, *standing.pace))}"
    effects: list[Effect] = stop_serving(standing)
    handover.void_offer(standing)
    if event.kind is Kind.CARPOOL and not standing.parameters.foreign:
        effects.append(BowOut(standing.group, after(now, TAKEOVER_WINDOW_NS)))
    standing.master = master_heard(event)
    standing.advert_at = event.received_at
    standing.note_heard(event.source, event.node, event.received_at)
    standing.master_down_at = after(now, standing.master_down_ns)
    effects += change_role(standing, State.BACKUP, now, cause="yield", reason=reason)
    return [*effects, Withdraw(standing.group)]


def _outrank(standing: Standing, now: Instant) -> list[Effect]:
    """Answer a worse master at once, so that it yields now and not one interval later."""
    first = standing.rival_at is None
    standing.rival_at = now
    if not first or standing.lease_until is None:
        return []
    return advertise(standing, now)


def _other_left(standing: Standing, now: Instant) -> list[Effect]:
    """Another owner was seen to leave: hosts may still have its MAC."""
    standing.rival_at = None
    if not standing.serving:
        return []
    standing.announce_at = [after(now, standing.interval_ns)]
    return [Announce(standing.group)]


def rival_reported(standing: Standing, node: str, view: PeerView, now: Instant) -> list[Effect]:
    """A heartbeat says that another node is master beside us.

    Advertisements settle that. Where none of its gets through (the wire between us is cut, or our
    files make different authenticators) the worse of us yields, once both have had the time to hear
    how good the other is: a report that crossed a hand-over, or a change, moves nobody. `merit` is
    a strict order, so the other one stays. Who does not serve yet, but listens, yields at once.
    """
    member = standing.member(node)
    if standing.state is not State.MASTER or member is None:
        return []
    mine = merit(standing.demote_byte, *standing.pace, standing.parameters.rank)
    theirs = merit(view.demote, view.advbase, view.advskew, member.rank)
    known = standing.rivalries.get(node)
    if known is None or (known.mine, known.theirs) != (mine, theirs):
        known = standing.rivalries[node] = Rivalry(mine, theirs, now)
    theirs_ns = interval_ns(view.advbase, view.advskew)
    patience_ns = RIVAL_INTERVALS * max(standing.interval_ns, theirs_ns)
    advert_at = standing.rival_adverts.get(node, known.since)
    settled = now >= after(max(known.since, advert_at), patience_ns)
    if mine <= theirs or (standing.serving and not settled):
        return []
    reason = f"yields to {node}: master on the peer link, unheard on the wire, and better"
    handover.void_offer(standing)
    effects = become_backup(standing, now, cause="yield", reason=reason)
    standing.master = MasterHeard(
        source="",
        node=node,
        kind=Kind.CARPOOL,
        advbase=view.advbase,
        advskew=view.advskew,
        demote=view.demote,
        at=now,
    )
    return effects


def rival_left(standing: Standing, node: str, now: Instant) -> list[Effect]:
    """A node that was master beside us says that it no longer is."""
    rivalled = standing.rivalries.pop(node, None) is not None or standing.rival_at is not None
    if _is_claimed_from(standing, node):
        return end_claim(standing, now)
    return _other_left(standing, now) if rivalled else []


def conflict(standing: Standing, event: ConflictHeard, now: Instant) -> list[Effect]:
    """Another machine answers for an address of ours: report it and announce again.

    One line and one burst for a machine, however many addresses it claims; and, because MACs can be
    made up, no more of either than the group's gaps allow.
    """
    if standing.state is not State.MASTER or not standing.serving:
        return []
    _keep_conflict(standing, event, now)
    if event.mac in standing.conflict_macs:
        standing.conflict_macs[event.mac] = now
        return []
    effects: list[Effect] = []
    if _is_over(standing.conflict_noted_at, CONFLICT_NOTED_GAP_NS, now):
        standing.conflict_noted_at = now
        macs = standing.conflict_macs
        if len(macs) >= CONFLICTS_KEPT_MAX:
            del macs[min(macs, key=macs.__getitem__)]
        macs[event.mac] = now
        entry = ConflictSeen(group=standing.group, address=event.address, mac=event.mac)
        effects.append(Record(entry))
    if _is_over(standing.conflict_announced_at, CONFLICT_ANNOUNCE_GAP_NS, now):
        standing.conflict_announced_at = now
        effects.append(Announce(standing.group))
    return effects


def _is_over(last: Instant | None, gap_ns: int, now: Instant) -> bool:
    """Return whether something that was done at `last` may be done again."""
    return last is None or now >= after(last, gap_ns)


def _keep_conflict(standing: Standing, event: ConflictHeard, now: Instant) -> None:
    """Remember who claims what; forget what is old, and have an end."""
    oldest = now - CONFLICT_KEPT_NS
    conflicts, macs = standing.conflicts, standing.conflict_macs
    standing.conflict_macs = {mac: at for mac, at in macs.items() if at > oldest}
    if event.address not in conflicts and len(conflicts) >= CONFLICTS_KEPT_MAX:
        conflicts = {name: seen for name, seen in conflicts.items() if seen[1] > oldest}
        standing.conflicts = conflicts
    if event.address in conflicts or len(conflicts) < CONFLICTS_KEPT_MAX:
        conflicts[event.address] = (event.mac, now)


def disable(standing: Standing, now: Instant, reason: str) -> list[Effect]:
    """Leave for INIT; a live standby is told that it may take over at once."""
    was_serving = standing.state is State.MASTER
    lease_until = standing.lease_until
    effects: list[Effect] = []
    if was_serving:
        effects += [*stop_serving(standing), Withdraw(standing.group)]
    standing.master_down_at = None
    standing.master = None
    effects += change_role(standing, State.INIT, now, cause="disabled", reason=reason)
    if was_serving and lease_until is not None:
        if standing.handover is not None:  # one under way goes on, but not beyond the lease
            standing.handover.give_until = lease_until
        effects += handover.begin(
            standing, now, to="", cause="disabled", reason=reason, give_until=lease_until
        )
    return effects
