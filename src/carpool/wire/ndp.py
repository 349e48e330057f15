"""IPv6 neighbour discovery: solicitations and advertisements, and the frames that carpool sends.

    0               8               16              24            31
    +---------------+---------------+-------------------------------+
    |  135 or 136   |   code 0      |           checksum            |    24 bytes
    +-+-+-+---------+---------------+-------------------------------+    and options
    |R|S|O|   (flags only in 136)                                   |
    +-+-+-+---------------------------------------------------------+
    |                     target address, 16 bytes                  |
    +---------------+---------------+-------------------------------+
    |  1 or 2       |   length 1    |  link-layer address, 6 bytes  |    option, 8 bytes
    +---------------+---------------+-------------------------------+

Source: RFC 4861 4.3, 4.4, 4.6.1 (formats), 7.1.1, 7.1.2 (checks), 7.2.6 (unsolicited); RFC 4862
5.4.2 (probe); RFC 4291 2.7.1 (solicited-node address); RFC 2464 7. The RFCs write "neighbor".
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, TypeAlias

from carpool.base.errors import DecodeError, Reject
from carpool.wire import ethernet, ip
from carpool.wire.checksum import internet_checksum, is_valid, pseudo_header_v6

TYPE_SOLICITATION: Final = 135
TYPE_ADVERTISEMENT: Final = 136
ALL_NODES: Final = IPv6Address("ff02::1")

_OPTION_SOURCE: Final = 1
_OPTION_TARGET: Final = 2
_OPTION_UNIT: Final = 8  # an option's length counts these
_ROUTER: Final = 1 << 31
_SOLICITED: Final = 1 << 30
_OVERRIDE: Final = 1 << 29
_MESSAGE: Final = struct.Struct("!BBHI16s")
_UNSPECIFIED: Final = IPv6Address(0)
_SOLICITED_NODE: Final = bytes.fromhex("ff0200000000000000000001ff")


@dataclass(frozen=True, slots=True)
class NeighborSolicitation:
    """Who has `target`? From the unspecified address it is a probe that teaches nobody anything."""

    source: IPv6Address
    destination: IPv6Address
    target: IPv6Address
    link_layer: bytes | None = None  # the asker's hardware address


@dataclass(frozen=True, slots=True)
class NeighborAdvertisement:
    """`target` is at `link_layer`."""

    source: IPv6Address
    destination: IPv6Address
    target: IPv6Address
    link_layer: bytes | None = None
    router: bool = False
    solicited: bool = False
    override: bool = False


NeighborMessage: TypeAlias = NeighborSolicitation | NeighborAdvertisement


def solicited_node(address: IPv6Address) -> IPv6Address:
    """Return the multicast address on which the owner of `address` listens for solicitations."""
    return IPv6Address(_SOLICITED_NODE + address.packed[13:])


def build(message: NeighborMessage) -> bytes:
    """Return the IPv6 packet that carries `message`: hop limit 255, ICMPv6 checksum filled in."""
    if isinstance(message, NeighborSolicitation):
        kind, option, flags = TYPE_SOLICITATION, _OPTION_SOURCE, 0
    else:
        kind, option = TYPE_ADVERTISEMENT, _OPTION_TARGET
        flags = (
            message.router * _ROUTER | message.solicited * _SOLICITED | message.override * _OVERRIDE
        )
    body = _MESSAGE.pack(kind, 0, 0, flags, message.target.packed)
    if message.link_layer is not None:
        assert len(message.link_layer) == ethernet.MAC_LENGTH
        body += bytes((option, 1)) + message.link_layer
    checksum = internet_checksum(_pseudo_header(message.source, message.destination, body) + body)
    payload = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    packet = ip.Ipv6Packet(message.source, message.destination, ip.PROTOCOL_ICMPV6, payload)
    return ip.build_v6(packet)


def parse(packet: ip.Ipv6Packet) -> NeighborMessage:
    """Return the solicitation or advertisement that `packet` carries.

    packet: from `ip.parse_v6(data, ip.PROTOCOL_ICMPV6)`.
    Raises DecodeError(NDP_FORMAT) with the rule that was broken, RFC 4861 7.1.1 and 7.1.2.
    """
    if packet.hop_limit != ip.TTL_LINK:
        raise _malformed(f"hop limit {packet.hop_limit}")
    payload = packet.payload
    if len(payload) < _MESSAGE.size:
        raise _malformed(f"{len(payload)} bytes")
    kind, code, _, flags, target_bytes = _MESSAGE.unpack_from(payload)
    if kind not in (TYPE_SOLICITATION, TYPE_ADVERTISEMENT) or code != 0:
        raise _malformed(f"type {kind}, code {code}")
    target = IPv6Address(target_bytes)
    if target.is_multicast:
        raise _malformed("the target is a multicast address")
    if not is_valid(_pseudo_header(packet.source, packet.destination, payload) + payload):
        raise _malformed("checksum")
    options = payload[_MESSAGE.size :]
    if kind == TYPE_SOLICITATION:
        link_layer = _link_layer(options, _OPTION_SOURCE)
        if packet.source == _UNSPECIFIED:
            _check_probe(packet.destination, link_layer)
        return NeighborSolicitation(packet.source, packet.destination, target, link_layer)
    if flags & _SOLICITED and packet.destination.is_multicast:
        raise _malformed("an answer to one asker was sent to many")
    return NeighborAdvertisement(
        packet.source,
        packet.destination,
        target,
        _link_layer(options, _OPTION_TARGET),
        router=bool(flags & _ROUTER),
        solicited=bool(flags & _SOLICITED),
        override=bool(flags & _OVERRIDE),
    )


def unsolicited(mac: bytes, address: IPv6Address, *, router: bool = False) -> bytes:
    """Return the frame that tells all nodes: `address` is at `mac`, forget what you knew.

    router: whether this host forwards IPv6; hosts drop a default router that takes the flag back.
    """
    message = NeighborAdvertisement(
        address, ALL_NODES, address, mac, router=router, solicited=False, override=True
    )
    return _multicast_frame(mac, message)


def probe(mac: bytes, address: IPv6Address) -> bytes:
    """Return the frame that asks whether anyone has `address`, as duplicate detection asks."""
    message = NeighborSolicitation(_UNSPECIFIED, solicited_node(address), address)
    return _multicast_frame(mac, message)


def solicitation(mac: bytes, own_address: IPv6Address, address: IPv6Address) -> bytes:
    """Return the frame by which the host at `mac` asks who has `address`."""
    message = NeighborSolicitation(own_address, solicited_node(address), address, mac)
    return _multicast_frame(mac, message)


def _multicast_frame(mac: bytes, message: NeighborMessage) -> bytes:
    destination = ethernet.multicast_mac(message.destination)
    return ethernet.build(destination, mac, ethernet.ETHERTYPE_IPV6, build(message))


def _pseudo_header(source: IPv6Address, destination: IPv6Address, payload: bytes) -> bytes:
    return pseudo_header_v6(source.packed, destination.packed, len(payload), ip.PROTOCOL_ICMPV6)


def _check_probe(destination: IPv6Address, link_layer: bytes | None) -> None:
    """Judge a solicitation from the unspecified address, RFC 4861 7.1.1."""
    if not destination.packed.startswith(_SOLICITED_NODE):
        raise _malformed("a probe must go to a solicited-node address")
    if link_layer is not None:
        raise _malformed("a probe must not carry a source link-layer address")


def _link_layer(options: bytes, wanted: int) -> bytes | None:
    """Return the first Ethernet address in an option `wanted`; check every option's length."""
    found = None
    offset = 0
    while offset < len(options):
        length = options[offset + 1] * _OPTION_UNIT if offset + 1 < len(options) else 0
        if length == 0 or offset + length > len(options):
            raise _malformed("an option's length")
        if options[offset] == wanted and length == _OPTION_UNIT and found is None:
            found = options[offset + 2 : offset + length]
        offset += length
    return found


def _malformed(detail: str) -> DecodeError:
    return DecodeError(Reject.NDP_FORMAT, detail)
