"""The interface for a virtual MAC: silent without addresses, the only one to answer with them."""

import select
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from carpool.base.errors import LocalError
from carpool.base.names import InterfaceName
from carpool.drivers.addresses import add_addresses, addresses, plan_addresses
from carpool.drivers.links import Link, link_by_name, set_link_up
from carpool.drivers.macvlan import create_macvlan, macvlan_name, remove_macvlan
from carpool.drivers.netlink_socket import NetlinkSocket
from carpool.drivers.packet_filter import ArpMatch
from carpool.drivers.rawsock import PacketSocket, attach_filter
from carpool.drivers.sysctl import Sysctls

pytestmark = pytest.mark.lab

VIRTUAL = bytes.fromhex("00005e000107")
SHARED = IPv4Address("192.0.2.10")


@dataclass
class Hand:
    """The near machine's tools, and an ear at the far one."""

    pair: Any
    netlink: NetlinkSocket
    settings: Sysctls
    parent: Link
    ear: PacketSocket


@pytest.fixture
def hand(pair: Any) -> Iterator[Hand]:
    """Tools in the near namespace; the test itself runs there, for the settings."""
    with pair.inside(pair.far):
        with NetlinkSocket() as netlink:
            link = link_by_name(netlink, pair.interface)
        assert link is not None
        ear = PacketSocket(InterfaceName(pair.interface), link.index, [ArpMatch()])
    with pair.inside(pair.near), NetlinkSocket() as netlink:
        parent = link_by_name(netlink, pair.interface)
        assert parent is not None
        yield Hand(pair, netlink, Sysctls(), parent, ear)
    ear.close()


def who_has(target: IPv4Address) -> bytes:
    """Return the far machine's ARP request."""
    mac = bytes.fromhex("020000000002")
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + IPv4Address("192.0.2.2").packed
    return b"\xff" * 6 + mac + b"\x08\x06" + body + bytes(6) + target.packed


def parent_settings(hand: Hand) -> dict[str, str | None]:
    """Return the parent's settings that could be changed."""
    keys = ("arp_ignore", "arp_announce", "rp_filter")
    return {key: hand.settings.get(f"ipv4/conf/hand0/{key}") for key in keys}


def test_create_and_remove_leave_nothing(hand: Hand) -> None:
    """The interface is made switched off, made again without harm, and removed with its traces."""
    before = parent_settings(hand)
    first = create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-7", VIRTUAL)
    second = create_macvlan(
        hand.netlink, hand.settings, hand.parent, "carp-8", VIRTUAL[:5] + b"\10"
    )
    assert (first.mac, first.up, first.kind) == (VIRTUAL, False, "macvlan")
    assert first.parent_index == hand.parent.index
    again = create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-7", VIRTUAL)
    assert again.index == first.index
    assert hand.settings.get("ipv4/conf/hand0/arp_ignore") == "1"
    assert remove_macvlan(hand.netlink, hand.settings, first) == []
    assert hand.settings.get("ipv4/conf/hand0/arp_ignore") == "1"
    assert remove_macvlan(hand.netlink, hand.settings, second) == []
    assert parent_settings(hand) == before
    assert link_by_name(hand.netlink, "carp-7") is None


def test_predecessors_interface_is_replaced(hand: Hand) -> None:
    """A macvlan of that name with another MAC is replaced; anything else is refused."""
    wrong = create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-7", VIRTUAL[:5] + b"\1")
    right = create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-7", VIRTUAL)
    assert right.index != wrong.index
    assert right.mac == VIRTUAL
    hand.pair.ip(hand.pair.near, "link", "add", "carp-9", "type", "bridge")
    with pytest.raises(LocalError, match="carp-9"):
        create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-9", VIRTUAL)


def test_silent_by_itself(hand: Hand) -> None:
    """Switched on without an address it sends nothing for two seconds: no MLD, no DAD, no RS."""
    # return 2048 if the source MAC begins with 00:00:5e:00, else 0
    program = struct.pack("=HBBI", 0x20, 0, 0, 6) + struct.pack("=HBBI", 0x15, 0, 1, 0x5E00)
    program += struct.pack("=HBBI", 0x06, 0, 0, 2048) + struct.pack("=HBBI", 0x06, 0, 0, 0)
    attach_filter(hand.ear._socket, program)
    link = create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-7", VIRTUAL)
    set_link_up(hand.netlink, link.index, up=True)
    assert select.select([hand.ear], [], [], 2)[0] == []
    assert addresses(hand.netlink, link.index) == []
    # The ear is not deaf: an address makes the interface speak.
    add_addresses(hand.netlink, plan_addresses(link.index, [IPv4Interface("192.0.2.10/24")]))
    hand.pair.output(hand.pair.near, "ping", "-c1", "-W1", "-Icarp-7", "192.0.2.2")
    assert select.select([hand.ear], [], [], 5)[0] == [hand.ear]


def test_only_the_virtual_mac_answers(hand: Hand) -> None:
    """Who asks for the shared address gets exactly one answer, from the virtual MAC."""
    link = create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-7", VIRTUAL)
    set_link_up(hand.netlink, link.index, up=True)
    present = addresses(hand.netlink)
    plan = plan_addresses(link.index, [IPv4Interface(f"{SHARED}/24")], present)
    assert add_addresses(hand.netlink, plan) == []
    answers: list[bytes] = []

    def answered() -> bool:
        # The carrier of a new interface may come a moment later: ask until it answers.
        hand.ear.send(who_has(SHARED))
        select.select([hand.ear], [], [], 0.1)
        answers.extend(item.frame for item in hand.ear.drain() if item.frame[21] == 2)
        return bool(answers)

    hand.pair.wait_for(answered)
    select.select([], [], [], 0.1)
    answers.extend(item.frame for item in hand.ear.drain() if item.frame[21] == 2)
    assert {frame[6:12] for frame in answers} == {VIRTUAL}
    assert {frame[22:28] for frame in answers} == {VIRTUAL}
    routes = hand.pair.output(hand.pair.near, "ip", "route")
    assert "carp-7" not in routes


def test_clients_reach_the_address(hand: Hand) -> None:
    """A client's ping of the shared address is answered, and the host reaches it itself."""
    link = create_macvlan(hand.netlink, hand.settings, hand.parent, "carp-7", VIRTUAL)
    set_link_up(hand.netlink, link.index, up=True)
    plan = plan_addresses(link.index, [IPv4Interface(f"{SHARED}/24")], addresses(hand.netlink))
    assert add_addresses(hand.netlink, plan) == []
    for namespace in (hand.pair.far, hand.pair.near):
        said = hand.pair.output(namespace, "ping", "-c3", "-i0.2", "-W2", str(SHARED))
        assert " 0% packet loss" in said


def test_names_fit() -> None:
    """Every name is short enough for the kernel."""
    assert macvlan_name(7) == "carp-7"
    assert len(macvlan_name(255, 9999)) <= 15
