"""How it stands: who is master, who is standby, and whether that is good, from one status answer.

Pure: the status data of control/messages.py in (engine/snapshot.py as JSON), a Verdict out. The
exit codes are those of DESIGN 8: 0 all is well; 3 degraded (a peer is down, a node is paused or
cannot take part, a group has no standby, another machine answers for an address, the nodes'
configurations differ); 4 down or split (a group with no master, or with two).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from carpool.base.time import NS_PER_S, human_duration
from carpool.control.messages import ExitCode, Json

STALE_NS: Final = 10 * NS_PER_S  # a healthy node reports at least once a second
REVISION_CHARACTERS: Final = 8  # enough of a hash to tell two files apart by eye


class Reason(NamedTuple):
    """One thing that is not as it should be."""

    code: ExitCode
    sentence: str


class Verdict(NamedTuple):
    """The worst of the reasons, and all of them, worst first."""

    code: ExitCode
    reasons: tuple[Reason, ...]


def judge(status: Json, now: int) -> Verdict:
    """Return how the site stands as this node sees it; `now` is the answer's instant."""
    reasons = [*_node_reasons(status, now)]
    for group in status["groups"]:
        reasons += _group_reasons(status, group)
    reasons.sort(key=lambda reason: -reason.code)
    return Verdict(reasons[0].code if reasons else ExitCode.OK, tuple(reasons))


def masters(status: Json, group: Json) -> list[str]:
    """Return who claims to be master of `group`: nodes by name, a foreign machine by address.

    A machine that only advertises (it has no peer link) counts while its advertisements are
    younger than the master-down time, and only when no node claims the group: right after a
    take-over the old master's last word is still fresh.
    """
    name = group["group"]
    found = [status["node"]] if group["state"] == "MASTER" else []
    found += [
        peer["node"]
        for peer in status["peers"]
        if peer["up"] and peer["states"].get(name) == "MASTER" and peer["node"] not in found
    ]
    heard = group["master"]
    if not found and heard and heard != status["node"]:
        silence_ns = status["at"] - group["master_heard_at"]
        if group["master_heard_at"] and silence_ns <= group["master_down_ns"]:
            found.append(heard)
    return found


def standby(status: Json, group: Json) -> list[str]:
    """Return the live standby nodes of `group`, best first, this node among them if it is one.

    So every node gives the same list.

    The snapshot lists the others; where this node belongs among them is known when they have said
    what they claim, else it comes last.
    """
    serving = masters(status, group)
    nodes = [node for node in group["standby"] if node not in serving]
    me = status["node"]
    ready = group["state"] == "BACKUP" and not is_paused(status, group)
    if ready and me not in (*nodes, *serving):
        ranks, mine = claimed(status, group["group"]), own_rank(group)
        better = [node for node in nodes if ranks.get(node, mine) <= mine]
        nodes.insert(len(better), me)
    return nodes


def is_paused(status: Json, group: Json) -> bool:
    """Tell whether an operator keeps this node out of `group`."""
    return bool(status["paused"] or group["paused"])


def paused_nodes(status: Json) -> list[str]:
    """Return the nodes that an operator keeps out, this one first, then the peers that are up."""
    mine = status["paused"] or any(group["paused"] for group in status["groups"])
    found = [status["node"]] if mine else []
    found += [
        peer["node"]
        for peer in status["peers"]
        if peer["up"] and any(claim["paused"] for claim in peer["claims"].values())
    ]
    return found


class Rank(NamedTuple):
    """What CARP compares; the smaller is preferred (OpenBSD ip_carp.c: demotion, then interval)."""

    demotion: int
    advbase: int
    advskew: int


def own_rank(group: Json) -> Rank:
    """Return this node's rank in `group`."""
    return Rank(group["demotion"], group["advbase"], group["advskew"])


def claimed(status: Json, name: str) -> dict[str, Rank]:
    """Return the rank each live peer claims for itself in group `name`."""
    claims = {p["node"]: p["claims"][name] for p in status["peers"] if name in p["claims"]}
    return {
        node: Rank(claim["demotion"], claim["advbase"], claim["advskew"])
        for node, claim in claims.items()
    }


def lease_left_ns(status: Json, group: Json) -> int:
    """Return for how long this node's gate was still open when the status was taken, 0 if shut."""
    return max(0, int(group["lease_until"]) - int(status["at"]))


def revisions(status: Json) -> dict[str, str]:
    """Return each node's configuration revision, as far as it is known; this node first."""
    known = {status["node"]: status["revision"]}
    known.update((peer["node"], peer["revision"]) for peer in status["peers"] if peer["revision"])
    return known


def short(revision: str) -> str:
    """Return the part of a revision that a person compares."""
    if len(revision) <= REVISION_CHARACTERS:
        return revision
    return revision[:REVISION_CHARACTERS] + "…"


def _node_reasons(status: Json, now: int) -> Iterator[Reason]:
    """Give what is wrong with this node or its view of the others."""
    age_ns = now - status["at"]
    if age_ns > STALE_NS:
        text = f"this is {human_duration(age_ns)} old: {status['node']}'s election does not report"
        yield Reason(ExitCode.DEGRADED, text)
    for peer in status["peers"]:
        if not peer["up"]:
            yield Reason(ExitCode.DEGRADED, f"peer {peer['node']} is down{_heard(peer, now)}")
    for node in paused_nodes(status):
        yield Reason(ExitCode.DEGRADED, f"out: {node} is paused until `carpool resume` on it")
    known = revisions(status)
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{node} {short(revision)}" for node, revision in known.items())
        yield Reason(ExitCode.DEGRADED, f"the nodes' configurations differ: {listed}")


def _heard(peer: Json, now: int) -> str:
    """Return since when a peer is silent, as the end of a sentence."""
    if not peer["heard_at"]:
        return ": never heard"
    return f": last heard {human_duration(now - peer['heard_at'])} ago"


def _group_reasons(status: Json, group: Json) -> Iterator[Reason]:
    """Give what is wrong with one group."""
    name, serving = group["group"], masters(status, group)
    if not serving:
        yield Reason(ExitCode.DOWN, f"{name}: no master: {group['reason']}")
    elif len(serving) > 1:
        yield Reason(ExitCode.DOWN, f"{name}: split: {' and '.join(serving)} are both master")
    if group["state"] == "MASTER" and not lease_left_ns(status, group):
        yield Reason(ExitCode.DOWN, f"{name}: {status['node']} is master but its gate is shut")
    if group["state"] == "INIT" and not is_paused(status, group) and serving:
        text = f"{name}: {status['node']} cannot take part: {group['reason']}"
        yield Reason(ExitCode.DEGRADED, text)
    for node, why in _peers_out(status, name):
        yield Reason(ExitCode.DEGRADED, f"{name}: {node} {why}")
    shared = any(name in peer["states"] for peer in status["peers"])
    if serving and shared and not standby(status, group):
        yield Reason(ExitCode.DEGRADED, f"{name}: no standby: nobody could take over")
    for address, mac in group["conflict"].items():
        text = f"{name}: another machine, {mac}, answers for {address} (within the last 60 s)"
        yield Reason(ExitCode.DEGRADED, text)


def _peers_out(status: Json, name: str) -> Iterator[tuple[str, str]]:
    """Give the peers that are up, not paused, and could not take group `name` over; and why."""
    for peer in status["peers"]:
        state, claim = peer["states"].get(name), peer["claims"].get(name)
        if not peer["up"] or (claim is not None and claim["paused"]):
            continue
        if state == "INIT":
            why = f"cannot take part: `carpool explain {name}` on it says why"
            yield peer["node"], why
        elif state == "BACKUP" and claim is not None and not claim["ready"]:
            yield peer["node"], "is not ready to take over"
