"""Ethernet II frames, their hardware addresses as text, and the group addresses of IP multicast.

    0                   6                   12         14
    +-------------------+-------------------+----------+---------
    | destination       | source            | type     | payload     no tag
    +-------------------+-------------------+----------+---------
    | destination       | source            | 8100 tci | type | payload   one 802.1Q tag

Source: IEEE 802.3 (Ethernet II), IEEE 802.1Q 9.4 (tags), RFC 1112 6.4 and RFC 2464 7 (multicast).
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from carpool.base.errors import DecodeError, Reject

HEADER_LENGTH: Final = 14
ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_IPV6: Final = 0x86DD
ETHERTYPE_VLAN: Final = 0x8100
ETHERTYPE_VLAN_OUTER: Final = 0x88A8
TAGS_MAX: Final = 2  # customer tag in a provider tag; more is nothing that a host is handed

MAC_LENGTH: Final = 6
MAC_BROADCAST: Final = b"\xff" * MAC_LENGTH
MAC_ZERO: Final = bytes(MAC_LENGTH)

_TAGS: Final = frozenset((ETHERTYPE_VLAN, ETHERTYPE_VLAN_OUTER))
_MAC_TEXT: Final = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}", re.ASCII)
_HEADER: Final = struct.Struct("!6s6sH")
_TAG: Final = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame without its tags; padding is still part of the payload."""

    destination: bytes
    source: bytes
    ethertype: int  # of the payload, behind the tags
    payload: bytes
    vlans: tuple[int, ...] = ()  # VLAN identifiers, outermost first


def build(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    """Return an untagged frame; the driver or the card pads it to 60 bytes."""
    assert len(destination) == len(source) == MAC_LENGTH
    return _HEADER.pack(destination, source, ethertype) + payload


def parse(frame: bytes) -> Frame:
    """Return the frame's parts.

    frame: from the destination address on, without preamble and check sequence.
    Raises DecodeError(LENGTH) when a header is cut short.
    """
    if len(frame) < HEADER_LENGTH:
        raise DecodeError(Reject.LENGTH, f"Ethernet frame of {len(frame)} bytes")
    destination, source, ethertype = _HEADER.unpack_from(frame)
    offset = HEADER_LENGTH
    vlans: tuple[int, ...] = ()
    while ethertype in _TAGS and len(vlans) < TAGS_MAX:
        if len(frame) < offset + _TAG.size:
            raise DecodeError(Reject.LENGTH, "Ethernet frame ends inside a VLAN tag")
        control, ethertype = _TAG.unpack_from(frame, offset)
        vlans += (control & 0x0FFF,)
        offset += _TAG.size
    return Frame(destination, source, ethertype, frame[offset:], vlans)


def multicast_mac(group: IPv4Address | IPv6Address) -> bytes:
    """Return the hardware address that frames to the multicast address `group` carry."""
    if isinstance(group, IPv4Address):
        return b"\x01\x00\x5e" + (int(group) & 0x7FFFFF).to_bytes(3, "big")
    return b"\x33\x33" + group.packed[12:]


def format_mac(mac: bytes) -> str:
    """Return a hardware address of 6 bytes as people write it: "00:00:5e:00:01:07"."""
    assert len(mac) == MAC_LENGTH
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Return the 6 bytes of a hardware address written with colons or dashes, in either case.

    Raises ValueError with a sentence for the operator.
    """
    if _MAC_TEXT.fullmatch(text.lower()) is None:
        raise ValueError(f'{text!r} is not a hardware address (write "00:00:5e:00:01:07")')
    return bytes.fromhex(text.replace("-", "").replace(":", ""))
