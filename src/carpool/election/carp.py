"""CARP's decision table, as data: who yields, who takes over, who listens on.

The table is research/hot 1.4, cell by cell. Sources: OpenBSD sys/netinet/ip_carp.c
(carp_proto_input_c), FreeBSD sys/netinet/ip_carp.c (carp_input_c), UCarp src/carp.c:560-610.

                 peer faster      equal           peer slower
  MASTER hears   YIELD            TIE             STAY
  BACKUP hears   LISTEN           LISTEN          preempt: TAKE_OVER, else LISTEN

Demotion (OpenBSD only) is compared before time: a master yields to a peer that is less demoted and
stays against one that is more demoted, however fast; a backup takes over from a master that is
more demoted, whatever `preempt` says.

THE SOURCES have no tie-break in BSD (both yield and race again) and one by byte-swapped address in
ucarp. OURS: TIE, decided by `tie_yields`.
"""

from enum import StrEnum
from typing import Final

from carpool.election.parameters import DemoteMode, Kind, State
from carpool.wire.carp import interval_ns, master_down_ns


class Speed(StrEnum):
    """The peer's advertisement interval against ours. Faster is better."""

    FASTER = "faster"
    EQUAL = "equal"
    SLOWER = "slower"


class Demotion(StrEnum):
    """The peer's demotion counter against ours. Lower is better."""

    LOWER = "lower"
    SAME = "same"
    HIGHER = "higher"


class Action(StrEnum):
    """What to do about an advertisement."""

    STAY = "stay"  # remain master, answer
    YIELD = "yield"  # become backup
    TIE = "tie"  # equal masters: the tie-break decides
    LISTEN = "listen"  # restart the master-down timer
    TAKE_OVER = "take-over"


_Row = tuple[State, bool, Demotion, Speed]

OPENBSD: Final[dict[_Row, Action]] = {
    # a master yields to the less demoted, whatever the speed
    (State.MASTER, False, Demotion.LOWER, Speed.FASTER): Action.YIELD,
    (State.MASTER, False, Demotion.LOWER, Speed.EQUAL): Action.YIELD,
    (State.MASTER, False, Demotion.LOWER, Speed.SLOWER): Action.YIELD,
    (State.MASTER, False, Demotion.SAME, Speed.FASTER): Action.YIELD,
    (State.MASTER, False, Demotion.SAME, Speed.EQUAL): Action.TIE,
    (State.MASTER, False, Demotion.SAME, Speed.SLOWER): Action.STAY,
    (State.MASTER, False, Demotion.HIGHER, Speed.FASTER): Action.STAY,
    (State.MASTER, False, Demotion.HIGHER, Speed.EQUAL): Action.STAY,
    (State.MASTER, False, Demotion.HIGHER, Speed.SLOWER): Action.STAY,
    # preempt makes no difference to a master
    (State.MASTER, True, Demotion.LOWER, Speed.FASTER): Action.YIELD,
    (State.MASTER, True, Demotion.LOWER, Speed.EQUAL): Action.YIELD,
    (State.MASTER, True, Demotion.LOWER, Speed.SLOWER): Action.YIELD,
    (State.MASTER, True, Demotion.SAME, Speed.FASTER): Action.YIELD,
    (State.MASTER, True, Demotion.SAME, Speed.EQUAL): Action.TIE,
    (State.MASTER, True, Demotion.SAME, Speed.SLOWER): Action.STAY,
    (State.MASTER, True, Demotion.HIGHER, Speed.FASTER): Action.STAY,
    (State.MASTER, True, Demotion.HIGHER, Speed.EQUAL): Action.STAY,
    (State.MASTER, True, Demotion.HIGHER, Speed.SLOWER): Action.STAY,
    # a backup without preempt moves only when the master is the more demoted one
    (State.BACKUP, False, Demotion.LOWER, Speed.FASTER): Action.LISTEN,
    (State.BACKUP, False, Demotion.LOWER, Speed.EQUAL): Action.LISTEN,
    (State.BACKUP, False, Demotion.LOWER, Speed.SLOWER): Action.LISTEN,
    (State.BACKUP, False, Demotion.SAME, Speed.FASTER): Action.LISTEN,
    (State.BACKUP, False, Demotion.SAME, Speed.EQUAL): Action.LISTEN,
    (State.BACKUP, False, Demotion.SAME, Speed.SLOWER): Action.LISTEN,
    (State.BACKUP, False, Demotion.HIGHER, Speed.FASTER): Action.TAKE_OVER,
    (State.BACKUP, False, Demotion.HIGHER, Speed.EQUAL): Action.TAKE_OVER,
    (State.BACKUP, False, Demotion.HIGHER, Speed.SLOWER): Action.TAKE_OVER,
    # with preempt also when it is faster and not the more demoted one itself
    (State.BACKUP, True, Demotion.LOWER, Speed.FASTER): Action.LISTEN,
    (State.BACKUP, True, Demotion.LOWER, Speed.EQUAL): Action.LISTEN,
    (State.BACKUP, True, Demotion.LOWER, Speed.SLOWER): Action.LISTEN,
    (State.BACKUP, True, Demotion.SAME, Speed.FASTER): Action.LISTEN,
    (State.BACKUP, True, Demotion.SAME, Speed.EQUAL): Action.LISTEN,
    (State.BACKUP, True, Demotion.SAME, Speed.SLOWER): Action.TAKE_OVER,
    (State.BACKUP, True, Demotion.HIGHER, Speed.FASTER): Action.TAKE_OVER,
    (State.BACKUP, True, Demotion.HIGHER, Speed.EQUAL): Action.TAKE_OVER,
    (State.BACKUP, True, Demotion.HIGHER, Speed.SLOWER): Action.TAKE_OVER,
}

FREEBSD: Final[dict[tuple[State, bool, Speed], Action]] = {
    # byte 4 is padding there: demotion is already in advskew
    (State.MASTER, False, Speed.FASTER): Action.YIELD,
    (State.MASTER, False, Speed.EQUAL): Action.TIE,
    (State.MASTER, False, Speed.SLOWER): Action.STAY,
    (State.MASTER, True, Speed.FASTER): Action.YIELD,
    (State.MASTER, True, Speed.EQUAL): Action.TIE,
    (State.MASTER, True, Speed.SLOWER): Action.STAY,
    (State.BACKUP, False, Speed.FASTER): Action.LISTEN,
    (State.BACKUP, False, Speed.EQUAL): Action.LISTEN,
    (State.BACKUP, False, Speed.SLOWER): Action.LISTEN,
    (State.BACKUP, True, Speed.FASTER): Action.LISTEN,
    (State.BACKUP, True, Speed.EQUAL): Action.LISTEN,
    (State.BACKUP, True, Speed.SLOWER): Action.TAKE_OVER,
}

BOW_OUT_SKEW: Final = 255  # advbase 255 with advskew 255: "I leave"


def speed(peer: tuple[int, int], mine: tuple[int, int]) -> Speed:
    """Return how the peer's (advbase, advskew) compares with ours, as times."""
    peer_ns, mine_ns = interval_ns(*peer), interval_ns(*mine)
    if peer_ns < mine_ns:
        return Speed.FASTER
    return Speed.EQUAL if peer_ns == mine_ns else Speed.SLOWER


def demotion(peer: int, mine: int) -> Demotion:
    """Return how the peer's demotion counter compares with ours."""
    if peer < mine:
        return Demotion.LOWER
    return Demotion.SAME if peer == mine else Demotion.HIGHER


def decide(
    mode: DemoteMode, state: State, *, preempt: bool, demoted: Demotion, pace: Speed
) -> Action:
    """Return what the table says for a master or backup that hears an advertisement."""
    assert state is not State.INIT  # an election in INIT hears nothing
    if mode is DemoteMode.FREEBSD:
        return FREEBSD[state, preempt, pace]
    return OPENBSD[state, preempt, demoted, pace]


def better_because(better: tuple[int, int, int], worse: tuple[int, int, int]) -> str:
    """Return in a few words why `better` goes before `worse`; both (demotion, advbase, advskew)."""
    names = ("demotion", "advbase", "advskew")
    for name, mine, other in zip(names, better, worse, strict=True):
        if mine != other:
            return f"{name} {mine} < {other}"
    return "equal"


def is_bow_out(advbase: int, advskew: int) -> bool:
    """Return whether an advertisement says "I leave"."""
    return advbase == BOW_OUT_SKEW and advskew == BOW_OUT_SKEW


def is_too_slow(peer: tuple[int, int], mine: tuple[int, int]) -> bool:
    """Return whether a peer advertises so seldom that our timer would always fire first.

    OpenBSD leaves the rule out at advbase 0, where every peer in whole seconds would be too slow.
    """
    return mine[0] != 0 and interval_ns(*peer) > master_down_ns(*mine)


def tie_yields(kind: Kind, *, rank_lower: bool, source_lower: bool, yielded_before: bool) -> bool:
    """Return whether a master yields to an equal master.

    carpool:        the one named first in `nodes` stays; both have the same file.
    BSD:            always yields to an equal, so we never do, or nobody would be left.
    ucarp:          compares the address byte-swapped on little-endian machines; `source_lower` is
                    that comparison, made where the bytes are at hand.
    Who yielded and then saw the peer fall silent does not yield to it again (`yielded_before`):
    that ends the endless mutual yielding with an undeclared BSD.
    """
    if kind is Kind.CARPOOL:
        return rank_lower
    if kind is Kind.UCARP:
        return source_lower and not yielded_before
    return False
