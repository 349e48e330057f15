"""Why this node is, or is not, master of a group: the sentences of `carpool explain`.

Pure: the status data of control/messages.py in, sentences out. The order of preference is CARP's
own (OpenBSD ip_carp.c): the smaller demotion wins, then the shorter advertisement interval, which
is advbase + advskew/256 seconds.
"""

from collections.abc import Iterator

from carpool.base.time import NS_PER_S, human_duration
from carpool.control.messages import ControlError, Json
from carpool.control.verdict import (
    Rank,
    claimed,
    is_paused,
    lease_left_ns,
    masters,
    own_rank,
    standby,
)


def explain(status: Json, name: str, now: int) -> dict[str, object]:
    """Return the explanation of group `name`: {group, node, sentences, state}.

    now: the answer's instant. Raises ControlError when there is no such group.
    """
    group = next((group for group in status["groups"] if group["group"] == name), None)
    if group is None:
        known = ", ".join(group["group"] for group in status["groups"]) or "none"
        raise ControlError(f"no group {name} (groups: {known})")
    sentences = [
        *_role(status, group, now),
        *_timers(status, group),
        *_others(status, group, now),
        *_heard(group, now),
        *_lease(status, group),
        *_if_it_died(status, group),
        *_remarks(status, group),
    ]
    return {
        "group": name,
        "node": status["node"],
        "state": group["state"],
        "sentences": sentences,
        "snapshot": group,
    }


def _words(rank: Rank) -> str:
    """Return a rank as a person would say it."""
    return f"advbase {rank.advbase}, advskew {rank.advskew}, demotion {rank.demotion}"


def _role(status: Json, group: Json, now: int) -> Iterator[str]:
    """Say what this node is and why."""
    me, name = status["node"], group["group"]
    since = human_duration(max(0, now - group["since"]))
    takes_part = "takes no part in" if group["state"] == "INIT" else f"is {group['state']} of"
    yield f"{me} {takes_part} {name} since {since}: {group['reason']}"
    yield f"{name} is vhid {group['vhid']} on {group['interface']}: {_addresses(group)}"
    others = [node for node in masters(status, group) if node != me]
    if others:
        yield f"master is {' and '.join(others)}"
    elif group["state"] != "MASTER":
        yield "no master is known"


def _addresses(group: Json) -> str:
    """Return the group's addresses, at most the first four."""
    addresses = list(group["addresses"])
    more = f" and {len(addresses) - 4} more" if len(addresses) > 4 else ""
    return "  ".join(addresses[:4]) + more


def _timers(status: Json, group: Json) -> Iterator[str]:
    """Say how often this node advertises and how long it waits for another."""
    every = human_duration(group["interval_ns"])
    down = human_duration(group["master_down_ns"])
    yield f"this node: {_words(own_rank(group))}: advertises every {every} when it is master"
    if not is_paused(status, group):
        yield f"as backup it takes over when nothing was heard for {down} (master-down time)"


def _others(status: Json, group: Json, now: int) -> Iterator[str]:
    """Say for each other node how it compares."""
    name, mine = group["group"], own_rank(group)
    ranks = claimed(status, name)
    for peer in status["peers"]:
        node = peer["node"]
        if not peer["up"]:
            since = human_duration(now - peer["heard_at"]) if peer["heard_at"] else ""
            yield f"{node}: down, {f'last heard {since} ago' if since else 'never heard'}"
        elif node in ranks:
            state, claim = peer["states"].get(name, "unknown"), peer["claims"][name]
            compared = f"{_compared(ranks[node], mine)}{_ready(state, claim)}"
            yield f"{node}: {state}, {_words(ranks[node])}: {compared}"
        elif name in peer["states"]:
            yield f"{node}: {peer['states'][name]}"


def _compared(other: Rank, mine: Rank) -> str:
    """Say whether `other` is preferred over this node, and by which member."""
    if other == mine:
        return "equal to this node, the tie-break decides"
    word, sign = ("preferred over", "<") if other < mine else ("comes after", ">")
    field, theirs, ours = next(
        (field, theirs, ours)
        for field, theirs, ours in zip(Rank._fields, other, mine, strict=True)
        if theirs != ours
    )
    return f"{word} this node ({field} {theirs} {sign} {ours})"


def _ready(state: str, claim: Json) -> str:
    """Say what keeps another node from serving; a master serves already."""
    if claim["paused"]:
        return "; paused, it stays out"
    return "" if claim["ready"] or state == "MASTER" else "; not ready to serve"


def _heard(group: Json, now: int) -> Iterator[str]:
    """Say whose advertisement came last, and what it claimed; a master listens to nobody."""
    if group["state"] == "MASTER":
        return
    if not group["master_heard_at"]:
        yield "no advertisement of another machine was heard yet"
        return
    ago = human_duration(max(0, now - group["master_heard_at"]))
    claims = group["master_claims"]
    said = f" ({_words(Rank(claims[2], claims[0], claims[1]))})" if claims else ""
    whose = f" of {group['master']}" if group["state"] == "BACKUP" and group["master"] else ""
    yield f"the last advertisement{whose} was heard {ago} ago{said}"


def _lease(status: Json, group: Json) -> Iterator[str]:
    """Say how long this node may serve without a further advertisement."""
    gate = f"{group['gate']} gate"
    whole = human_duration(group["lease_ns"])
    left_ns = lease_left_ns(status, group)
    if group["gate"] == "none":
        yield "no gate: a dead or frozen master is not shut off by the kernel"
    elif left_ns:
        left = human_duration(left_ns)
        yield f"{gate} open for another {left}: each advertisement sent renews the lease to {whole}"
    else:
        yield f"{gate} shut: nothing of this node answers for the addresses (lease {whole})"


def _if_it_died(status: Json, group: Json) -> Iterator[str]:
    """Say who would take over now, and when."""
    serving, me = masters(status, group), status["node"]
    if len(serving) != 1:
        return
    heirs = standby(status, group)
    if not heirs:
        yield f"if {serving[0]} died now nobody would take over: there is no standby"
        return
    heir = heirs[0]
    known = {me, *(peer["node"] for peer in status["peers"])}
    at_once = "at once when its peer link closes, else " if serving[0] in known else ""
    wait_ns = _master_down_ns(status, group, heir)
    wait = f"{human_duration(wait_ns)} after its last advertisement" if wait_ns else "by its timer"
    yield f"if {serving[0]} died now {heir} would take over: {at_once}{wait}"


def _master_down_ns(status: Json, group: Json, node: str) -> int:
    """Return how long `node` waits for a silent master, 0 if that is not known."""
    if node == status["node"]:
        return int(group["master_down_ns"])
    for peer in status["peers"]:
        claim = peer["claims"].get(group["group"])
        if peer["node"] == node and claim is not None:
            base, skew_ns = claim["advbase"], claim["advskew"] * NS_PER_S // 256
            return int(3 * base * NS_PER_S + skew_ns if base else 3 * skew_ns)
    return 0


def _remarks(status: Json, group: Json) -> Iterator[str]:
    """Say what else has a bearing on the choice."""
    if is_paused(status, group):
        yield "paused: it has handed over and stays out until `carpool resume`"
    if not group["preempt"]:
        yield "preempt is off: a preferred node does not take over from a working master"
    if group["moves_with"]:
        yield f"moves together with {', '.join(group['moves_with'])}"
    for address, mac in group["conflict"].items():
        yield f"conflict: {mac} answers for {address} as well"
    yield from (f"warning: {warning}" for warning in group["warnings"])
