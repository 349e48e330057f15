"""From the operator's file to what one node needs for each of its groups.

Pure: the passwords are handed in. The lease depends on the gate that the node really has, so this
is made after the gate was chosen.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, TypeAlias

from carpool.config.model import Config, Hot, address_in_family, interface_of
from carpool.config.timing import GroupTiming, group_timing, lease_ns, margin_ns
from carpool.election.parameters import DemoteMode, Kind, Member, Parameters
from carpool.wire.carp import virtual_mac

IpAddress: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class GroupSetup:
    """One group on this node: the election's parameters and what the hands need beside them."""

    name: str
    parameters: Parameters
    interface: str
    addresses: tuple[str, ...]  # with prefix length
    v4: tuple[IPv4Address, ...]
    v6: tuple[IPv6Address, ...]
    key: bytes
    mac: Literal["interface", "virtual"]
    firewall: bool
    multicast: bool
    unicast: tuple[IpAddress, ...]  # where adverts go beside, or instead of, the multicast group
    peers: tuple[tuple[str, Kind], ...]  # declared foreign members: unicast address or "", kind
    moves_with: tuple[str, ...]

    @property
    def virtual_mac(self) -> bytes | None:
        """Return the MAC that answers for the addresses, None for the interface's own."""
        return virtual_mac(self.parameters.vhid) if self.mac == "virtual" else None


@dataclass(frozen=True, slots=True)
class NodeSetup:
    """Everything one node's brain is built from."""

    site: str
    node: str
    revision: str
    groups: tuple[GroupSetup, ...]
    nodes: tuple[tuple[str, tuple[str, ...]], ...]  # other nodes and their addresses, all paths

    def group(self, name: str) -> GroupSetup | None:
        """Return the group of that name."""
        return next((group for group in self.groups if group.name == name), None)


def node_setup(
    config: Config,
    node: str,
    *,
    revision: str,
    passwords: dict[str, bytes],
    gate: Literal["bpf", "nft"],
) -> NodeSetup:
    """Return the setup of `node`.

    passwords: the CARP key of each group this node belongs to.
    """
    groups = tuple(
        _group_setup(config, name, hot, node, passwords[name], gate)
        for name, hot in config.hot.items()
        if node in hot.nodes
    )
    others = tuple(
        (name, tuple(str(address) for address in (other.address, *other.heartbeat)))
        for name, other in config.node.items()
        if name != node
    )
    return NodeSetup(
        site=config.site.name, node=node, revision=revision, groups=groups, nodes=others
    )


def _group_setup(
    config: Config, name: str, hot: Hot, node: str, key: bytes, gate: Literal["bpf", "nft"]
) -> GroupSetup:
    timing = group_timing(config, name)
    margin = margin_ns(hot, gate)
    v4 = tuple(a.ip for a in hot.addresses if isinstance(a.ip, IPv4Address))
    v6 = tuple(a.ip for a in hot.addresses if isinstance(a.ip, IPv6Address))
    return GroupSetup(
        name=name,
        parameters=_parameters(name, hot, node, timing, margin),
        interface=interface_of(config, name, node),
        addresses=tuple(str(address) for address in hot.addresses),
        v4=v4,
        v6=v6,
        key=key,
        mac=hot.mac,
        firewall=hot.firewall,
        multicast=hot.transport == "multicast",
        unicast=_unicast(config, hot, node),
        peers=tuple((str(peer.unicast or ""), Kind(peer.kind)) for peer in hot.peers),
        moves_with=_moves_with(config, name, node),
    )


def _parameters(name: str, hot: Hot, node: str, timing: GroupTiming, margin: int) -> Parameters:
    members = [
        Member(
            name=other,
            kind=Kind.CARPOOL,
            advbase=timing.advbase,
            advskew=timing.advskew[other],
            rank=rank,
        )
        for rank, other in enumerate(hot.nodes)
        if other != node
    ]
    members += [
        Member(
            name=str(peer.unicast or f"{peer.kind}-{count}"),
            kind=Kind(peer.kind),
            advbase=timing.advbase if peer.advbase is None else peer.advbase,
            advskew=peer.advskew or 0,
            rank=len(hot.nodes) + count,
        )
        for count, peer in enumerate(hot.peers)
    ]
    return Parameters(
        group=name,
        vhid=hot.vhid,
        advbase=timing.advbase,
        advskew=timing.advskew[node],
        rank=hot.nodes.index(node),
        members=tuple(members),
        lease_ns=lease_ns(timing, node, margin),
        margin_ns=margin,
        preempt=hot.preempt,
        preempt_delay_ns=hot.preempt_delay_ns,
        demote_mode=DemoteMode(hot.demote),
    )


def _unicast(config: Config, hot: Hot, node: str) -> tuple[IpAddress, ...]:
    """Return the unicast destinations: declared peers, and every member where asked for."""
    found = [peer.unicast for peer in hot.peers if peer.unicast is not None]
    if hot.transport == "unicast":
        for other in hot.nodes:
            if other != node:
                for version in (4, 6):
                    first = address_in_family(config.node[other], version)
                    if first is not None:
                        found.append(first)
    return tuple(found)


def _moves_with(config: Config, name: str, node: str) -> tuple[str, ...]:
    """Return the groups that move with `name`: the relation is made symmetric and transitive."""
    together = {name}
    while True:
        more = {
            other
            for other, hot in config.hot.items()
            if node in hot.nodes
            and (other in together or any(one in together for one in hot.with_groups))
        }
        for one in together:
            more |= {other for other in config.hot[one].with_groups if other in config.hot}
        if more <= together:
            return tuple(sorted(together - {name}))
        together |= more
