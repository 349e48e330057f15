"""CARP's decision table, every cell against a table written down independently of it.

Source: research of OpenBSD sys/netinet/ip_carp.c and FreeBSD sys/netinet/ip_carp.c (the rules as
sentences stand above each table). One line is a state with preempt; the columns are the peer's
demotion against ours and, in it, the peer's speed.
"""

import pytest

from carpool.election.carp import (
    FREEBSD,
    OPENBSD,
    Action,
    Demotion,
    Speed,
    decide,
    demotion,
    is_bow_out,
    is_too_slow,
    speed,
    tie_yields,
)
from carpool.election.parameters import DemoteMode, Kind, State

# OpenBSD. MASTER: to BACKUP if (peer's time <= mine and peer's demotion <= mine) or the peer's
# demotion is lower. BACKUP: to MASTER if preempt and my time is shorter and the peer's demotion is
# not lower; and, whatever preempt says, if the peer's demotion is higher.
# OURS: an equal time at an equal demotion is a TIE.
OPENBSD_EXPECTED = """
                  peer demoted less  | as much as we      | more than we
                  faster equal slower| faster equal slower| faster equal slower
MASTER            yield  yield yield | yield  tie   stay  | stay   stay  stay
MASTER preempt    yield  yield yield | yield  tie   stay  | stay   stay  stay
BACKUP            listen listen listen|listen listen listen|take-over take-over take-over
BACKUP preempt    listen listen listen|listen listen take-over|take-over take-over take-over
"""
# FreeBSD and NetBSD. MASTER: to BACKUP if the peer's time <= mine. BACKUP: to MASTER if preempt and
# my time is shorter. Byte 4 is padding: the peer's demotion is in its time already.
FREEBSD_EXPECTED = """
                  faster equal slower
MASTER            yield  tie   stay
MASTER preempt    yield  tie   stay
BACKUP            listen listen listen
BACKUP preempt    listen listen take-over
"""


def cells(text):
    """Yield (state, preempt, demotion or None, speed, action) for every cell."""
    heads = [line for line in text.strip("\n").splitlines() if not line.startswith(" ")]
    for line in heads:
        state, *words = line.replace("|", " ").split()
        preempt = words[0] == "preempt"
        actions = [Action(word) for word in words[preempt:]]
        several = len(actions) == 9
        for place, action in enumerate(actions):
            theirs = list(Demotion)[place // 3] if several else None
            yield State(state), preempt, theirs, list(Speed)[place % 3], action


@pytest.mark.parametrize("cell", list(cells(OPENBSD_EXPECTED)), ids=str)
def test_openbsd(cell):
    """Each of the 36 cells is what ip_carp.c of OpenBSD does."""
    state, preempt, theirs, pace, action = cell
    mode = DemoteMode.OPENBSD
    assert decide(mode, state, preempt=preempt, demoted=theirs, pace=pace) is action


@pytest.mark.parametrize("theirs", Demotion)
@pytest.mark.parametrize("cell", list(cells(FREEBSD_EXPECTED)), ids=str)
def test_freebsd(cell, theirs):
    """Each of the 12 cells is what ip_carp.c of FreeBSD does, whatever stands in byte 4."""
    state, preempt, _, pace, action = cell
    mode = DemoteMode.FREEBSD
    assert decide(mode, state, preempt=preempt, demoted=theirs, pace=pace) is action


def test_the_tables_have_no_other_cells():
    """Nothing is decided that was not looked at."""
    assert len(OPENBSD) == len(list(cells(OPENBSD_EXPECTED))) == 36
    assert len(FREEBSD) == len(list(cells(FREEBSD_EXPECTED))) == 12


@pytest.mark.parametrize(
    ("peer", "mine", "expected"),
    [
        ((1, 0), (1, 10), Speed.FASTER),
        ((1, 10), (1, 10), Speed.EQUAL),
        ((2, 0), (1, 254), Speed.SLOWER),
        ((0, 254), (1, 0), Speed.FASTER),
        ((0, 0), (0, 1), Speed.EQUAL),  # OpenBSD sends 0/0 every 1/256 s
    ],
)
def test_speed(peer, mine, expected):
    """Numbers are compared as times: advbase + advskew/256 s."""
    assert speed(peer, mine) is expected


def test_demotion():
    """The less demoted one is better."""
    assert [demotion(peer, 2) for peer in (1, 2, 3)] == list(Demotion)


@pytest.mark.parametrize(
    ("peer", "mine", "expected"),
    [
        ((3, 0), (1, 0), False),  # exactly the master-down time is not too slow
        ((3, 1), (1, 0), True),
        ((3, 10), (1, 10), False),
        ((255, 255), (1, 0), True),  # how a bow-out works on BSD
        ((255, 255), (0, 26), False),  # OpenBSD: not if my advbase is 0
    ],
)
def test_too_slow(peer, mine, expected):
    """A peer slower than our master-down time never keeps our timer from firing."""
    assert is_too_slow(peer, mine) is expected


def test_bow_out():
    """255/255 says "I leave"; either number alone does not."""
    assert is_bow_out(255, 255)
    assert not is_bow_out(255, 254)
    assert not is_bow_out(1, 255)


@pytest.mark.parametrize("rank_lower", [True, False])
@pytest.mark.parametrize("source_lower", [True, False])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", Kind)
def test_ties(kind, rank_lower, source_lower, before):
    """Of two equal masters exactly one yields: by rank, never to BSD, by ucarp's comparison."""
    expected = {
        Kind.CARPOOL: rank_lower,
        Kind.UCARP: source_lower and not before,
        Kind.OPENBSD: False,
        Kind.FREEBSD: False,
        Kind.NETBSD: False,
    }[kind]
    found = tie_yields(
        kind, rank_lower=rank_lower, source_lower=source_lower, yielded_before=before
    )
    assert found is expected
