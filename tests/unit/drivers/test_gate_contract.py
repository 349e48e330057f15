"""What groups a gate accepts together: carpool.drivers.gate_contract."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from carpool.base.errors import LocalError
from carpool.drivers.gate_contract import (
    ADDRESSES_MAX,
    TRANSIT_GROUPS_MAX,
    GateGroup,
    check_groups,
    is_guarded,
)

EDGE = GateGroup("edge", 0, "eth0", 2, 1, (IPv4Address("192.0.2.10"),), (), b"\0\0\x5e\0\1\1")
INSIDE = GateGroup("inside", 1, "eth1", 3, 1, (IPv4Address("10.0.0.10"),), ())
LOCAL = IPv6Address("fe80::10")


def test_groups_on_two_interfaces_agree():
    """The same vhid, virtual MAC and link-local address may be used on another interface."""
    groups = [
        replace(EDGE, v6=(LOCAL,)),
        replace(INSIDE, v6=(LOCAL,), virtual_mac=EDGE.virtual_mac),
    ]
    check_groups(groups, groups)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(INSIDE, group="edge"), "the name edge"),
        (replace(INSIDE, slot=0), "slot 0"),
        (replace(INSIDE, slot=255), "slot 255 is not in 0..254"),
        (replace(INSIDE, slot=-1), "slot -1"),
        (replace(INSIDE, v4=EDGE.v4), "inside and edge both have address 192.0.2.10"),
        (replace(INSIDE, interface="eth0", ifindex=2), "vhid 1 on eth0"),
        (
            replace(INSIDE, interface="eth0", ifindex=2, vhid=2, virtual_mac=EDGE.virtual_mac),
            "virtual MAC 00:00:5e:00:01:01 on eth0",
        ),
    ],
)
def test_contradictions_are_named(other, words):
    """What two groups cannot both have is said, with both names."""
    with pytest.raises(LocalError, match=words):
        check_groups([EDGE, other], [])


def test_a_slot_is_for_life():
    """An installed group keeps its slot; one that was taken out may come back with another."""
    with pytest.raises(LocalError, match="cannot change its slot"):
        check_groups([replace(EDGE, slot=4)], [EDGE])
    check_groups([replace(EDGE, slot=4)], [INSIDE])


def test_absent_interfaces_do_not_clash():
    """Two groups whose interfaces are absent (index 0) are not on the same one."""
    groups = [replace(EDGE, ifindex=0), replace(INSIDE, ifindex=0)]
    check_groups(groups, [])
    assert not is_guarded(LOCAL, 0)
    assert is_guarded(LOCAL, 2)
    assert is_guarded(IPv6Address("2001:db8::1"), 0)


def test_limits():
    """More firewall groups or addresses than the programs have room for are refused."""
    many = [
        GateGroup(f"g{number}", number, "eth0", 2, number + 1, (), (), None, firewall=True)
        for number in range(TRANSIT_GROUPS_MAX + 1)
    ]
    check_groups(many[:-1], [])
    with pytest.raises(LocalError, match="more than 8 firewall groups"):
        check_groups(many, [])
    first = IPv4Address("10.0.0.0")
    flood = replace(EDGE, v4=tuple(first + number for number in range(ADDRESSES_MAX + 1)))
    with pytest.raises(LocalError, match="more than 65536 addresses"):
        check_groups([flood], [])
