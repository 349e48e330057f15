"""Rules about who is in a group, under which number, and with which files."""

from collections.abc import Iterator

from carpool.config.model import interface_on
from carpool.config.problems import Finding, suggestion, warning
from carpool.config.rules.parts import Parts


def known_members(parts: Parts) -> Iterator[Finding]:
    """Every member is a node of this file, once."""
    are_nodes_known = parts.is_known(("node",))
    for name, hot in parts.hot.items():
        for index, member in enumerate(hot.nodes):
            path = ("hot", name, "nodes", index)
            if are_nodes_known and member not in parts.node_names:
                hint = suggestion(member, parts.node_names) or f"declare it: [node.{member}]"
                yield Finding(path, f"there is no node {member}", hint)
            elif member in hot.nodes[:index]:
                yield Finding(path, f"{member} is in the list twice")


def overrides_of_members(parts: Parts) -> Iterator[Finding]:
    """What is said about one node of a group is said about a member."""
    for name, hot in parts.groups("nodes"):
        for member, override in hot.node.items():
            path = ("hot", name, "node", member)
            if member not in hot.nodes:
                hint = suggestion(member, hot.nodes) or f"add it to hot.{name}.nodes"
                yield Finding(path, f"{member} is not a member of {name}", hint)
            elif override.interface is None and override.advskew is None:
                yield warning(path, "this table says nothing")


def idle_nodes(parts: Parts) -> Iterator[Finding]:
    """A node that is in no group, and a file without groups, have nothing to do."""
    if not parts.group_names:
        yield warning((), "there is no [hot.NAME]: nothing is shared")
        return
    if len(parts.hot) < len(parts.group_names):
        return
    members = {member for hot in parts.hot.values() for member in hot.nodes}
    for name in parts.node:
        if name not in members:
            yield warning(("node", name), f"no group has {name} as a member")


def one_vhid(parts: Parts) -> Iterator[Finding]:
    """A vhid means one group on a network; the same interface name hints at the same."""
    seen: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name, hot in parts.groups("vhid", "interface", "node.interface"):
        for group, node in _elsewhere(parts, name, seen):
            path = ("hot", name, "vhid")
            interface = interface_on(hot, node)
            if node in hot.nodes:
                yield Finding(
                    path,
                    f"{hot.vhid} is already the vhid of {group} on {interface} of {node}",
                    "one number for a group on its network",
                )
            else:
                yield warning(
                    path,
                    f"{hot.vhid} is the vhid of {group} on {interface} of {node} as well",
                    "right only if these are different networks",
                )
            break
        for node in dict.fromkeys(hot.nodes):
            key = (interface_on(hot, node), hot.vhid)
            seen.setdefault(key, []).append((name, node))


def _elsewhere(
    parts: Parts, name: str, seen: dict[tuple[str, int], list[tuple[str, str]]]
) -> list[tuple[str, str]]:
    """Return (group, node) pairs with the same vhid and interface name, shared nodes first."""
    hot = parts.hot[name]
    shared: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for member in dict.fromkeys(hot.nodes):
        for group, node in seen.get((interface_on(hot, member), hot.vhid), []):
            (shared if node == member else others).append((group, node))
    return shared + others


def files(parts: Parts) -> Iterator[Finding]:
    """The peer link needs keys, and they are not CARP's password."""
    if parts.site is None:
        return
    secret_file = parts.site.secret_file
    is_known = parts.is_known(("site", "secret_file"))
    if secret_file is None and is_known and len(parts.node_names) > 1:
        yield Finding(
            ("site", "secret_file"),
            f"missing: {len(parts.node_names)} nodes need keys for the link between them",
            'secret_file = "/etc/carpool/secret", with a line "1 KEY"',
        )
    for name, hot in parts.hot.items():
        if secret_file is not None and hot.password_file == secret_file:
            yield Finding(
                ("hot", name, "password_file"),
                "this is the secret of the site",
                "CARP's password needs a file of its own: its hash is weak and goes over the wire",
            )


RULES = (known_members, overrides_of_members, idle_nodes, one_vhid, files)
