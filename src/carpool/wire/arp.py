"""ARP for IPv4 on Ethernet: one packet, and the whole frames that carpool sends.

    0               8               16              24            31
    +-------------------------------+-------------------------------+
    |   hardware type 1             |   protocol type 0x0800        |    28 bytes
    +---------------+---------------+-------------------------------+
    |   6           |   4           |   operation: 1 ask, 2 answer  |
    +---------------+---------------+-------------------------------+
    |   sender's hardware address (6), sender's IP address (4)      |
    |   target's hardware address (6), target's IP address (4)      |
    +---------------------------------------------------------------+

Source: RFC 826; RFC 5227 1.1 and 2.1.1 (probe), 2.3 (announcement).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

from carpool.base.errors import DecodeError, Reject
from carpool.wire import ethernet

PACKET_LENGTH: Final = 28

_ETHERNET_IPV4: Final = bytes.fromhex("000108000604")
_OPERATION: Final = struct.Struct("!H6s4s6s4s")
_UNSPECIFIED: Final = IPv4Address(0)


class ArpOperation(IntEnum):
    """What an ARP packet is. Other numbers belong to protocols that nobody speaks to us."""

    REQUEST = 1
    REPLY = 2


@dataclass(frozen=True, slots=True)
class ArpPacket:
    """One ARP packet; hardware addresses are 6 bytes."""

    op: ArpOperation
    sender_mac: bytes
    sender_ip: IPv4Address
    target_mac: bytes
    target_ip: IPv4Address


def build(packet: ArpPacket) -> bytes:
    """Return the 28 bytes of `packet`."""
    assert len(packet.sender_mac) == len(packet.target_mac) == ethernet.MAC_LENGTH
    return _ETHERNET_IPV4 + _OPERATION.pack(
        packet.op,
        packet.sender_mac,
        packet.sender_ip.packed,
        packet.target_mac,
        packet.target_ip.packed,
    )


def parse(payload: bytes) -> ArpPacket:
    """Return the ARP packet in an Ethernet payload; padding behind it is ignored.

    Raises DecodeError(ARP_FORMAT): too short, not IPv4 on Ethernet, neither request nor reply.
    A group bit in the sender's hardware address is accepted: CARP's ip balancing answers so.
    """
    if len(payload) < PACKET_LENGTH:
        raise DecodeError(Reject.ARP_FORMAT, f"{len(payload)} bytes")
    if not payload.startswith(_ETHERNET_IPV4):
        raise DecodeError(Reject.ARP_FORMAT, "not IPv4 on Ethernet")
    op, sender_mac, sender_ip, target_mac, target_ip = _OPERATION.unpack_from(
        payload, len(_ETHERNET_IPV4)
    )
    if op not in (ArpOperation.REQUEST, ArpOperation.REPLY):
        raise DecodeError(Reject.ARP_FORMAT, f"operation {op}")
    return ArpPacket(
        ArpOperation(op), sender_mac, IPv4Address(sender_ip), target_mac, IPv4Address(target_ip)
    )


def gratuitous(mac: bytes, address: IPv4Address) -> bytes:
    """Return the broadcast frame that says: `address` is at `mac` (RFC 5227 announcement).

    A request, because hosts and switches learn from requests that they need not answer. The
    target's hardware address is zero as the BSDs send it; nobody may read it there.
    """
    return _broadcast(ArpPacket(ArpOperation.REQUEST, mac, address, ethernet.MAC_ZERO, address))


def probe(mac: bytes, address: IPv4Address) -> bytes:
    """Return the broadcast frame that asks who has `address` and teaches nobody anything."""
    return who_has(mac, _UNSPECIFIED, address)


def who_has(mac: bytes, own_address: IPv4Address, address: IPv4Address) -> bytes:
    """Return the broadcast frame by which the host at `mac` asks who has `address`."""
    packet = ArpPacket(ArpOperation.REQUEST, mac, own_address, ethernet.MAC_ZERO, address)
    return _broadcast(packet)


def reply(mac: bytes, address: IPv4Address, asker_mac: bytes, asker_address: IPv4Address) -> bytes:
    """Return the frame that tells one asker: `address` is at `mac`."""
    packet = ArpPacket(ArpOperation.REPLY, mac, address, asker_mac, asker_address)
    return ethernet.build(asker_mac, mac, ethernet.ETHERTYPE_ARP, build(packet))


def _broadcast(packet: ArpPacket) -> bytes:
    return ethernet.build(
        ethernet.MAC_BROADCAST, packet.sender_mac, ethernet.ETHERTYPE_ARP, build(packet)
    )
