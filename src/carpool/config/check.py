"""All rules across fields, in one list."""

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from carpool.config.problems import Finding
from carpool.config.rules import addresses, intervals, members, peers, ties
from carpool.config.rules.parts import Parts

Rule: TypeAlias = Callable[[Parts], Iterator[Finding]]

RULES: Final[tuple[Rule, ...]] = (
    *members.RULES,
    *addresses.RULES,
    *intervals.RULES,
    *peers.RULES,
    *ties.RULES,
)


def check(parts: Parts) -> Iterator[Finding]:
    """Yield what every rule finds."""
    for rule in RULES:
        yield from rule(parts)
