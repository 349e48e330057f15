"""What the rules look at: the tables without the fields that are wrong, and what was left out.

A rule about bravo must not call bravo unknown because a key in its table is misspelt; so the names
that the file declares are kept beside the tables that could be read. And a rule must not judge what
stands in for a wrong field: it asks for the groups (`groups`) and foreign members (`peers`) whose
fields it reads are right. Wrong values in a list are taken out of it; a rule counts what is left,
and `origin` gives its place in the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from carpool.config.fields import IPAddress
from carpool.config.model import Hot, Node, Peer, Site
from carpool.config.problems import Path


@dataclass(frozen=True, slots=True)
class Parts:
    """A file as far as it could be read.

    left_out: the places of all fields that are wrong or missing. origins: for a list that lost
    values, the indices in the file of those that are left.
    """

    site: Site | None
    node: Mapping[str, Node]
    hot: Mapping[str, Hot]
    node_names: tuple[str, ...]
    group_names: tuple[str, ...]
    left_out: frozenset[Path] = frozenset()
    origins: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)

    def paths(self) -> Iterator[tuple[str, IPAddress, Path]]:
        """Yield every address of every node: the node, the address and where it is written."""
        for name, node in self.node.items():
            path: Path = ("node", name, "address")
            if self.is_known(path):
                yield name, node.address, path
            for index, address in enumerate(node.heartbeat):
                yield name, address, ("node", name, "heartbeat", index)

    def groups(self, *fields: str) -> Iterator[tuple[str, Hot]]:
        """Yield the groups in which nothing of `fields` was left out: "nodes", "peers.kind"."""
        spoilt = self._spoilt(fields)
        for name, hot in self.hot.items():
            if name not in spoilt:
                yield name, hot

    def peers(self, group: str, *fields: str) -> Iterator[tuple[int, Peer]]:
        """Yield the foreign members of a group in which nothing of `fields` was left out."""
        for index, peer in enumerate(self.hot[group].peers):
            path = self.origin(("hot", group, "peers", index))
            if all((*path, key) not in self.left_out for key in fields):
                yield index, peer

    def is_known(self, path: Path) -> bool:
        """Whether the field at `path` is right, or not given."""
        return path not in self.left_out

    def is_whole(self, path: Path) -> bool:
        """Whether the list at `path` is right, and every value in it."""
        return path not in self.left_out and path not in self.origins

    def origin(self, path: Path) -> Path:
        """Return the place in the file of what is at `path` here."""
        for end in range(1, len(path)):
            indices, index = self.origins.get(path[:end]), path[end]
            if indices is not None and isinstance(index, int):
                return (*path[:end], indices[index], *path[end + 1 :])
        return path

    def _spoilt(self, fields: tuple[str, ...]) -> set[str]:
        """Return the groups in which one of `fields`, or what it is in, was left out."""
        wanted = {
            tuple(it.split(".")[:end]) for it in fields for end in range(1, it.count(".") + 2)
        }
        return {
            str(path[1])
            for path in self.left_out
            if path[0] == "hot" and len(path) > 2 and _kind(path[2:]) in wanted
        }


def _kind(inside: Path) -> Path:
    """Return which field of a group this is, whatever its index or the name of the node."""
    kind = tuple(part for part in inside if not isinstance(part, int))
    return ("node", *kind[2:]) if kind[0] == "node" else kind
