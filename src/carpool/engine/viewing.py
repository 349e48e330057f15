"""The brain's state as one frozen value, with what an operator should know said in words."""

from carpool.base.time import Instant
from carpool.election.parameters import CONFLICT_KEPT_NS, State
from carpool.election.standing import Standing
from carpool.election.succession import live_standbys, merit
from carpool.engine.node import GroupBrain, Node, PeerKnowledge
from carpool.engine.snapshot import (
    ClaimSnapshot,
    GroupSnapshot,
    NodeSnapshot,
    PathSnapshot,
    PeerSnapshot,
)
from carpool.wire.peer import GroupReport


def view(node: Node, now: Instant, gate: str) -> NodeSnapshot:
    """Return the snapshot of `node`."""
    counters = dict(node.counters.snapshot())
    counters["elect.lateness-ns-max"] = node.lateness_ns_max
    return NodeSnapshot(
        site=node.setup.site,
        node=node.setup.node,
        revision=node.setup.revision,
        at=now,
        started_at=node.started_at,
        paused=node.paused,
        groups=tuple(_group(node, brain, now, gate) for brain in node.groups.values()),
        peers=tuple(
            _peer(name, addresses, node.peers.get(name)) for name, addresses in node.setup.nodes
        ),
        counters=counters,
        warnings=_warnings(gate),
    )


def _group(node: Node, brain: GroupBrain, now: Instant, gate: str) -> GroupSnapshot:
    standing = brain.election.standing
    parameters = standing.parameters
    master = standing.master
    is_master = standing.state is State.MASTER
    conflicts = {
        address: mac
        for address, (mac, at) in standing.conflicts.items()
        if is_master and now - at < CONFLICT_KEPT_NS  # else it may well be the new master
    }
    return GroupSnapshot(
        group=brain.setup.name,
        state=str(standing.state),
        reason=standing.reason,
        cause=standing.cause,
        since=standing.since,
        changes=standing.changes,
        interface=brain.setup.interface,
        vhid=parameters.vhid,
        addresses=brain.setup.addresses,
        advbase=standing.pace[0],
        advskew=standing.pace[1],
        demotion=standing.total_demotion,
        interval_ns=standing.interval_ns,
        master_down_ns=standing.master_down_ns,
        lease_ns=standing.lease_ns,
        lease_until=(standing.lease_until or 0) if standing.serving else 0,
        gate=gate,
        master=node.setup.node if is_master else master.name if master else "",
        master_claims=None if master is None else (master.advbase, master.advskew, master.demote),
        master_heard_at=0 if is_master or master is None else master.at,
        standby=tuple(name for _, name in live_standbys(parameters, standing.peers)),
        paused=node.paused,
        preempt=parameters.preempt,
        moves_with=brain.setup.moves_with,
        conflict=conflicts,
        warnings=_group_warnings(brain, now),
    )


def _group_warnings(brain: GroupBrain, now: Instant) -> tuple[str, ...]:
    standing = brain.election.standing
    found = []
    if standing.parameters.foreign:
        found.append("foreign members: advertisements can be altered and replayed (CARP)")
    if standing.held and _is_better_elsewhere(standing):
        found.append(
            "moved here to stay: a better node does not take it back (step-down ends that)"
        )
    if standing.total_demotion:
        found.append(f"demoted by {standing.total_demotion}")
    master = standing.master
    deaf = now - standing.advert_at > standing.master_down_ns
    if standing.state is State.BACKUP and master is not None and master.node and deaf:
        found.append(
            f"advertisements of {master.node} are not heard on {brain.setup.interface}; "
            "it lives on the peer link"
        )
    if standing.unheard_since is not None:
        found.append("no standby hears our advertisements")
    return tuple(found)


def _is_better_elsewhere(standing: Standing) -> bool:
    """Return whether another member, up or down, is preferred over this node."""
    mine = merit(standing.demote_byte, *standing.pace, standing.parameters.rank)
    for member in standing.parameters.members:
        view = standing.peers.get(member.name)
        demote = view.demote if view else 0
        pace = (view.advbase, view.advskew) if view else (member.advbase, member.advskew)
        if merit(demote, *pace, member.rank) < mine:
            return True
    return False


def _peer(name: str, addresses: tuple[str, ...], peer: PeerKnowledge | None) -> PeerSnapshot:
    if peer is None:
        peer = PeerKnowledge()
    paths = tuple(
        PathSnapshot(path=address, up=address in peer.paths, since=peer.since.get(address, 0))
        for address in addresses
    )
    return PeerSnapshot(
        node=name,
        up=peer.up,
        revision=peer.revision,
        paths=paths,
        heard_at=peer.heard_at or 0,
        states={group: report.state for group, report in peer.reports.items()},
        claims={group: _claim(report) for group, report in peer.reports.items()},
    )


def _claim(report: GroupReport) -> ClaimSnapshot:
    return ClaimSnapshot(
        advbase=report.advbase,
        advskew=report.advskew,
        demotion=report.demote,
        paused=report.paused,
        ready=report.ready,
        hears=report.hears,
    )


def _warnings(gate: str) -> tuple[str, ...]:
    found = []
    if gate == "nft":
        found.append(
            "gate: nft, weaker than BPF: it may shut up to 15 ms late (its margin is 20 ms), "
            "and `nft flush ruleset` opens it until it is repaired"
        )
    return tuple(found)
