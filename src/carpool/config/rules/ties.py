"""Rules about groups that move together (`with`), and the closure that makes it mutual."""

from collections.abc import Iterator, Mapping

from carpool.config.model import Hot
from carpool.config.problems import Finding, suggestion, warning
from carpool.config.rules.parts import Parts


def ties(parts: Parts) -> Iterator[Finding]:
    """Groups that move together exist, and are named once."""
    for name, hot in parts.hot.items():
        for index, other in enumerate(hot.with_groups):
            path = ("hot", name, "with", index)
            if other == name:
                yield Finding(path, "a group cannot be tied to itself")
            elif other not in parts.group_names:
                yield Finding(
                    path, f"there is no group {other}", suggestion(other, parts.group_names)
                )
            elif other in hot.with_groups[:index]:
                yield Finding(path, f"{other} is in the list twice")


def equal_members(parts: Parts) -> Iterator[Finding]:
    """Groups that move together have the same members, in one order."""
    whole = dict(parts.groups("nodes"))
    for name, hot in whole.items():
        for index, other in enumerate(hot.with_groups):
            if other in whole and other != name and other not in hot.with_groups[:index]:
                yield from _unequal(parts, name, other, index)


def _unequal(parts: Parts, name: str, other: str, index: int) -> Iterator[Finding]:
    """Yield what keeps two groups from moving together; once for a pair that names each other."""
    one, two = parts.hot[name], parts.hot[other]
    if name in two.with_groups and other < name:
        return
    path = ("hot", name, "with", index)
    only = sorted(set(one.nodes) ^ set(two.nodes))
    if only:
        owner = name if only[0] in one.nodes else other
        yield Finding(
            path,
            f"{name} and {other} have different members: {only[0]} is in {owner} only",
            "groups that move together have the same nodes",
        )
    elif one.nodes != two.nodes:
        yield warning(
            path,
            f"{name} prefers {one.nodes[0]} and {other} prefers {two.nodes[0]}"
            if one.nodes[0] != two.nodes[0]
            else f"{name} and {other} have their nodes in different orders",
            "groups that move together need one order",
        )
    if not only and one.preempt != two.preempt:
        yield warning(path, f"only one of {name} and {other} preempts")


def closed(hot: Mapping[str, Hot]) -> dict[str, Hot]:
    """Return the groups with `with` made mutual: each names all others of its set, sorted."""
    sets = {name: {name} for name in hot}
    for name, group in hot.items():
        for other in group.with_groups:
            merged = sets[name] | sets[other]
            for member in merged:
                sets[member] = merged
    return {
        name: group.model_copy(update={"with_groups": tuple(sorted(sets[name] - {name}))})
        for name, group in hot.items()
    }


RULES = (ties, equal_members)
