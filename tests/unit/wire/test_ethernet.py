"""Ethernet frames, VLAN tags, and hardware addresses as text."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from carpool.base.errors import DecodeError, Reject
from carpool.wire import ethernet

DESTINATION = bytes.fromhex("01005e000012")
SOURCE = bytes.fromhex("00005e000107")


def test_untagged():
    """A frame comes back in its parts."""
    data = ethernet.build(DESTINATION, SOURCE, ethernet.ETHERTYPE_ARP, b"payload")
    assert data == DESTINATION + SOURCE + b"\x08\x06" + b"payload"
    assert ethernet.parse(data) == ethernet.Frame(DESTINATION, SOURCE, 0x0806, b"payload")


@pytest.mark.parametrize(
    ("tags", "vlans"),
    [("81000005", (5,)), ("8100e005", (5,)), ("88a8000a81000005", (10, 5))],
)
def test_tags_are_skipped(tags, vlans):
    """One or two VLAN tags are skipped; their identifiers are told, not their priority."""
    frame = ethernet.parse(DESTINATION + SOURCE + bytes.fromhex(tags) + b"\x08\x00" + b"payload")
    assert frame == ethernet.Frame(DESTINATION, SOURCE, 0x0800, b"payload", vlans)


def test_third_tag_is_not_followed():
    """Three tags are nothing for a host: the frame keeps the tag's own type."""
    frame = ethernet.parse(DESTINATION + SOURCE + bytes.fromhex("81000001" * 3) + b"\x08\x00")
    assert frame.ethertype == ethernet.ETHERTYPE_VLAN
    assert frame.vlans == (1, 1)


@pytest.mark.parametrize("data", ["", "00" * 13, "00" * 12 + "8100", "00" * 12 + "81000005" + "08"])
def test_length(data):
    """A header or a tag cut short is LENGTH."""
    with pytest.raises(DecodeError) as error:
        ethernet.parse(bytes.fromhex(data))
    assert error.value.reason is Reject.LENGTH


@pytest.mark.parametrize(
    ("group", "mac"),
    [
        (IPv4Address("224.0.0.18"), "01:00:5e:00:00:12"),
        (IPv4Address("239.255.1.2"), "01:00:5e:7f:01:02"),
        (IPv6Address("ff02::1:ff12:3456"), "33:33:ff:12:34:56"),
    ],
)
def test_multicast_mac(group, mac):
    """A group's hardware address takes the low 23 bits of IPv4, the low 32 of IPv6."""
    assert ethernet.format_mac(ethernet.multicast_mac(group)) == mac


@pytest.mark.parametrize("text", ["00:00:5e:00:01:07", "00-00-5E-00-01-07"])
def test_mac_text(text):
    """Both ways of writing a hardware address are read; one is written."""
    assert ethernet.parse_mac(text) == SOURCE
    assert ethernet.format_mac(SOURCE) == "00:00:5e:00:01:07"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00:00:5e:00:01",
        "00:00:5e:00:01:07:08",
        "0:0:5e:0:1:7",
        "00005e000107",
        "zz:00:5e:00:01:07",
        "00:00-5e:00:01:07",
    ],
)
def test_mac_text_refused(text):
    """Anything else is refused with a sentence."""
    with pytest.raises(ValueError, match="is not a hardware address"):
        ethernet.parse_mac(text)
