"""How long a backup waits for a master whose configuration is not ours."""

import pytest

from carpool.base.time import NS_PER_MS, NS_PER_S, Instant
from carpool.election.events import AdvertisementHeard, Disabled, Enabled
from carpool.election.machine import Election
from carpool.election.parameters import SETTLE_NS, Kind, Member, Parameters

BEGAN = Instant(1_000 * NS_PER_S)
HEARD = Instant(BEGAN + 50 * NS_PER_MS)


def heard(kind: Kind, advbase: int, advskew: int) -> AdvertisementHeard:
    """Return an advertisement of the node alpha."""
    return AdvertisementHeard(
        source="192.0.2.11",
        node="alpha" if kind is Kind.CARPOOL else "",
        kind=kind,
        family=4,
        primary=True,
        lower=True,
        advbase=advbase,
        advskew=advskew,
        demote=0,
        received_at=HEARD,
    )


@pytest.mark.parametrize(
    ("kind", "advbase", "advskew", "silence_ns"),
    [
        (Kind.CARPOOL, 0, 26, 27 * 3 * NS_PER_S // 256),
        (Kind.CARPOOL, 0, 40, 27 * 3 * NS_PER_S // 256),
        (Kind.CARPOOL, 1, 0, 3 * NS_PER_S),
        (Kind.OPENBSD, 1, 0, 27 * 3 * NS_PER_S // 256),
    ],
)
def test_a_slower_carpool_master_is_given_its_own_time(kind, advbase, advskew, silence_ns):
    """While a reload goes from node to node, the old file's lease is waited for, not ours."""
    member = Member(name="alpha", kind=kind, advbase=0, advskew=26, rank=0)
    parameters = Parameters(
        group="edge",
        vhid=1,
        advbase=0,
        advskew=27,
        rank=1,
        members=(member,),
        lease_ns=290 * NS_PER_MS,
        preempt=False,
    )
    election = Election(parameters)
    election.handle(Enabled(), BEGAN)
    election.handle(heard(kind, advbase, advskew), HEARD)
    assert election.standing.master_down_at == HEARD + silence_ns


@pytest.mark.parametrize(
    ("members", "silence_ns"), [(True, SETTLE_NS), (False, 27 * 3 * NS_PER_S // 256)]
)
def test_a_cable_that_is_in_again_is_not_believed_at_once(members, silence_ns):
    """Silence right after the carrier returned proves nothing, unless nobody else is there."""
    member = Member(name="alpha", kind=Kind.CARPOOL, advbase=0, advskew=26, rank=0)
    parameters = Parameters(
        group="edge",
        vhid=1,
        advbase=0,
        advskew=27,
        rank=1,
        members=(member,) if members else (),
        lease_ns=290 * NS_PER_MS,
    )
    election = Election(parameters)
    election.handle(Enabled(), BEGAN)
    election.handle(Disabled("interface eth0 has no carrier"), HEARD)
    election.handle(Enabled(), HEARD)
    assert election.standing.master_down_at == HEARD + silence_ns
