"""A reload: what leaves, what joins, what changed in place, and what is not touched.

A group keeps its role when its identity on the wire stays: interface, vhid and MAC mode. Everything
else (addresses, skew, members, timers) changes in place. An equal group is left alone altogether.
"""

from dataclasses import dataclass

from carpool.engine.effects import Effect, Rearrange
from carpool.engine.node import GroupBrain, Node, make_group
from carpool.engine.setup import GroupSetup, NodeSetup
from carpool.wire.carp import Authenticator


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload does to the groups of this node."""

    leaving: tuple[GroupBrain, ...]
    joining: tuple[GroupBrain, ...]
    changed: tuple[GroupBrain, ...]
    untouched: int

    def summary(self) -> str:
        """Return the plan as a phrase."""
        parts = [
            f"{len(group)} {word}"
            for word, group in (
                ("added", self.joining),
                ("removed", self.leaving),
                ("changed", self.changed),
            )
            if group
        ]
        return f"groups: {', '.join([*parts, f'{self.untouched} untouched'])}"


def _identity(setup: GroupSetup) -> tuple[str, int, str]:
    return setup.interface, setup.parameters.vhid, setup.mac


def plan(node: Node, setup: NodeSetup) -> Plan:
    """Compare the running groups with a new setup; changed brains already carry it."""
    leaving, joining, changed, untouched = [], [], [], 0
    for name, brain in node.groups.items():
        wanted = setup.group(name)
        if wanted is None or _identity(wanted) != _identity(brain.setup):
            leaving.append(brain)
    for offset, wanted in enumerate(setup.groups):
        existing = node.groups.get(wanted.name)
        if existing is None or existing in leaving:
            joining.append(make_group(wanted, node.counter_start + (offset << 32) + (1 << 24)))
        elif wanted == existing.setup:
            untouched += 1
        else:
            existing.setup = wanted
            existing.authenticator = Authenticator(
                wanted.key, wanted.parameters.vhid, wanted.v4, wanted.v6
            )
            existing.shared = frozenset((*wanted.v4, *wanted.v6))
            changed.append(existing)
    return Plan(tuple(leaving), tuple(joining), tuple(changed), untouched)


def carry_out(node: Node, setup: NodeSetup, planned: Plan) -> list[Effect]:
    """Put the new groups in place; the hands arrange theirs from the two setups."""
    before = node.setup
    for brain in planned.leaving:
        del node.groups[brain.setup.name]
    for brain in planned.joining:
        brain.election.standing.demotion = node.demotions.get(brain.setup.name, 0)
        node.groups[brain.setup.name] = brain
    order = [group.name for group in setup.groups]
    node.groups = {name: node.groups[name] for name in order}
    known = {name for name, _ in setup.nodes}
    node.peers = {name: peer for name, peer in node.peers.items() if name in known}
    node.setup = setup
    return [Rearrange(before, setup)]
