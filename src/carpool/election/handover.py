"""The planned move: stop, step-down, preemption, demotion. It names its successor.

    giver (master)                         taker (backup)
    Offer          ---------------------->   ready? else Refuse
                   <----------------------   Accept (valid ACCEPT_VALID_NS by its own clock)
    shuts its gate
    Transfer       ---------------------->   takes over
                   <----------------------   Taken

The giver shuts before it says so, and the taker takes only what it was told: no instant with two
owners. A taker that reads the Transfer late, or after another master was heard, has no such promise
any more: it listens before it serves (`standing.take_over`), or does not take over. The taker's
validity is shorter than the giver's patience, so a bow-out sent for want of an answer never meets a
late taker. A preempting node begins with Request; the master then offers. A giver without a willing
successor stays master, or bows out when it has to go.
"""

from carpool.base.journal import HandoverEnded, Noted
from carpool.base.time import Instant, after
from carpool.election.effects import BowOut, Effect, Record, Tell, Withdraw
from carpool.election.parameters import (
    ACCEPT_VALID_NS,
    OFFER_TIMEOUT_NS,
    REFUSED_GAP_NS,
    REQUEST_GAP_NS,
    TAKEOVER_WINDOW_NS,
    TRANSFER_PROMPT_NS,
    TRANSFER_TIMEOUT_NS,
    TRANSFER_WINDOW_NS,
    State,
)
from carpool.election.standing import (
    Handover,
    Standing,
    change_role,
    stop_serving,
    take_over,
)
from carpool.election.succession import live_standbys, merit
from carpool.wire.peer import Accept, Offer, Refuse, Request, Taken, Transfer

TO_STAY = frozenset({"step-down", "unheard"})  # a better node does not take it back by itself
MUST_GO = frozenset({"stop", "pause"})  # causes that leave even without a successor


def begin(
    standing: Standing,
    now: Instant,
    *,
    to: str,
    cause: str,
    reason: str,
    tried: frozenset[str] = frozenset(),
    give_until: Instant | None = None,
) -> list[Effect]:
    """Offer the group to `to`, or to the best live standby not yet tried.

    give_until: a giver that has shut its gate gives only while its lease would have run; after
    that the others act by themselves.
    """
    if give_until is not None and (now >= give_until or standing.other_master("")):
        return []
    if standing.handover is not None and standing.handover.phase in {"offered", "transferred"}:
        return []
    standbys = live_standbys(standing.parameters, standing.peers)
    if cause == "preempt" and not to:  # who asked may not answer: never on to a worse one
        mine = merit(standing.demote_byte, *standing.pace, standing.parameters.rank)
        standbys = [(key, name) for key, name in standbys if key < mine]
    candidates = [n for _, n in standbys if n not in tried and (not to or n == to)]
    if not candidates:
        return _without_successor(standing, now, to=to, cause=cause)
    serial = standing.next_serial(now)
    standing.handover = Handover(
        phase="offered",
        node=candidates[0],
        serial=serial,
        until=after(now, OFFER_TIMEOUT_NS),
        began=now,
        cause=cause,
        reason=reason,
        tried=tried | {candidates[0]},
        to=to,
        give_until=give_until,
    )
    hold = cause in TO_STAY
    offer = Offer(group=standing.group, serial=serial, reason=reason[:200], hold=hold)
    return [Tell(candidates[0], offer)]


def _without_successor(standing: Standing, now: Instant, *, to: str, cause: str) -> list[Effect]:
    """Stay master, unless the node must go: then say so on the wire."""
    standing.handover = None
    if standing.state is not State.MASTER:
        return []  # the interface went away; the others notice the silence
    if standing.retiring:  # not the cause: who paused may have been resumed meanwhile
        return leave(standing, now, cause)
    who = f"{to} is not" if to else "no standby is"
    text = f"hand-over not possible: {who} ready; still serving"
    return [Record(Noted(group=standing.group, name="handover-refused", text=text))]


def leave(standing: Standing, now: Instant, cause: str) -> list[Effect]:
    """Shut the gate and bow out: whoever hears it may take over at once."""
    reason = standing.retiring or "leaving without a successor"
    return [
        *stop_serving(standing),
        BowOut(standing.group, after(now, TAKEOVER_WINDOW_NS)),
        *change_role(standing, State.INIT, now, cause=cause, reason=reason),
        Withdraw(standing.group),
    ]


def said(
    standing: Standing,
    node: str,
    message: Request | Offer | Accept | Refuse | Transfer | Taken,
    now: Instant,
) -> list[Effect]:
    """Act on a hand-over message of another node."""
    match message:
        case Request():
            return _requested(standing, node, message, now)
        case Offer():
            return _offered(standing, node, message, now)
        case Accept():
            return _accepted(standing, node, message, now)
        case Refuse():
            return _refused(standing, node, message, now)
        case Transfer():
            return _transferred(standing, node, message, now)
        case Taken():
            return _taken(standing, node, message, now)


def _requested(standing: Standing, node: str, message: Request, now: Instant) -> list[Effect]:
    """Offer the group to a standby that asks for it, if it is better or the groups belong there."""
    if standing.state is not State.MASTER or not standing.serving:
        return []
    view = standing.peers.get(node)
    member = standing.member(node)
    if view is None or member is None:
        return []
    belongs_here = standing.companion_known and standing.companion_master
    if message.reason.startswith("with") or belongs_here:
        entitled = not belongs_here
    else:
        theirs = merit(view.demote, view.advbase, view.advskew, 0)
        mine = merit(standing.demote_byte, *standing.pace, 0)
        entitled = theirs < mine
    if not entitled:
        refusal = Refuse(
            group=standing.group, serial=message.serial, reason="not better than the master"
        )
        return [Tell(node, refusal)]
    with_it = message.reason.startswith("with")
    if standing.held and message.reason.startswith("preempt"):
        text = "an operator moved it here (step-down)"
        return [Tell(node, Refuse(group=standing.group, serial=message.serial, reason=text))]
    # Several standbys may ask at once; the best of them gets it, so that it moves only once.
    to = node if with_it else ""
    reason = f"{node} asks: {message.reason}"
    return begin(standing, now, to=to, cause="preempt", reason=reason)


def _offered(standing: Standing, node: str, message: Offer, now: Instant) -> list[Effect]:
    """Accept an offer if we stand by."""
    if message.serial <= standing.offered_serials.get(node, 0):
        return []  # it came over another path as well, perhaps long ago: the first one counts
    standing.offered_serials[node] = message.serial
    other = standing.other_master(node)
    if standing.state is not State.BACKUP or other:
        here = f"{standing.state} here: {standing.reason}"
        reason = (f"{other} is master" if other else here)[:200]
        refusal = Refuse(group=standing.group, serial=message.serial, reason=reason)
        return [Tell(node, refusal)]
    standing.handover = Handover(
        phase="accepted",
        node=node,
        serial=message.serial,
        until=after(now, ACCEPT_VALID_NS),
        began=now,
        cause="hand-over",
        reason=message.reason,
        hold=message.hold,
    )
    return [Tell(node, Accept(group=standing.group, serial=message.serial))]


def _is_answer(standing: Standing, node: str, serial: int, phase: str) -> bool:
    """Return whether a message belongs to the hand-over under way."""
    current = standing.handover
    return (
        current is not None
        and current.phase == phase
        and current.node == node
        and current.serial == serial
    )


def _accepted(standing: Standing, node: str, message: Accept, now: Instant) -> list[Effect]:
    """Shut the gate, then tell the successor to take over."""
    current = standing.handover
    if current is None or not _is_answer(standing, node, message.serial, "offered"):
        return []
    current.phase = "transferred"
    current.until = after(now, TRANSFER_TIMEOUT_NS)
    transfer = Tell(node, Transfer(group=standing.group, serial=message.serial))
    if standing.state is not State.MASTER:  # the gate is shut already: the interface went away
        if current.give_until is not None and now < current.give_until:
            return [transfer]
        standing.handover = None
        return []
    effects: list[Effect] = [*stop_serving(standing), transfer]
    standing.master_down_at = after(now, standing.master_down_ns)
    reason = f"handed over to {node}: {current.reason}"
    effects += change_role(standing, State.BACKUP, now, cause=current.cause, reason=reason)
    return [*effects, Withdraw(standing.group)]


def _refused(standing: Standing, node: str, message: Refuse, now: Instant) -> list[Effect]:
    """Ask the next standby; a master that refuses a Request is not asked again for a while."""
    current = standing.handover
    if message.serial == standing.asked_serial and standing.state is State.BACKUP:
        standing.asked_at = after(now, REFUSED_GAP_NS - REQUEST_GAP_NS)
        return []
    if current is None or not _is_answer(standing, node, message.serial, "offered"):
        return []
    return _next_candidate(standing, current, now, outcome=f"refused ({message.reason})")


def _next_candidate(
    standing: Standing, current: Handover, now: Instant, *, outcome: str
) -> list[Effect]:
    """Record how one candidate answered and try the next; an ordered target has no next."""
    standing.handover = None
    ended = HandoverEnded(
        group=standing.group,
        successor=current.node,
        outcome=outcome,
        took_ns=now - current.began,
    )
    follow = begin(
        standing,
        now,
        to="" if standing.retiring else current.to,
        cause=current.cause,
        reason=current.reason,
        tried=current.tried,
        give_until=current.give_until,
    )
    return [Record(ended), *follow]


def _transferred(standing: Standing, node: str, message: Transfer, now: Instant) -> list[Effect]:
    """Take over what was offered, if the acceptance still holds."""
    current = standing.handover
    if current is None or not _is_answer(standing, node, message.serial, "accepted"):
        return []
    standing.handover = None
    if now >= current.until or standing.state is not State.BACKUP:
        return []
    # A giver that dies right after its Transfer is succeeded by another node: who reads a Transfer
    # late listens first, like everybody who takes over by itself.
    prompt = now < after(current.began, TRANSFER_PROMPT_NS)
    effects = take_over(
        standing,
        now,
        cause="hand-over",
        reason=f"{node} handed over: {current.reason}",
        at_once_until=after(current.began, TRANSFER_WINDOW_NS) if prompt else None,
    )
    standing.held = current.hold
    standing.owes_taken = (node, message.serial)
    return effects


def void_offer(standing: Standing) -> None:
    """Take an offer back: the group is not ours to give any more."""
    if standing.handover is not None and standing.handover.phase == "offered":
        standing.handover = None


def _taken(standing: Standing, node: str, message: Taken, now: Instant) -> list[Effect]:
    """The successor serves."""
    current = standing.handover
    if current is None or not _is_answer(standing, node, message.serial, "transferred"):
        return []
    standing.handover = None
    ended = HandoverEnded(
        group=standing.group, successor=node, outcome="taken", took_ns=now - current.began
    )
    return [Record(ended)]


def timed_out(standing: Standing, now: Instant) -> list[Effect]:
    """The other side did not answer in time."""
    current = standing.handover
    if current is None or now < current.until:
        return []
    if current.phase == "offered":
        return _next_candidate(standing, current, now, outcome="no answer")
    standing.handover = None
    if current.phase == "accepted":
        return []
    served = standing.state is State.MASTER or standing.advert_at > current.began
    outcome = "not acknowledged, somebody serves" if served else "not acknowledged, bowing out"
    ended = HandoverEnded(
        group=standing.group,
        successor=current.node,
        outcome=outcome,
        took_ns=now - current.began,
    )
    bow_out = BowOut(standing.group, after(now, TAKEOVER_WINDOW_NS))
    return [Record(ended), *([] if served else [bow_out])]
