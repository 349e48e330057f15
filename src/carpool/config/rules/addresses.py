"""Rules about addresses: every one belongs to one thing only, and the paths of the nodes fit."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from carpool.config.fields import IPAddress
from carpool.config.model import Peer, address_in_family
from carpool.config.problems import Finding, Path, counted, format_path, warning
from carpool.config.rules.parts import Parts


def unique_paths(parts: Parts) -> Iterator[Finding]:
    """No two paths to nodes have the same address."""
    seen: dict[IPAddress, Path] = {}
    for _, address, path in parts.paths():
        if address in seen:
            where = format_path(parts.origin(seen[address]))
            yield Finding(path, f"{address} is already {where}", "every path has its own address")
        seen.setdefault(address, path)


def matching_paths(parts: Parts) -> Iterator[Finding]:
    """The first heartbeats of all nodes are one path, so they are of one family; and so on."""
    whole = {
        name: node
        for name, node in parts.node.items()
        if parts.is_whole(("node", name, "heartbeat"))
    }
    if not whole:
        return
    first_name, first = next(iter(whole.items()))
    is_first_known = parts.is_known(("node", first_name, "address"))
    reference = (first.address, *first.heartbeat)
    for name, node in whole.items():
        for index, (theirs, ours) in enumerate(
            zip(reference, (node.address, *node.heartbeat), strict=False)
        ):
            path = ("node", name, "heartbeat", index - 1) if index else ("node", name, "address")
            if not index and not (is_first_known and parts.is_known(path)):
                continue
            if theirs.version != ours.version:
                yield Finding(
                    path,
                    f"{ours} is IPv{ours.version}, but {theirs} of {first_name} is "
                    f"IPv{theirs.version}",
                    "they are the two ends of one path",
                )
        if len(node.heartbeat) != len(first.heartbeat):
            yield warning(
                ("node", name, "heartbeat"),
                f"{name} has {counted(len(node.heartbeat), 'heartbeat path')}, "
                f"{first_name} has {len(first.heartbeat)}",
                "a path needs an address at both ends",
            )


def unique_addresses(parts: Parts) -> Iterator[Finding]:
    """No shared address is given twice, in one group or in two."""
    seen: dict[IPAddress, str] = {}
    for name, hot in parts.hot.items():
        for index, address in enumerate(hot.addresses):
            path = ("hot", name, "addresses", index)
            owner = seen.get(address.ip)
            if owner == name:
                yield Finding(path, f"{address.ip} is in the list twice")
            elif owner is not None:
                yield Finding(path, f"{address.ip} is already an address of hot.{owner}")
            seen.setdefault(address.ip, name)


def not_of_a_machine(parts: Parts) -> Iterator[Finding]:
    """A shared address is not the own address of a node or of a foreign member."""
    owners = {address: format_path(parts.origin(path)) for _, address, path in parts.paths()}
    for name, hot in parts.hot.items():
        for index, peer in enumerate(hot.peers):
            if peer.unicast is not None:
                path = parts.origin(("hot", name, "peers", index, "unicast"))
                owners.setdefault(peer.unicast, format_path(path))
    for name, hot in parts.hot.items():
        for index, address in enumerate(hot.addresses):
            if address.ip in owners:
                yield Finding(
                    ("hot", name, "addresses", index),
                    f"{address.ip} is the own address of a machine: {owners[address.ip]}",
                    "a shared address belongs to no machine",
                )


def link_local(parts: Parts) -> Iterator[Finding]:
    """A link-local shared address works, with two things to know."""
    for name, hot in parts.hot.items():
        kinds = {peer.kind for peer in hot.peers}
        for index, address in enumerate(hot.addresses):
            if not address.ip.is_link_local:
                continue
            path = ("hot", name, "addresses", index)
            hint = "clients need its zone" if address.version == 6 else "no router forwards it"
            yield warning(path, f"{address.ip} is a link-local address", hint)
            if address.version == 6 and "openbsd" in kinds and kinds & {"freebsd", "netbsd"}:
                yield warning(
                    path,
                    "FreeBSD and NetBSD reject OpenBSD's advertisements where a group has a "
                    "link-local IPv6 address",
                    "they sign it, OpenBSD does not",
                )


def reachable_by_unicast(parts: Parts) -> Iterator[Finding]:
    """With unicast transport every member has an address in each family of the group."""
    for name, hot in parts.hot.items():
        if hot.transport != "unicast":
            continue
        for version in sorted({address.version for address in hot.addresses}):
            for index, member in enumerate(hot.nodes):
                node = parts.node.get(member)
                if node is None or address_in_family(node, version) is not None:
                    continue
                if not _has_all_paths(parts, member):
                    continue
                yield Finding(
                    ("hot", name, "nodes", index),
                    f"{member} has no IPv{version} address to send advertisements to",
                    f'transport = "unicast" and IPv{version} addresses need one',
                )
        for index, peer in parts.peers(name, "unicast"):
            if peer.unicast is None:
                yield Finding(
                    ("hot", name, "peers", index),
                    "this member has no `unicast` address",
                    'transport = "unicast" sends no multicast',
                )


def _has_all_paths(parts: Parts, node: str) -> bool:
    """Whether no address of `node` was left out."""
    is_known = parts.is_known(("node", node, "address"))
    return is_known and parts.is_whole(("node", node, "heartbeat"))


def unicast_peers(parts: Parts) -> Iterator[Finding]:
    """The unicast address of a foreign member is its own, once, and in a family of the group."""
    nodes = {address: name for name, address, _ in parts.paths()}
    whole = dict(parts.groups("addresses"))
    for name, hot in parts.hot.items():
        versions = {address.version for address in hot.addresses} if name in whole else {4, 6}
        seen: set[IPAddress] = set()
        for index, peer in enumerate(hot.peers):
            if peer.unicast is None:
                continue
            reason = _wrong_unicast(peer, peer.unicast, nodes, versions)
            if peer.unicast in seen:
                reason = f"{peer.unicast} is in the list twice"
            seen.add(peer.unicast)
            if reason:
                yield Finding(("hot", name, "peers", index, "unicast"), reason)


def _wrong_unicast(
    peer: Peer, address: IPAddress, nodes: dict[IPAddress, str], versions: AbstractSet[int]
) -> str:
    if address in nodes:
        return f"{address} is node {nodes[address]}, which is no foreign member"
    if address.version not in versions:
        return f"{address} is IPv{address.version}, the group has no such address"
    if peer.kind == "openbsd" and address.version == 6:
        return "OpenBSD takes part by unicast over IPv4 only"
    return ""


RULES = (
    unique_paths,
    matching_paths,
    unique_addresses,
    not_of_a_machine,
    link_local,
    reachable_by_unicast,
    unicast_peers,
)
