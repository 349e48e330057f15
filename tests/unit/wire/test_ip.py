"""IPv4 and IPv6 headers: every reason to refuse one, and padding."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from carpool.base.errors import DecodeError, Reject
from carpool.wire import ip
from carpool.wire.checksum import internet_checksum

V4 = ip.Ipv4Packet(IPv4Address("192.0.2.1"), IPv4Address("224.0.0.18"), 112, b"hello", tos=0x10)
V6 = ip.Ipv6Packet(IPv6Address("fe80::1"), IPv6Address("ff02::12"), 112, b"hello")
V4_BYTES = ip.build_v4(V4)
V6_BYTES = ip.build_v6(V6)


def header_changed(offset, value):
    """Return V4_BYTES with a header byte changed and the header's checksum made right again."""
    data = bytearray(V4_BYTES)
    data[offset] = value
    data[10:12] = b"\0\0"
    data[10:12] = internet_checksum(bytes(data[:20])).to_bytes(2, "big")
    return bytes(data)


def reason_v4(data, protocol=112):
    with pytest.raises(DecodeError) as error:
        ip.parse_v4(data, protocol)
    return error.value.reason


def reason_v6(data, next_header=112):
    with pytest.raises(DecodeError) as error:
        ip.parse_v6(data, next_header)
    return error.value.reason


def test_v4_comes_back():
    """What was built is parsed, Ethernet padding cut off."""
    assert ip.parse_v4(V4_BYTES + bytes(21), 112) == V4
    assert V4_BYTES[:2] + V4_BYTES[6:10] == bytes.fromhex("4510" + "4000ff70")


def test_v4_options_are_dropped():
    """A header with options is read to its end."""
    header = bytearray(V4_BYTES[:20]) + bytes.fromhex("94040000")
    header[0] = 0x46
    header[2:4] = (29).to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = internet_checksum(bytes(header)).to_bytes(2, "big")
    assert ip.parse_v4(bytes(header) + b"hello", 112).payload == b"hello"


@pytest.mark.parametrize("length", [0, 19, 24])
def test_v4_length(length):
    """Fewer bytes than a header, or than the header promises, are LENGTH."""
    assert reason_v4(V4_BYTES[:length]) is Reject.LENGTH


def test_v4_total_length_below_header():
    """A total length smaller than the header is LENGTH."""
    assert reason_v4(header_changed(3, 19)) is Reject.LENGTH


@pytest.mark.parametrize("first", [0x65, 0x05, 0x44, 0x40])
def test_v4_header(first):
    """Another version or a header of less than 20 bytes is IP_HEADER."""
    assert reason_v4(header_changed(0, first)) is Reject.IP_HEADER


def test_v4_header_longer_than_packet():
    """Options that reach behind the packet are LENGTH."""
    assert reason_v4(header_changed(0, 0x4F)) is Reject.LENGTH


@pytest.mark.parametrize("offset", [1, 4, 8, 10, 12, 19])
def test_v4_checksum(offset):
    """A header byte changed on the way is IP_CHECKSUM."""
    data = bytearray(V4_BYTES)
    data[offset] ^= 0x01
    assert reason_v4(bytes(data)) is Reject.IP_CHECKSUM


@pytest.mark.parametrize(("offset", "value"), [(6, 0x20), (6, 0x1F), (7, 0x01)])
def test_v4_fragment(offset, value):
    """More fragments to come, or an offset, is FRAGMENT."""
    assert reason_v4(header_changed(offset, value)) is Reject.FRAGMENT


def test_v4_may_be_fragmented():
    """A packet that merely could be fragmented is accepted."""
    packet = replace(V4, dont_fragment=False)
    assert ip.parse_v4(ip.build_v4(packet), 112) == packet


def test_v4_protocol():
    """Another protocol than asked for is PROTOCOL."""
    assert reason_v4(V4_BYTES, 51) is Reject.PROTOCOL


def test_v6_comes_back():
    """What was built is parsed, padding cut off, class and label kept."""
    packet = replace(V6, traffic_class=0xC0, flow_label=0x3F314)
    assert ip.parse_v6(ip.build_v6(packet) + bytes(9), 112) == packet


@pytest.mark.parametrize("length", [0, 39, 44])
def test_v6_length(length):
    """Fewer bytes than a header, or than the header promises, are LENGTH."""
    assert reason_v6(V6_BYTES[:length]) is Reject.LENGTH


def test_v6_header():
    """Another version is IP_HEADER."""
    assert reason_v6(b"\x45" + V6_BYTES[1:]) is Reject.IP_HEADER


@pytest.mark.parametrize("next_header", [0, 43, 44, 60, 58])
def test_v6_protocol(next_header):
    """Extension headers are not followed: they are PROTOCOL like anything else not asked for."""
    assert reason_v6(V6_BYTES[:6] + bytes((next_header,)) + V6_BYTES[7:]) is Reject.PROTOCOL


def test_ttl():
    """Only 255 proves that no router forwarded the packet."""
    ip.check_ttl(255)
    with pytest.raises(DecodeError) as error:
        ip.check_ttl(254)
    assert error.value.reason is Reject.TTL
