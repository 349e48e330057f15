"""What a BACKUP does: listens, and takes over when it must or may.

It takes over by itself only when the master-down time is over, when the master is certainly gone,
or when the master is not one of ours. From a live carpool master it asks for the addresses
(`Request`), because two masters that race by advertisement own the address together for a moment.
"""

from carpool.base.journal import Noted
from carpool.base.time import Instant, after
from carpool.election.carp import (
    Action,
    better_because,
    decide,
    demotion,
    is_bow_out,
    is_too_slow,
    speed,
)
from carpool.election.effects import Effect, Record, Tell
from carpool.election.events import AdvertisementHeard
from carpool.election.parameters import (
    CLAIM_FOREIGN_NS,
    LATE_EXTENSIONS_MAX,
    REQUEST_GAP_NS,
    SUCCESSION_STEP_NS,
    SUCCESSION_WAIT_NS,
    DemoteMode,
    Kind,
    State,
)
from carpool.election.standing import MasterHeard, Standing, master_heard, take_over
from carpool.election.succession import PeerView, merit, place
from carpool.wire.carp import interval_ns, master_down_ns
from carpool.wire.peer import Request

WIRE_SILENT_INTERVALS = 1.5  # of the master: then its advertisement is missing, not just due


def heard(standing: Standing, event: AdvertisementHeard, now: Instant) -> list[Effect]:
    """A master's advertisement: listen on, or take over."""
    if is_bow_out(event.advbase, event.advskew):
        return _bow_out(standing, event, now)
    pace = (event.advbase, event.advskew)
    action = decide(
        standing.parameters.demote_mode,
        State.BACKUP,
        preempt=_may_preempt(standing, now),
        demoted=demotion(event.demote, standing.demote_byte),
        pace=speed(pace, standing.pace),
    )
    cause = "preempt"
    if is_too_slow(pace, standing.pace):
        action, cause = Action.TAKE_OVER, "too-slow"
    elif demotion(event.demote, standing.demote_byte) == "higher":
        cause = "demoted"
    if _belongs_here(standing) and event.node in standing.peers:
        action, cause = Action.TAKE_OVER, "with"
    listen(standing, event)
    if action is not Action.TAKE_OVER or _belongs_elsewhere(standing):
        return []
    return _want(standing, event, now, cause=cause)


def listen(standing: Standing, event: AdvertisementHeard) -> None:
    """Remember the master and restart the master-down timer from when the kernel received it."""
    before = standing.master
    standing.master = master_heard(event)
    if before is None or before.claims != standing.master.claims:
        standing.asked_at = None  # a refusal was about how things were
    standing.advert_at = event.received_at
    standing.note_heard(event.source, event.node, event.received_at)
    _void_acceptance(standing, event.node)
    _restart(standing, event.received_at)


def _restart(standing: Standing, heard_at: Instant) -> None:
    """Wait a full master-down time from `heard_at`; what hastened a take-over is void."""
    candidate = after(heard_at, _patience_ns(standing, heard_at))
    if standing.succession_cause or standing.master_down_at is None:
        standing.master_down_at = candidate
    else:
        standing.master_down_at = Instant(max(standing.master_down_at, candidate))
    standing.succession_cause = ""
    standing.late_extensions = 0


def _patience_ns(standing: Standing, heard_at: Instant) -> int:
    """Return the silence after which the master counts as gone: our master-down time.

    After a reload made it shorter the former one is waited for once more: the master learns of the
    new one by our next heartbeat, and may freeze before.

    A carpool master that keeps a much slower pace has another configuration (a reload goes from
    node to node) and a lease to match: then its own master-down time is waited for. In FreeBSD's
    way of demotion a large advskew is no pace.
    """
    own_ns, master = standing.master_down_ns, standing.master
    if heard_at < standing.former_until:
        own_ns = max(own_ns, standing.former_down_ns)
    told = standing.parameters.demote_mode is DemoteMode.OPENBSD
    if master is None or master.kind is not Kind.CARPOOL or not told:
        return own_ns
    if interval_ns(master.advbase, master.advskew) <= 2 * standing.interval_ns:
        return own_ns
    return max(own_ns, master_down_ns(master.advbase, master.advskew))


def _may_preempt(standing: Standing, now: Instant) -> bool:
    """Return whether preempt is on and its delay since we came up is over."""
    parameters = standing.parameters
    return parameters.preempt and now >= after(standing.enabled_at, parameters.preempt_delay_ns)


def _belongs_here(standing: Standing) -> bool:
    """Return whether a group that moves with this one is mastered here."""
    return standing.companion_known and standing.companion_master


def _belongs_elsewhere(standing: Standing) -> bool:
    """Return whether the group that leads this one is not mastered here: that one decides."""
    return standing.companion_known and not standing.companion_master


def _want(
    standing: Standing, event: AdvertisementHeard, now: Instant, *, cause: str
) -> list[Effect]:
    """Ask a live carpool master for the group, or claim it from anybody else."""
    name = event.node or event.source
    why = better_because(
        (standing.demote_byte, *standing.pace), (event.demote, event.advbase, event.advskew)
    )
    if cause in {"too-slow", "with"}:
        why = f"advbase {event.advbase}" if cause == "too-slow" else "its companions are here"
    if event.node in standing.peers:
        return _request(standing, event.node, now, reason=f"{cause}: {why}")
    if event.kind is not Kind.CARPOOL:
        until = after(now, CLAIM_FOREIGN_NS)
    elif now < after(standing.since, standing.master_down_ns):
        return []  # the peer link may still be coming up: to ask is gentler than to claim
    else:
        # A carpool master without a peer link bows out when it yields; if it is frozen instead,
        # its own gate shuts before the master-down time after what we last heard of it.
        until = after(event.received_at, standing.master_down_ns)
    reason = f"{cause} from {name}: {why}"
    return take_over(standing, now, cause=cause, reason=reason, claim_until=until)


def _request(standing: Standing, node: str, now: Instant, *, reason: str) -> list[Effect]:
    """Ask for the group, not more often than REQUEST_GAP_NS."""
    if standing.handover is not None:
        return []
    if standing.asked_at is not None and now < after(standing.asked_at, REQUEST_GAP_NS):
        return []
    standing.asked_at = now
    standing.asked_serial = standing.next_serial(now)
    request = Request(group=standing.group, serial=standing.asked_serial, reason=reason[:200])
    return [Tell(node, request)]


def _bow_out(standing: Standing, event: AdvertisementHeard, now: Instant) -> list[Effect]:
    """The master leaves: the best-ranked live standby acts at once, the others defer."""
    master, name = standing.master, event.node or event.source
    standing.forget_heard(event.node, event.source)
    if master is None or (master.name != name and master.source != event.source):
        return []  # somebody who is not our master leaves: a yielding claim, a replay
    if standing.may_another_serve(now, name):
        return []
    linked = bool(standing.peers)
    _hasten(standing, event.received_at, now, gone=name, cause="bow-out", linked=linked)
    return []  # time judges, when everything that had arrived is heard


def gone(standing: Standing, node: str, closed_at: Instant, now: Instant) -> list[Effect]:
    """A node's process has certainly ended: if it was the master, succeed it."""
    view = standing.peers.pop(node, None)
    standing.forget_heard(node)
    was_master = (view is not None and view.state is State.MASTER) or (
        standing.master is not None and standing.master.node == node
    )
    if not was_master or standing.state is not State.BACKUP:
        return []
    if standing.master is not None and standing.master.node not in {"", node}:
        return []  # we listen to another one
    if standing.may_another_serve(now, node):
        return []
    when = after(closed_at, SUCCESSION_WAIT_NS)
    _hasten(standing, when, now, gone=node, cause="peer-gone", linked=True)
    return []


def _hasten(
    standing: Standing, when: Instant, now: Instant, *, gone: str, cause: str, linked: bool
) -> None:
    """Bring the take-over forward to our turn."""
    mine = merit(standing.demote_byte, *standing.pace, standing.parameters.rank)
    position = place(standing.parameters, mine, standing.peers if linked else None, gone)
    turn = after(when, position * SUCCESSION_STEP_NS)
    if standing.master_down_at is None or turn < standing.master_down_at:
        standing.master_down_at = Instant(max(turn, now))
        standing.succession_cause = cause
        standing.succession_of = gone


def reported(standing: Standing, node: str, view: PeerView, now: Instant) -> None:
    """A heartbeat over the peer link that says MASTER counts where the wire is silent.

    So a standby whose wire is cut, while a further path lives, does not make a second master. While
    the wire works, only advertisements count: they and the lease of who sends them end together,
    and a heartbeat between two of them would only make a take-over later. But who waits for its
    turn to succeed a dead master has been forestalled by whoever says MASTER.
    """
    if view.state is not State.MASTER or standing.state is not State.BACKUP:
        return
    _void_acceptance(standing, node)
    forestalled = standing.succession_cause != "" and node != standing.succession_of
    if forestalled or standing.master is None or not standing.master.node or _has_left(standing):
        standing.master = MasterHeard(
            source="",
            node=node,
            kind=Kind.CARPOOL,
            advbase=view.advbase,
            advskew=view.advskew,
            demote=view.demote,
            at=now,
        )
    silence_ns = WIRE_SILENT_INTERVALS * interval_ns(view.advbase, view.advskew)
    if forestalled or now >= after(standing.advert_at, int(silence_ns)):
        _restart(standing, now)


def _has_left(standing: Standing) -> bool:
    """Return whether the node we listened to says that it is no master any more."""
    master = standing.master
    view = standing.peers.get(master.node) if master is not None else None
    return view is not None and view.state is not State.MASTER


def _void_acceptance(standing: Standing, node: str) -> None:
    """Another master than the giver is there: what we accepted is not the giver's any more."""
    current = standing.handover
    if current is not None and current.phase == "accepted" and current.node != node:
        standing.handover = None


def timers(standing: Standing, now: Instant) -> list[Effect]:
    """Take over when the master-down time is over, unless the delay is our own.

    Who wakes up later than an interval was starved: what was sent meanwhile may have been dropped
    by the full socket, so it listens for one more interval first.
    """
    if standing.forgive_at is not None and now >= standing.forgive_at:
        standing.forgive_at = None
        standing.send_errors = 0
    if standing.master_down_at is None or now < standing.master_down_at:
        return []
    late_ns = now - standing.master_down_at
    limited = standing.late_extensions >= LATE_EXTENSIONS_MAX
    if late_ns > standing.interval_ns and not standing.succession_cause and not limited:
        standing.late_extensions += 1
        standing.master_down_at = after(now, standing.interval_ns)
        text = f"we woke up {late_ns / 1e6:.0f} ms late: listening on before judging the master"
        return [Record(Noted(group=standing.group, name="late", text=text))]
    return _master_down(standing, now)


def _master_down(standing: Standing, now: Instant) -> list[Effect]:
    """Nobody serves: take over and say why."""
    master = standing.master
    cause = standing.succession_cause or "master-down"
    succeeds = cause in {"peer-gone", "bow-out"}
    if succeeds and standing.other_master(standing.succession_of):
        _restart(standing, now)
        return []
    if cause == "peer-gone" and master is not None:
        reason = f"{master.name}'s election process ended"
    elif cause == "alone":
        reason = "nobody else lives: serving again after our own crash"
    elif cause == "bow-out" and master is not None:
        reason = f"{master.name} left"
    elif master is not None:
        silent_ms = (now - master.at) / 1e6
        reason = f"nothing heard of {master.name} for {silent_ms:.0f} ms"
    else:
        reason = f"no master heard for {standing.master_down_ns / 1e6:.0f} ms"
    standing.master = None
    return take_over(standing, now, cause=cause, reason=reason)
