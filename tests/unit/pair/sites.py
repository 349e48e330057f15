"""The sites that the worlds are made of: up to three nodes, one group or two together."""

from dataclasses import replace
from ipaddress import IPv4Address

from carpool.base.time import NS_PER_MS
from carpool.election.parameters import DemoteMode, Kind, Member, Parameters
from carpool.engine.setup import GroupSetup, NodeSetup

NAMES = ("alpha", "bravo", "charlie")
MARGIN_NS = 5 * NS_PER_MS
SLOW = (1, 0, 10)  # 1 s: advbase 1, skew 10 a rank
FAST = (0, 26, 1)  # 100 ms: advbase 0, base skew 26, one step a rank
TINY = (0, 5, 1)  # 20 ms: a rank is half an interval


def master_down(advbase: int, advskew: int) -> int:
    """Return the master-down time by research/hot 1.4, in ns."""
    step = 1_000_000_000 // 256
    if advbase == 0:
        return 3 * advskew * step
    return 3 * advbase * 1_000_000_000 + advskew * step


def parameters(node: str, names: tuple[str, ...], speed: tuple[int, int, int]) -> Parameters:
    """Return a group's parameters as `node` has them."""
    advbase, skew, step = speed
    skews = {name: skew + step * rank for rank, name in enumerate(names)}
    others = [name for name in names if name != node]
    down = [master_down(advbase, skews[name]) for name in others]
    return Parameters(
        group="edge",
        vhid=1,
        advbase=advbase,
        advskew=skews[node],
        rank=names.index(node),
        members=tuple(
            Member(name, Kind.CARPOOL, advbase, skews[name], names.index(name)) for name in others
        ),
        lease_ns=min(down, default=master_down(advbase, skews[node])) - MARGIN_NS,
    )


def group(name: str, number: int, base: Parameters, moves_with: tuple[str, ...]) -> GroupSetup:
    """Return a group's setup."""
    return GroupSetup(
        name=name,
        parameters=replace(base, group=name, vhid=number),
        interface="eth0",
        addresses=(f"192.0.2.{100 + number}/24",),
        v4=(IPv4Address(f"192.0.2.{100 + number}"),),
        v6=(),
        key=b"secret",
        mac="interface",
        firewall=False,
        multicast=True,
        unicast=(),
        peers=(),
        moves_with=moves_with,
    )


def site(
    nodes: int = 2,
    speed: tuple[int, int, int] = SLOW,
    *,
    groups: tuple[str, ...] = ("edge",),
    demote: DemoteMode = DemoteMode.OPENBSD,
    preempt: bool = True,
    revision: str = "7",
    key: bytes = b"secret",
) -> list[NodeSetup]:
    """Return the setups of all nodes; several groups move together."""
    names = NAMES[:nodes]
    found = []
    for node in names:
        base = replace(parameters(node, names, speed), demote_mode=demote, preempt=preempt)
        made = tuple(
            replace(group(name, number + 1, base, tuple(o for o in groups if o != name)), key=key)
            for number, name in enumerate(groups)
        )
        others = tuple(
            (name, (f"192.0.2.{11 + number}",)) for number, name in enumerate(names) if name != node
        )
        found.append(NodeSetup("example", node, revision, made, others))
    return found
