"""What an operator orders, and the answer: once, when the outcome is known.

step-down   hand one group over, to a node or to the best standby
demote      set a group's demotion counter, or add to it
pause       hand everything over and stay out (maintenance); refused where nobody could take over
resume      take part again
"""

from typing import Final

from carpool.base.journal import OrderTaken
from carpool.base.time import NS_PER_S, Instant, after
from carpool.election.events import DemotionSet, Event, StepDownOrdered
from carpool.election.parameters import DEMOTION_MAX, State
from carpool.election.succession import live_standbys
from carpool.engine.effects import Answer, Effect, Journal, Remember
from carpool.engine.events import Ordered
from carpool.engine.node import GroupBrain, Node

ANSWER_WITHIN_NS: Final = 2 * NS_PER_S  # every hand-over has ended by then, well or not
FREEBSD_IFDOWN_FACTOR: Final = 240  # net.inet.carp.ifdown_demotion_factor

Told = list[tuple[GroupBrain, Event]]


def take(node: Node, order: Ordered, now: Instant) -> tuple[Told, list[Effect]]:
    """Return what the elections are told and what is done and answered at once."""
    if order.verb == "pause":
        return _pause(node, order, now)
    if order.verb == "resume":
        return _resume(node, order)
    brain = node.groups.get(order.group)
    if brain is None:
        known = ", ".join(node.groups) or "none"
        return [], _refuse(order, f"no group {order.group!r} on this node (groups: {known})")
    if order.verb == "demote":
        return _demote(node, brain, order)
    return _step_down(node, brain, order, now)


def _refuse(order: Ordered, text: str) -> list[Effect]:
    entry = OrderTaken(verb=f"{order.verb} {order.group}".strip(), who=order.who, outcome=text)
    return [Journal(entry), Answer(order.number, ok=False, text=text)]


def _accept(order: Ordered, text: str) -> list[Effect]:
    entry = OrderTaken(verb=f"{order.verb} {order.group}".strip(), who=order.who, outcome=text)
    return [Journal(entry), Answer(order.number, ok=True, text=text)]


def _step_down(
    node: Node, brain: GroupBrain, order: Ordered, now: Instant
) -> tuple[Told, list[Effect]]:
    standing = brain.election.standing
    if standing.state is not State.MASTER:
        master = standing.master.name if standing.master else "nobody"
        text = f"{node.setup.node} is {standing.state} for {order.group}; {master} is its master"
        return [], _refuse(order, text)
    ready = [name for _, name in live_standbys(standing.parameters, standing.peers)]
    if order.argument and order.argument not in ready:
        text = f"{order.argument} cannot take {order.group} over (ready: {', '.join(ready) or '-'})"
        return [], _refuse(order, text)
    if not ready:
        return [], _refuse(order, f"no standby is ready to take {order.group} over")
    node.pending[order.group] = (order.number, after(now, ANSWER_WITHIN_NS))
    reason = f"step-down by {order.who}"
    event = StepDownOrdered(to=order.argument, cause="step-down", reason=reason)
    return [(brain, event)], [Journal(OrderTaken("step-down", order.who, f"{order.group}: begun"))]


def _demote(node: Node, brain: GroupBrain, order: Ordered) -> tuple[Told, list[Effect]]:
    name = order.group
    current = node.demotions.get(name, 0)
    relative = order.argument.startswith(("+", "-"))
    try:
        number = int(order.argument)
    except ValueError:
        return [], _refuse(order, f"{order.argument!r} is not a number")
    value = current + number if relative else number
    if not 0 <= value <= DEMOTION_MAX:
        return [], _refuse(order, f"a demotion is 0 to {DEMOTION_MAX}, not {value}")
    node.demotions[name] = value
    told: Told = [(brain, DemotionSet(total_demotion(node, brain), f"ordered by {order.who}"))]
    return told, [*_accept(order, f"demotion of {name} is {value}"), remember(node)]


def total_demotion(node: Node, brain: GroupBrain) -> int:
    """Return the operator's demotions of the set plus one for each group that cannot serve.

    That is how OpenBSD moves groups together: a demotion is of the whole interface group, and when
    a parent's link goes down that is demoted by one; FreeBSD adds 240 to the skew instead.
    """
    together = (brain.setup.name, *brain.setup.moves_with)
    total = sum(node.demotions.get(name, 0) for name in together)
    factor = 1 if brain.setup.parameters.demote_mode == "openbsd" else FREEBSD_IFDOWN_FACTOR
    for name in brain.setup.moves_with:
        other = node.groups.get(name)
        if other is not None and other.election.state is State.INIT and not node.paused:
            total += factor
    return total


def remember(node: Node) -> Remember:
    """Return what must survive a restart."""
    demotions = {name: value for name, value in node.demotions.items() if value}
    return Remember(paused=node.paused, demotions=demotions)


def _pause(node: Node, order: Ordered, now: Instant) -> tuple[Told, list[Effect]]:
    if node.paused:
        return [], _accept(order, "already paused")
    forced = order.argument == "force"
    for brain in node.groups.values():
        standing = brain.election.standing
        serving = standing.state is State.MASTER
        if serving and not forced and not live_standbys(standing.parameters, standing.peers):
            text = f"no standby is ready to take {brain.setup.name} over (--force pauses anyway)"
            return [], _refuse(order, text)
    node.paused, node.paused_by = True, order.who
    node.pause_order = (order.number, after(now, ANSWER_WITHIN_NS))
    told: Told = [
        (brain, StepDownOrdered(to="", cause="pause", reason=f"paused by {order.who}"))
        for brain in node.groups.values()
    ]
    return told, [Journal(OrderTaken("pause", order.who, "handing over")), remember(node)]


def _resume(node: Node, order: Ordered) -> tuple[Told, list[Effect]]:
    if not node.paused:
        return [], _accept(order, "was not paused")
    node.paused, node.paused_by = False, ""
    for brain in node.groups.values():
        brain.election.resume()
    return [], [*_accept(order, "takes part again"), remember(node)]


def settled(node: Node) -> bool:
    """Return whether no hand-over is under way and nothing is served any more."""
    return all(
        brain.election.state is State.INIT and brain.election.standing.handover is None
        for brain in node.groups.values()
    )
