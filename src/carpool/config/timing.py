"""From the interval an operator asks for to CARP's numbers, and from those to the lease.

CARP knows two numbers: advbase (whole seconds) and advskew (1/256 s), and advskew is preference at
the same time. Timers, each as one sentence:
- advertisement interval: advbase + advskew/256 s; 1/256 s if both are 0.
- master-down time: 3 x advbase + advskew/256 s; at advbase 0 it is 3 advertisement intervals.
- ucarp as a backup: 3 x advbase + advskew/256 s at any advbase, so one interval at advbase 0.
- lease: the earliest master-down time of any *other* member, less the margin; counted from sending.
Source: OpenBSD sys/netinet/ip_carp.c, carp_setrun and carp_send_ad; UCarp src/carp.c;
DESIGN 4, "The gate".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.config.model import Config, Hot, Peer
from carpool.wire.carp import interval_ns as advertisement_interval_ns
from carpool.wire.carp import master_down_ns

STEP_NS: Final = NS_PER_S // 256  # one step of advskew; a whole number of nanoseconds
ADVBASE_MAX: Final = 255  # one byte
ADVSKEW_MAX: Final = 254  # 255 announces "I bow out"
RANK_STEP: Final = 10  # advskew from one rank to the next, where the interval is whole seconds
MARGIN_BPF_NS: Final = 5 * NS_PER_MS  # a jiffy at HZ 250 and a bit
MARGIN_NFT_NS: Final = 20 * NS_PER_MS  # nft's set time-outs were seen up to 15 ms late


@dataclass(frozen=True, slots=True)
class Expression:
    """An interval in CARP's words: of the node of rank 0."""

    advbase: int
    base_skew: int

    @property
    def interval_ns(self) -> int:
        """The interval that it really is."""
        return advertisement_interval_ns(self.advbase, self.base_skew)


@dataclass(frozen=True, slots=True)
class GroupTiming:
    """The timers of one group on each of its nodes; the order is that of `nodes`."""

    advbase: int
    advskew: Mapping[str, int]
    interval_ns: Mapping[str, int]
    master_down_ns: Mapping[str, int]
    foreign_master_down_ns: tuple[int, ...]


def foreign_master_down_ns(peer: Peer, advbase: int) -> int:
    """Return the master-down time of a foreign member as it is declared.

    advbase: the group's, for a member that declares none. A member that declares no advskew is
    taken for the most eager.
    """
    base = advbase if peer.advbase is None else peer.advbase
    skew = peer.advskew or 0
    if peer.kind == "ucarp":
        return 3 * base * NS_PER_S + skew * STEP_NS
    return master_down_ns(base, skew)


def is_undeclared(peer: Peer, advbase: int) -> bool:
    """Whether the interval of a foreign member at advbase 0 is unknown, or cannot be."""
    base = advbase if peer.advbase is None else peer.advbase
    return base == 0 and not peer.advskew and (peer.advskew is None or peer.kind == "ucarp")


def nearest(interval_ns: int) -> tuple[Expression, ...]:
    """Return what CARP can express next to `interval_ns`: below and above it, or the one end."""
    if interval_ns >= ADVBASE_MAX * NS_PER_S:
        return (Expression(ADVBASE_MAX, 0),)
    if interval_ns >= NS_PER_S:
        seconds = interval_ns // NS_PER_S
        below, above = Expression(seconds, 0), Expression(seconds + 1, 0)
    elif interval_ns < STEP_NS:
        return (Expression(0, 1),)
    else:
        steps = min(interval_ns // STEP_NS, ADVSKEW_MAX)
        below = Expression(0, steps)
        above = Expression(0, steps + 1) if steps < ADVSKEW_MAX else Expression(1, 0)
    return (below,) if below.interval_ns == interval_ns else (below, above)


def express(interval_ns: int) -> Expression | None:
    """Return `interval_ns` in CARP's words, None if none is within half a step of it."""
    best = min(nearest(interval_ns), key=lambda it: abs(it.interval_ns - interval_ns))
    return best if 2 * abs(best.interval_ns - interval_ns) <= STEP_NS else None


def advskew_of(hot: Hot, expression: Expression, node: str) -> int:
    """Return the advskew of `node`: the one given for it, or the one of its rank."""
    override = hot.node.get(node)
    if override is not None and override.advskew is not None:
        return override.advskew
    rank = hot.nodes.index(node)
    return expression.base_skew + rank if expression.advbase == 0 else RANK_STEP * rank


def hot_timing(hot: Hot) -> GroupTiming:
    """Return the timers of `hot`.

    Raises ValueError if CARP cannot express its interval; `parse` has refused such a file.
    """
    expression = express(hot.interval_ns)
    if expression is None:
        raise ValueError("this interval cannot be expressed in CARP")
    advbase = expression.advbase
    advskew = {node: advskew_of(hot, expression, node) for node in hot.nodes}
    return GroupTiming(
        advbase=advbase,
        advskew=advskew,
        interval_ns={n: advertisement_interval_ns(advbase, skew) for n, skew in advskew.items()},
        master_down_ns={node: master_down_ns(advbase, skew) for node, skew in advskew.items()},
        foreign_master_down_ns=tuple(foreign_master_down_ns(peer, advbase) for peer in hot.peers),
    )


def group_timing(config: Config, group: str) -> GroupTiming:
    """Return the timers of the group called `group`."""
    return hot_timing(config.hot[group])


def others_after_ns(timing: GroupTiming, node: str) -> int | None:
    """Return when the first other member takes over from `node`, None if there is no other."""
    others = [down for name, down in timing.master_down_ns.items() if name != node]
    return min((*others, *timing.foreign_master_down_ns), default=None)


def lease_ns(timing: GroupTiming, node: str, margin_ns: int) -> int:
    """Return how long the gate of `node` stays open after the sending of an advertisement.

    A node without any other member has its own master-down time for it: nobody waits for its end.
    The result is not positive where the margin does not fit; `check` refuses that.
    """
    others_ns = others_after_ns(timing, node)
    return (timing.master_down_ns[node] if others_ns is None else others_ns) - margin_ns


def margin_ns(hot: Hot, gate: Literal["bpf", "nft"]) -> int:
    """Return the margin of `hot` when `gate` is the gate in use."""
    if hot.margin_ns is not None:
        return hot.margin_ns
    return MARGIN_BPF_NS if gate == "bpf" else MARGIN_NFT_NS
