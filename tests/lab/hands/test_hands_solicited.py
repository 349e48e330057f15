"""Solicitations for an address are heard before the address is there."""

from ipaddress import IPv6Address

import pytest

from carpool.drivers.links import link_by_name
from carpool.drivers.netlink_socket import NetlinkSocket
from carpool.drivers.solicited import SolicitedNodes
from carpool.wire.ndp import solicited_node

pytestmark = pytest.mark.lab

MANY = [IPv6Address(0x20010DB8 << 96 | number) for number in range(256, 1256)]


def members(pair):
    """Return the groups of the near machine's interface, as the kernel lists them."""
    rows = pair.output(pair.near, "cat", "/proc/net/igmp6").splitlines()
    return {fields[2] for fields in map(str.split, rows) if fields[1] == pair.interface}


def test_a_thousand_groups_are_joined_and_left(pair):
    """The interface is a member of every address's group at once, and of none after close."""
    wanted = {solicited_node(address).packed.hex() for address in MANY}
    with pair.inside(pair.near):
        netlink = NetlinkSocket()
        link = link_by_name(netlink, pair.interface)
        nodes = SolicitedNodes(link.index)
        assert nodes.join(MANY) == ""
        assert wanted <= members(pair)
        assert nodes.join(MANY[:1]) == ""
        assert len(wanted & members(pair)) == 1
        nodes.close()
        assert not wanted & members(pair)
        netlink.close()


def test_an_interface_that_is_gone_is_said(pair):
    """A group that cannot be joined is told in words, and nothing is raised."""
    with pair.inside(pair.near):
        nodes = SolicitedNodes(9999)
        assert "No such device" in nodes.join(MANY[:1])
        nodes.close()
