"""Many addresses on a real interface: added, announced, removed, repaired, measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

import pytest

from carpool.drivers.addresses import (
    CHUNK,
    AddressRefused,
    AnyInterface,
    add_addresses,
    addresses,
    link_local_v6,
    plan_addresses,
    primary_v4,
    promote_secondaries,
    remove_addresses,
)
from carpool.drivers.clock import boottime_ns
from carpool.drivers.links import link_by_name
from carpool.drivers.netlink import IFA_F_DEPRECATED, IFA_F_NODAD, IFA_F_TENTATIVE
from carpool.drivers.netlink_socket import NetlinkSocket
from carpool.drivers.sysctl import Sysctls

pytestmark = pytest.mark.lab


@dataclass
class Hand:
    """A netlink socket in the near namespace, and its interface."""

    pair: Any
    netlink: NetlinkSocket
    ifindex: int

    def present(self) -> set[str]:
        """Return the addresses of the interface, without link-local ones."""
        found = addresses(self.netlink, self.ifindex)
        return {f"{i.address}/{i.prefix_length}" for i in found if not i.address.is_link_local}


@pytest.fixture
def hand(pair: Any) -> Iterator[Hand]:
    """The near machine's hand."""
    with pair.inside(pair.near):
        netlink = NetlinkSocket()
    with netlink:
        link = link_by_name(netlink, pair.interface)
        assert link is not None
        yield Hand(pair, netlink, link.index)


def v4(count: int) -> list[AnyInterface]:
    """Return so many IPv4 addresses of 10.1.0.0/16."""
    return [IPv4Interface((0x0A010005 + number, 16)) for number in range(count)]


def v6(count: int) -> list[AnyInterface]:
    """Return so many IPv6 addresses of 2001:db8::/64."""
    first = int(IPv6Address("2001:db8::1000"))
    return [IPv6Interface((first + number, 64)) for number in range(count)]


def test_thousand_v4(hand: Hand, record_property: Any) -> None:
    """A thousand IPv4 addresses come and go within 250 ms each; measured 10 and 8 ms."""
    before = hand.present()
    plan = plan_addresses(hand.ifindex, v4(1000))
    start = boottime_ns()
    assert add_addresses(hand.netlink, plan) == []
    added = boottime_ns()
    assert len(hand.present() - before) == 1000
    middle = boottime_ns()
    assert remove_addresses(hand.netlink, plan) == []
    removed = boottime_ns()
    assert hand.present() == before
    record_property("add_ms", (added - start) / 1e6)
    record_property("remove_ms", (removed - middle) / 1e6)
    assert added - start < 250_000_000
    assert removed - middle < 250_000_000


def test_quarter_thousand_v6(hand: Hand, record_property: Any) -> None:
    """250 IPv6 addresses come within 250 ms, usable at once and deprecated; measured 2-28 ms."""
    before = hand.present()
    plan = plan_addresses(hand.ifindex, v6(250), addresses(hand.netlink, hand.ifindex))
    start = boottime_ns()
    assert add_addresses(hand.netlink, plan) == []
    took = boottime_ns() - start
    shared = {item.ip for item in plan.addresses}
    found = [a for a in addresses(hand.netlink, hand.ifindex) if a.address in shared]
    assert len(found) == 250
    for item in found:
        assert item.flags & IFA_F_NODAD
        assert item.flags & IFA_F_DEPRECATED
        assert not item.flags & IFA_F_TENTATIVE
    assert remove_addresses(hand.netlink, plan) == []
    assert hand.present() == before
    record_property("add_ms", took / 1e6)
    assert took < 250_000_000


def test_chunks_are_announced_when_they_stand(hand: Hand) -> None:
    """After each chunk the caller is told which addresses stand now, each exactly once."""
    plan = plan_addresses(hand.ifindex, v4(CHUNK * 2 + 5))
    told: list[AnyInterface] = []
    sizes: list[int] = []

    def after_chunk(done: Any) -> None:
        assert str(done[-1]) in hand.present()
        sizes.append(len(done))
        told.extend(done)

    assert add_addresses(hand.netlink, plan, after_chunk) == []
    assert sizes == [CHUNK, CHUNK, 5]
    assert tuple(told) == plan.addresses


def test_again_is_harmless(hand: Hand) -> None:
    """Adding what is there and removing what is gone succeed; a foreign removal is made good."""
    plan = plan_addresses(hand.ifindex, [*v4(3), *v6(3)])
    assert remove_addresses(hand.netlink, plan) == []
    assert add_addresses(hand.netlink, plan) == []
    hand.pair.ip(hand.pair.near, "address", "delete", "10.1.0.6/16", "dev", hand.pair.interface)
    assert add_addresses(hand.netlink, plan) == []
    assert {str(item) for item in plan.addresses} <= hand.present()


def test_address_with_an_end_becomes_permanent(hand: Hand) -> None:
    """An address of ours that another program gave a lifetime stands for ever again."""
    plan = plan_addresses(hand.ifindex, v6(1))
    words = ("valid_lft", "60", "preferred_lft", "60", "nodad")
    hand.pair.ip(
        hand.pair.near, "address", "add", "2001:db8::1000/64", "dev", hand.pair.interface, *words
    )
    assert add_addresses(hand.netlink, plan) == []
    shown = hand.pair.output(hand.pair.near, "ip", "address", "show", "to", "2001:db8::1000")
    assert "valid_lft forever preferred_lft 0sec" in shown


def test_missing_interface(hand: Hand) -> None:
    """Adding to an interface that is gone is told for each address; removing is done already."""
    plan = plan_addresses(0x7FFF_FFF0, [*v4(1), *v6(1)])
    refused = add_addresses(hand.netlink, plan)
    assert refused == [AddressRefused(item.ip, "No such device") for item in plan.addresses]
    assert remove_addresses(hand.netlink, plan) == []


def test_removal_spares_the_others(hand: Hand) -> None:
    """With promote_secondaries the network's first address goes alone; then it is put back."""
    with hand.pair.inside(hand.pair.near):
        settings = Sysctls()
        key = "ipv4/conf/hand0/promote_secondaries"
        before = settings.get(key)
        promote_secondaries(settings, "hand0", "edge")
        assert settings.get(key) == "1"
        plan = plan_addresses(hand.ifindex, v4(3))
        add_addresses(hand.netlink, plan)
        first = plan_addresses(hand.ifindex, plan.addresses[:1])
        assert remove_addresses(hand.netlink, first) == []
        assert {str(item) for item in plan.addresses[1:]} <= hand.present()
        assert settings.release("edge") == []
        assert settings.get(key) == before


def test_source_addresses(hand: Hand) -> None:
    """Advertisements come from the first own address, never from a shared one."""
    shared = plan_addresses(hand.ifindex, [IPv4Interface("192.0.2.10/24"), *v4(2), *v6(1)])
    add_addresses(hand.netlink, shared)
    excluded = {item.ip for item in shared.addresses}
    assert primary_v4(hand.netlink, hand.ifindex, excluded) == IPv4Address("192.0.2.1")
    own = IPv4Address("192.0.2.1")
    assert primary_v4(hand.netlink, hand.ifindex, {own, *excluded}) is None
    # Duplicate detection of the link-local address ends about a second after the start.
    hand.pair.wait_for(lambda: link_local_v6(hand.netlink, hand.ifindex) is not None)
    address = link_local_v6(hand.netlink, hand.ifindex)
    assert address is not None
    assert address.is_link_local
    assert link_local_v6(hand.netlink, hand.ifindex, {address}) is None
