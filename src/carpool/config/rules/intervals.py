"""Rules about time: what CARP can express, who is preferred, and whether the lease fits.

The lease ends `margin` before any other member may take over (DESIGN 4, "The gate"); it must last
longer than the time from one advertisement to the next, or the gate would shut in good health.
"""

from collections.abc import Iterator
from typing import Final, Literal

from carpool.base.time import NS_PER_MS, NS_PER_S, format_duration
from carpool.config.model import Hot
from carpool.config.problems import Finding, Path, warning
from carpool.config.rules.parts import Parts
from carpool.config.timing import (
    ADVSKEW_MAX,
    Expression,
    GroupTiming,
    advskew_of,
    express,
    hot_timing,
    is_undeclared,
    lease_ns,
    margin_ns,
    nearest,
)

PREEMPT_DELAY_NS_MAX: Final = 3600 * NS_PER_S  # a longer wait is a decision: use `pause`
_RANKED: Final = ("interval", "nodes", "node.advskew")  # what says who has which numbers
_DECLARED: Final = ("peers.kind", "peers.advbase", "peers.advskew")


def readable(duration_ns: int) -> str:
    """Return a duration in a form that is short, and can be written in the file."""
    if duration_ns >= NS_PER_S:
        return f"{duration_ns / NS_PER_S:.4f}".rstrip("0").rstrip(".") + "s"
    return f"{duration_ns / NS_PER_MS:.1f}".removesuffix(".0") + "ms"


def expressible(parts: Parts) -> Iterator[Finding]:
    """CARP can express the interval."""
    for name, hot in parts.hot.items():
        if express(hot.interval_ns) is None:
            names = " or ".join(f'"{readable(it.interval_ns)}"' for it in nearest(hot.interval_ns))
            yield Finding(
                ("hot", name, "interval"),
                f"CARP cannot express an interval of {_asked(hot.interval_ns)}",
                f"the nearest is {names}",
            )


def _asked(duration_ns: int) -> str:
    return readable(duration_ns) if duration_ns >= NS_PER_MS else format_duration(duration_ns)


def ranks(parts: Parts) -> Iterator[Finding]:
    """The advskew of the last rank still fits."""
    for name, hot in parts.groups(*_RANKED):
        expression = express(hot.interval_ns)
        if expression is None:
            continue
        worst = max(hot.nodes, key=lambda node: advskew_of(hot, expression, node))
        advskew = advskew_of(hot, expression, worst)
        if advskew > ADVSKEW_MAX:
            where = "nodes" if expression.advbase else "interval"
            yield Finding(
                ("hot", name, where),
                f"{worst} would have advskew {advskew}, more than {ADVSKEW_MAX}",
                _room(hot, expression),
            )


def _room(hot: Hot, expression: Expression) -> str:
    if expression.advbase:
        return "give the last ones an advskew of their own: [hot.GROUP.node.NAME]"
    longest = Expression(0, ADVSKEW_MAX - len(hot.nodes) + 1)
    return f'"1s", or at most "{readable(longest.interval_ns)}" with {len(hot.nodes)} nodes'


def preference(parts: Parts) -> Iterator[Finding]:
    """Two members with the same numbers leave the choice to the tie-break."""
    for name, hot, timing in _timed(parts):
        owners: dict[int, str] = {}
        for node, advskew in timing.advskew.items():
            if advskew in owners:
                yield warning(
                    ("hot", name, "nodes", hot.nodes.index(node)),
                    f"{node} and {owners[advskew]} have the same advskew {advskew}",
                    "which of them is master is left to the tie-break",
                )
            owners.setdefault(advskew, node)
        for index, peer in enumerate(hot.peers):
            base = timing.advbase if peer.advbase is None else peer.advbase
            if base == timing.advbase and peer.advskew in owners:
                yield warning(
                    ("hot", name, "peers", index),
                    f"this member and {owners[peer.advskew]} have the same advskew {peer.advskew}",
                    "two equal masters of BSD both step down",
                )


def leases(parts: Parts) -> Iterator[Finding]:
    """The margin and the lease fit the interval, for the gate in use."""
    whole = dict(parts.groups("margin", *_DECLARED))
    for name, hot, timing in _timed(parts):
        if name not in whole or any(is_undeclared(peer, timing.advbase) for peer in hot.peers):
            continue
        gate: Literal["bpf", "nft"] = "nft" if hot.gate == "nft" else "bpf"
        misfit = _misfit(timing, margin_ns(hot, gate))
        path: Path = ("hot", name, "interval" if hot.margin_ns is None else "margin")
        if misfit:
            yield Finding(path, *misfit)
        elif hot.gate == "auto" and (misfit := _misfit(timing, margin_ns(hot, "nft"))):
            yield warning(
                path, f"with the nft gate, where BPF is refused: {misfit[0]}", 'see gate = "bpf"'
            )


def _misfit(timing: GroupTiming, margin: int) -> tuple[str, str] | None:
    """Return what does not fit and what to do."""
    shortest = min(timing.interval_ns.values())
    if margin >= shortest:
        reason = (
            f"the margin of {readable(margin)} is not smaller than the advertisement interval "
            f"of {readable(shortest)}"
        )
        return reason, "a longer interval or a smaller margin"
    for node, interval_ns in timing.interval_ns.items():
        lease = lease_ns(timing, node, margin)
        if lease <= interval_ns:
            reason = (
                f"{node} would advertise every {readable(interval_ns)}, but another member takes "
                f"over after {readable(lease + margin)}, less the margin of {readable(margin)}"
            )
            return reason, "bring the advskews and advbases closer together"
    return None


def margins(parts: Parts) -> Iterator[Finding]:
    """A margin is more than nothing."""
    for name, hot in parts.hot.items():
        if hot.margin_ns == 0:
            yield Finding(
                ("hot", name, "margin"),
                "a margin of nothing lets two machines answer at once",
                'leave it out for "5ms" (BPF) or "20ms" (nft)',
            )


def delays(parts: Parts) -> Iterator[Finding]:
    """The delay of preemption is bounded and has something to delay."""
    for name, hot in parts.hot.items():
        path = ("hot", name, "preempt_delay")
        if hot.preempt_delay_ns > PREEMPT_DELAY_NS_MAX:
            limit = format_duration(PREEMPT_DELAY_NS_MAX)
            yield Finding(
                path, f"{format_duration(hot.preempt_delay_ns)} is too long", f"at most {limit}"
            )
        elif hot.preempt_delay_ns and not hot.preempt:
            yield warning(path, "it delays nothing, because preempt is false")


def _timed(parts: Parts) -> Iterator[tuple[str, Hot, GroupTiming]]:
    """Yield the groups whose numbers can be worked out and are in range."""
    for name, hot in parts.groups(*_RANKED):
        if express(hot.interval_ns) is None:
            continue
        timing = hot_timing(hot)
        if max(timing.advskew.values()) <= ADVSKEW_MAX:
            yield name, hot, timing


RULES = (expressible, ranks, preference, leases, margins, delays)
