"""What the peer link tells, and what a closed connection proves.

A closed path proves nothing by itself: a RST can be forged. Proof that the election process of a
node has ended is: no path is left AND a fresh connection is refused by its kernel, or another
process answers there (DESIGN 4, "Who takes over").
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Final

from carpool.base.journal import Noted, PeerChanged
from carpool.base.time import NS_PER_S, Instant, after
from carpool.election.effects import Effect, Record
from carpool.election.events import Event, PeerGone, PeerLost, PeerReported, PeerSaid
from carpool.election.parameters import SUCCESSION_WAIT_NS, State
from carpool.engine.node import GroupBrain, Node, PeerKnowledge
from carpool.wire.link import (
    LinkClosed,
    LinkEvent,
    LinkUp,
    MessageHeard,
    PeerRefused,
    PeerRestarted,
    Rejected,
)
from carpool.wire.peer import Goodbye, GroupReport, Heartbeat
from carpool.wire.peer import heartbeats as in_frames

LOST_AFTER_NS: Final = NS_PER_S  # a close that nothing explains by then: the node is unknown

Told = list[tuple[GroupBrain, Event]]


def learn(
    node: Node,
    event: LinkEvent,
    now: Instant,
) -> tuple[Told, list[Effect]]:
    """Return what the elections are told, and what is recorded."""
    match event:
        case LinkUp():
            return up(node, event, now)
        case LinkClosed():
            return closed(node, event, now)
        case PeerRefused():
            return refused(node, event, now)
        case PeerRestarted():
            return restarted(node, event, now)
        case MessageHeard():
            return message(node, event, now)
        case Rejected():
            node.counters.add(f"reject.{event.reason}")
            return [], []


def up(node: Node, event: LinkUp, now: Instant) -> tuple[Told, list[Effect]]:
    """A path is authenticated: another instance than before means the old process has ended."""
    peer = node.peers.setdefault(event.node, PeerKnowledge())
    told: Told = []
    if peer.instance not in {b"", event.instance}:
        told = _replaced(node, event.node, peer, now)
    peer.instance = event.instance
    peer.paths[event.path] = event.instance
    peer.since[event.path] = now
    peer.closed_at = None
    peer.lost_at = None
    peer.refused = False
    node.report_due = True
    return told, [_changed(event.node, event.path, "up", "authenticated")]


def closed(node: Node, event: LinkClosed, now: Instant) -> tuple[Told, list[Effect]]:
    """A path closed: remember when, and wait for what explains it."""
    peer = node.peers.setdefault(event.node, PeerKnowledge())
    if peer.paths.pop(event.path, None) is None:
        return [], []
    effects: list[Effect] = [_changed(event.node, event.path, "closed", event.how)]
    if event.how == "goodbye":
        peer.closed_at = None
        peer.lost_at = None if peer.up else now
    elif event.how in {"fin", "reset"}:
        peer.closed_at = now
        peer.lost_at = None if peer.up else after(now, LOST_AFTER_NS)
    else:
        peer.closed_at = None  # silence on one path: an older close of another proves nothing now
        peer.refused = False
        peer.lost_at = None if peer.up else now
    told = _gone(node, event.node, peer, now) if _is_proved(peer) else lost(node, now)
    return told, effects


def refused(node: Node, event: PeerRefused, now: Instant) -> tuple[Told, list[Effect]]:
    """Nobody listens on a path that had been up."""
    peer = node.peers.get(event.node)
    if peer is None or peer.closed_at is None:
        return [], []
    peer.refused = True
    effects: list[Effect] = [
        _changed(event.node, event.path, "refused", "nobody listens there any more")
    ]
    return (_gone(node, event.node, peer, now) if _is_proved(peer) else []), effects


def restarted(node: Node, event: PeerRestarted, now: Instant) -> tuple[Told, list[Effect]]:
    """Another process answers: the old one has ended."""
    peer = node.peers.setdefault(event.node, PeerKnowledge())
    told = _replaced(node, event.node, peer, now)
    return told, [_changed(event.node, event.path, "restarted", "another process answers")]


def _is_proved(peer: PeerKnowledge) -> bool:
    return peer.closed_at is not None and peer.refused and not peer.up


def _replaced(node: Node, name: str, peer: PeerKnowledge, now: Instant) -> Told:
    """Tell that the process has ended if its end was seen; else only that its reports are void.

    A machine that was switched off and on again may be master anew before its first process is
    known to be gone (the close comes with the restart then), so that end hastens nobody.
    """
    seen = peer.closed_at is not None and now >= after(peer.closed_at, SUCCESSION_WAIT_NS)
    told = _gone(node, name, peer, now)
    return told if seen else [(brain, PeerLost(name)) for brain in node.groups.values()]


def _gone(node: Node, name: str, peer: PeerKnowledge, now: Instant) -> Told:
    """Tell every group that the process has ended, since the last close.

    The last, because an earlier one may have been forged long before.
    """
    closed_at = peer.closed_at or now
    peer.paths.clear()
    peer.instance = b""
    peer.sent_at = 0
    peer.closed_at = None
    peer.lost_at = None
    peer.refused = False
    peer.reports = {}
    node.report_due = True
    return [(brain, PeerGone(name, closed_at)) for brain in node.groups.values()]


def lost(node: Node, now: Instant) -> Told:
    """Forget what nodes reported whose links went away without an explanation."""
    told: Told = []
    for name, peer in node.peers.items():
        if peer.lost_at is not None and now >= peer.lost_at and not peer.up:
            peer.lost_at = None
            peer.reports = {}
            told += [(brain, PeerLost(name)) for brain in node.groups.values()]
    return told


def message(node: Node, event: MessageHeard, now: Instant) -> tuple[Told, list[Effect]]:
    """An authenticated message: a heartbeat, a goodbye, or part of a hand-over."""
    peer = node.peers.setdefault(event.node, PeerKnowledge())
    said = event.message
    if isinstance(said, Heartbeat):
        return _heartbeat(node, event.node, peer, said, now)
    if isinstance(said, Goodbye):
        return [], []
    brain = node.groups.get(said.group)
    if brain is None:
        node.counters.add("peer.unknown-group")
        return [], []
    return [(brain, PeerSaid(event.node, said))], []


def _heartbeat(
    node: Node, name: str, peer: PeerKnowledge, said: Heartbeat, now: Instant
) -> tuple[Told, list[Effect]]:
    peer.heard_at = now
    if said.sent_at < peer.sent_at:
        return [], []  # overtaken: a newer one came over another path
    peer.sent_at = said.sent_at
    effects: list[Effect] = []
    if said.revision != peer.revision:
        peer.revision = said.revision
        if said.revision != node.setup.revision:
            text = f"{name} runs configuration {said.revision}, we run {node.setup.revision}"
            effects.append(Record(Noted(group="", name="revision", text=text)))
    told: Told = []
    reports = dict(peer.reports)
    for report in said.groups:
        brain = node.groups.get(report.group)
        if brain is None or brain.election.standing.member(name) is None:
            continue
        reports[report.group] = report
        same_file = said.revision == node.setup.revision
        told.append((brain, _reported(name, report, same_file=same_file)))
    peer.reports = reports
    return told, effects


def _reported(name: str, report: GroupReport, *, same_file: bool) -> PeerReported:
    return PeerReported(
        node=name,
        state=State(report.state),
        advbase=report.advbase,
        advskew=report.advskew,
        demote=report.demote,
        ready=report.ready,
        hears=report.hears,
        same_file=same_file,
    )


def _changed(name: str, path: str, state: str, detail: str) -> Record:
    return Record(PeerChanged(node=name, path=path, state=state, detail=detail))


def heartbeats(node: Node, now: Instant) -> list[Heartbeat]:
    """Return what this node tells the others now, in as many frames as the groups need."""
    reports = [_report(node, brain, now) for brain in node.groups.values()]
    return list(in_frames(node.setup.revision, now, reports))


def _report(node: Node, brain: GroupBrain, now: Instant) -> GroupReport:
    standing = brain.election.standing
    facts = node.facts.get(brain.setup.interface)
    sources: list[IPv4Address | IPv6Address | None] = []
    if facts is not None:
        nowhere = IPv4Address(0) if brain.setup.v4 else None  # where they come from without one
        sources = [facts.v4 or nowhere, facts.v6]
    fresh = now < after(standing.advert_at, standing.master_down_ns)
    hears = standing.master.name if standing.master is not None and fresh else ""
    return GroupReport(
        group=brain.setup.name,
        state=str(standing.state),
        advbase=standing.pace[0],
        advskew=standing.pace[1],
        demote=standing.demote_byte,
        paused=node.paused,
        ready=brain.election.ready and not node.stopping,
        hears=hears[:64],
        sources=tuple(str(source) for source in sources if source is not None),
    )
