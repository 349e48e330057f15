"""IPv4 and IPv6 headers around one payload: what carpool sends itself and what it accepts.

    0       4       8               16    19            24          31
    +-------+-------+---------------+-------------------------------+
    |  4    |  IHL  |      TOS      |         total length          |    IPv4, 20 bytes
    +-------+-------+---------------+-----+-------------------------+    and options
    |        identification         | 0DM |     fragment offset     |
    +---------------+---------------+-----+-------------------------+
    |      TTL      |   protocol    |        header checksum        |
    +---------------+---------------+-------------------------------+
    |                        source address                         |
    +---------------------------------------------------------------+
    |                      destination address                      |
    +---------------------------------------------------------------+

    +-------+---------------+---------------------------------------+
    |  6    | traffic class |              flow label               |    IPv6, 40 bytes
    +-------+---------------+-------+---------------+---------------+
    |        payload length         |  next header  |   hop limit   |
    +-------------------------------+---------------+---------------+
    |            source address, destination address: 16 each       |

Source: RFC 791 3.1, RFC 8200 3. Neither fragments are put together nor extension headers followed:
everything we listen to fits one frame, and a router in between is what we must not hear.
Bytes behind the header's own length (Ethernet padding) are cut off.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from carpool.base.errors import DecodeError, Reject
from carpool.wire.checksum import internet_checksum, is_valid

IpAddress: TypeAlias = IPv4Address | IPv6Address

PROTOCOL_ICMPV6: Final = 58
PROTOCOL_CARP: Final = 112  # shared with VRRP
TTL_LINK: Final = 255  # a packet that still has it was not forwarded (RFC 5082)
HEADER_V4_LENGTH: Final = 20
HEADER_V6_LENGTH: Final = 40

_LENGTH_MAX: Final = 0xFFFF
_DONT_FRAGMENT: Final = 0x4000
_FRAGMENT: Final = 0x3FFF  # more fragments, or an offset
_HEADER_V4: Final = struct.Struct("!BBHHHBBH4s4s")
_HEADER_V6: Final = struct.Struct("!IHBB16s16s")


@dataclass(frozen=True, slots=True)
class Ipv4Packet:
    """An IPv4 packet that is whole; its options are dropped."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    payload: bytes
    ttl: int = TTL_LINK
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = True


@dataclass(frozen=True, slots=True)
class Ipv6Packet:
    """An IPv6 packet without extension headers."""

    source: IPv6Address
    destination: IPv6Address
    next_header: int
    payload: bytes
    hop_limit: int = TTL_LINK
    traffic_class: int = 0
    flow_label: int = 0


def build_v4(packet: Ipv4Packet) -> bytes:
    """Return the packet's bytes, header checksum filled in."""
    length = HEADER_V4_LENGTH + len(packet.payload)
    assert length <= _LENGTH_MAX
    header = _HEADER_V4.pack(
        0x45,
        packet.tos,
        length,
        packet.identification,
        _DONT_FRAGMENT if packet.dont_fragment else 0,
        packet.ttl,
        packet.protocol,
        0,
        packet.source.packed,
        packet.destination.packed,
    )
    checksum = internet_checksum(header).to_bytes(2, "big")
    return header[:10] + checksum + header[12:] + packet.payload


def parse_v4(data: bytes, protocol: int) -> Ipv4Packet:
    """Return the IPv4 packet at the start of `data`, which must carry `protocol`.

    Raises DecodeError(reason): LENGTH, IP_HEADER, LENGTH, FRAGMENT, PROTOCOL, IP_CHECKSUM, in that
    order. The TTL is the caller's to judge (`check_ttl`).
    """
    if len(data) < HEADER_V4_LENGTH:
        raise DecodeError(Reject.LENGTH, f"IPv4 packet of {len(data)} bytes")
    first, tos, length, identification, fragment, ttl, carried, _, source, destination = (
        _HEADER_V4.unpack_from(data)
    )
    header_length = (first & 0x0F) * 4
    if first >> 4 != 4 or header_length < HEADER_V4_LENGTH:
        raise DecodeError(Reject.IP_HEADER, f"first byte {first:#04x}")
    if not header_length <= length <= len(data):
        raise DecodeError(Reject.LENGTH, f"IPv4 says {length} bytes, {len(data)} are there")
    if fragment & _FRAGMENT:
        raise DecodeError(Reject.FRAGMENT, f"flags and offset {fragment:#06x}")
    if carried != protocol:
        raise DecodeError(Reject.PROTOCOL, f"protocol {carried}, not {protocol}")
    if not is_valid(data[:header_length]):
        raise DecodeError(Reject.IP_CHECKSUM)
    return Ipv4Packet(
        IPv4Address(source),
        IPv4Address(destination),
        protocol,
        data[header_length:length],
        ttl,
        tos,
        identification,
        bool(fragment & _DONT_FRAGMENT),
    )


def build_v6(packet: Ipv6Packet) -> bytes:
    """Return the packet's bytes."""
    assert len(packet.payload) <= _LENGTH_MAX
    assert packet.traffic_class <= 0xFF
    assert packet.flow_label <= 0xFFFFF
    header = _HEADER_V6.pack(
        6 << 28 | packet.traffic_class << 20 | packet.flow_label,
        len(packet.payload),
        packet.next_header,
        packet.hop_limit,
        packet.source.packed,
        packet.destination.packed,
    )
    return header + packet.payload


def parse_v6(data: bytes, next_header: int) -> Ipv6Packet:
    """Return the IPv6 packet at the start of `data`, which must carry `next_header` directly.

    Raises DecodeError(reason): LENGTH, IP_HEADER, LENGTH, PROTOCOL, in that order. The hop limit is
    the caller's to judge (`check_ttl`).
    """
    if len(data) < HEADER_V6_LENGTH:
        raise DecodeError(Reject.LENGTH, f"IPv6 packet of {len(data)} bytes")
    first, length, carried, hop_limit, source, destination = _HEADER_V6.unpack_from(data)
    if first >> 28 != 6:
        raise DecodeError(Reject.IP_HEADER, f"version {first >> 28}")
    end = HEADER_V6_LENGTH + length
    if end > len(data):
        raise DecodeError(Reject.LENGTH, f"IPv6 says {end} bytes, {len(data)} are there")
    if carried != next_header:
        raise DecodeError(Reject.PROTOCOL, f"next header {carried}, not {next_header}")
    return Ipv6Packet(
        IPv6Address(source),
        IPv6Address(destination),
        next_header,
        data[HEADER_V6_LENGTH:end],
        hop_limit,
        first >> 20 & 0xFF,
        first & 0xFFFFF,
    )


def check_ttl(ttl: int) -> None:
    """Refuse a TTL or hop limit that says a router forwarded the packet.

    Raises DecodeError(TTL). Source: RFC 5082 3; every CARP receiver asks this of multicast.
    """
    if ttl != TTL_LINK:
        raise DecodeError(Reject.TTL, f"{ttl}, not {TTL_LINK}: it came through a router")
