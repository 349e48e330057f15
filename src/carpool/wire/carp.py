"""CARP version 2 advertisements: bytes, authentication, and the times that their fields mean.

    0       4       8               16              24            31
    +-------+-------+---------------+---------------+---------------+
    |  2    | type 1|     vhid      |    advskew    |  authlen 7    |    36 bytes,
    +-------+-------+---------------+---------------+---------------+    IP protocol 112
    |    demote     |    advbase    |           checksum            |
    +---------------+---------------+-------------------------------+
    |                            counter                            |
    |                          (64 bit, any)                        |
    +---------------------------------------------------------------+
    |                    HMAC-SHA1, 20 bytes                        |
    +---------------------------------------------------------------+

Source: OpenBSD sys/netinet/ip_carp.{h,c}; UCarp src/{ip_carp.h,carp.c}; FreeBSD and NetBSD alike.

The checksum covers these 36 bytes and nothing else, for IPv4 and IPv6. The HMAC covers version,
type, vhid, the group's addresses and the counter: neither advbase nor advskew nor demote, so anyone
on the wire can change those. Bytes behind the 36 are kept and not judged, as every known receiver
does.

The IP protocol number is VRRP's as well. VRRP version 3 shows by its version; VRRP version 2 has
its number of addresses where CARP has authlen. Seven addresses in VRRP version 2 look like CARP;
such a packet then fails the checksum or the HMAC.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from carpool.base.errors import DecodeError, LocalError, Reject
from carpool.base.time import NS_PER_S
from carpool.wire import ethernet, ip
from carpool.wire.checksum import internet_checksum, is_valid

ADVERTISEMENT_LENGTH: Final = 36
HMAC_LENGTH: Final = 20
AUTHLEN: Final = 7  # the counter and the HMAC in words of 4 bytes; no receiver checks it
CARP_KEY_LENGTH_MAX: Final = 20
UCARP_KEY_LENGTH_MAX: Final = 19  # ucarp keeps a NUL in the same 20 bytes

BOW_OUT_ADVBASE: Final = 255
BOW_OUT_ADVSKEW: Final = 255
BOW_OUT: Final = (BOW_OUT_ADVBASE, BOW_OUT_ADVSKEW)  # "I stop": too slow for every backup

GROUP_V4: Final = IPv4Address("224.0.0.18")
GROUP_V6: Final = IPv6Address("ff02::12")
GROUP_V4_MAC: Final = ethernet.multicast_mac(GROUP_V4)
GROUP_V6_MAC: Final = ethernet.multicast_mac(GROUP_V6)
TOS: Final = 0x10  # low delay, as OpenBSD and ucarp send

SKEW_STEP_NS: Final = NS_PER_S // 256  # exactly 3,906,250 ns

_VERSION: Final = 2
_TYPE: Final = 1
_VERSION_VRRP3: Final = 3
_VRRP_HEADER_LENGTH: Final = 8
_VRRP2_AUTHENTICATION_LENGTH: Final = 8
_VRRP2_AUTHENTICATION_TYPE_MAX: Final = 2
_FIELDS: Final = struct.Struct("!BBBBBBHQ20s")
_SHA1_BLOCK_LENGTH: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_NEVER_HASHED: Final = frozenset((IPv4Address(0), IPv4Address(0xFFFFFFFF)))


class Variant(StrEnum):
    """Two ways to hash the IPv6 addresses; they differ where one of them is link-local."""

    NOV6LL = "nov6ll"  # without the link-local ones: OpenBSD sends it, and so do we
    ORIG = "orig"  # with them: FreeBSD and NetBSD


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One CARP advertisement as it is on the wire, its checksum aside."""

    vhid: int
    advbase: int
    advskew: int
    demote: int
    counter: int  # 64 bit
    hmac: bytes
    authlen: int = AUTHLEN
    trailer: bytes = b""


class Authenticator:
    """The key and the addresses of one group: signs and judges counters.

    All that stays the same from packet to packet is hashed once, here.
    """

    __slots__ = ("_inner", "_outer", "vhid")

    def __init__(
        self,
        key: bytes,
        vhid: int,
        v4: Iterable[IPv4Address] = (),
        v6: Iterable[IPv6Address] = (),
        lladdr: bytes | None = None,
    ) -> None:
        """Prepare to sign for a group; the order of the addresses does not matter.

        key: the password's bytes, at most 20; shorter ones are padded with zeros.
        lladdr: 6 bytes, only where OpenBSD peers have a link-layer address that was set by hand.
        Raises LocalError when the key is too long.
        """
        if len(key) > CARP_KEY_LENGTH_MAX:
            raise LocalError(
                f"the CARP key has {len(key)} bytes, at most {CARP_KEY_LENGTH_MAX} are possible"
            )
        assert 1 <= vhid <= 255
        assert lladdr is None or len(lladdr) == ethernet.MAC_LENGTH
        self.vhid = vhid
        block = key.ljust(_SHA1_BLOCK_LENGTH, b"\0")
        self._outer = _sha1(block.translate(_OUTER_PAD))
        start = block.translate(_INNER_PAD) + bytes((_VERSION, _TYPE)) + (lladdr or b"")
        start += bytes((vhid,)) + b"".join(
            address.packed for address in sorted(set(v4) - _NEVER_HASHED)
        )
        sorted_v6 = sorted({IPv6Address(address.packed) for address in v6})  # without their scopes
        nov6ll = b"".join(address.packed for address in sorted_v6 if not address.is_link_local)
        orig = b"".join(address.packed for address in sorted_v6)
        self._inner = {Variant.NOV6LL: _sha1(start + nov6ll)}
        if orig != nov6ll:
            self._inner[Variant.ORIG] = _sha1(start + orig)

    def sign(self, counter: int, variant: Variant = Variant.NOV6LL) -> bytes:
        """Return the 20 bytes of HMAC for `counter` (64 bit)."""
        inner = self._inner.get(variant) or self._inner[Variant.NOV6LL]
        return self._finish(inner, counter)

    def matches(self, counter: int, hmac: bytes) -> bool:
        """Tell whether `hmac` is right for `counter` in either variant, in constant time each."""
        for inner in self._inner.values():
            if compare_digest(self._finish(inner, counter), hmac):
                return True
        return False

    def _finish(self, prepared: "hashlib._Hash", counter: int) -> bytes:
        inner = prepared.copy()
        inner.update(counter.to_bytes(8, "big"))
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


def advertise(
    authenticator: Authenticator,
    *,
    advbase: int,
    advskew: int,
    counter: int,
    demote: int = 0,
    variant: Variant = Variant.NOV6LL,
) -> Advertisement:
    """Return a signed advertisement of the authenticator's group."""
    hmac = authenticator.sign(counter, variant)
    return Advertisement(authenticator.vhid, advbase, advskew, demote, counter, hmac)


def encode(advertisement: Advertisement) -> bytes:
    """Return the IP payload: 36 bytes and the trailer, checksum filled in over the 36."""
    assert 1 <= advertisement.vhid <= 255
    assert len(advertisement.hmac) == HMAC_LENGTH
    data = _FIELDS.pack(
        _VERSION << 4 | _TYPE,
        advertisement.vhid,
        advertisement.advskew,
        advertisement.authlen,
        advertisement.demote,
        advertisement.advbase,
        0,
        advertisement.counter,
        advertisement.hmac,
    )
    checksum = internet_checksum(data).to_bytes(2, "big")
    return data[:6] + checksum + data[8:] + advertisement.trailer


def decode(payload: bytes) -> Advertisement:
    """Return the advertisement in `payload`, which nobody has authenticated yet (`verify`).

    payload: IP payload, 36 bytes and perhaps a trailer; network order.
    Raises DecodeError(reason): VRRP, LENGTH, CHECKSUM, VHID, VERSION, TYPE, in that order; VRRP
    comes first because its packets are shorter and would all be called LENGTH.
    Source: OpenBSD sys/netinet/ip_carp.c, carp_proto_input_if and carp_proto_input_c.
    """
    if _is_vrrp(payload):
        raise DecodeError(Reject.VRRP, f"version {payload[0] >> 4}, virtual router {payload[1]}")
    if len(payload) < ADVERTISEMENT_LENGTH:
        raise DecodeError(Reject.LENGTH, f"advertisement of {len(payload)} bytes")
    if not is_valid(payload[:ADVERTISEMENT_LENGTH]):
        raise DecodeError(Reject.CHECKSUM)
    first, vhid, advskew, authlen, demote, advbase, _, counter, hmac = _FIELDS.unpack_from(payload)
    if vhid == 0:
        raise DecodeError(Reject.VHID, "vhid 0")
    if first >> 4 != _VERSION:
        raise DecodeError(Reject.VERSION, f"version {first >> 4}")
    if first & 0x0F != _TYPE:
        raise DecodeError(Reject.TYPE, f"type {first & 0x0F}")
    trailer = payload[ADVERTISEMENT_LENGTH:]
    return Advertisement(vhid, advbase, advskew, demote, counter, hmac, authlen, trailer)


def verify(advertisement: Advertisement, authenticator: Authenticator) -> None:
    """Refuse an advertisement that the group's key and addresses did not make.

    Any counter is accepted: OpenBSD never changes it, others draw it anew for every packet.
    Raises DecodeError(reason): VHID (the authenticator is another group's), HMAC.
    """
    if advertisement.vhid != authenticator.vhid:
        raise DecodeError(Reject.VHID, f"{advertisement.vhid}, not {authenticator.vhid}")
    if not authenticator.matches(advertisement.counter, advertisement.hmac):
        raise DecodeError(Reject.HMAC, "another password, other addresses, or forged")


def packet(payload: bytes, source: ip.IpAddress, destination: ip.IpAddress | None = None) -> bytes:
    """Return the IP packet around an encoded advertisement, to the multicast group by default.

    destination: a peer's address of the source's family, where adverts are unicast.
    """
    match source, destination:
        case IPv4Address(), None | IPv4Address():
            to_v4 = destination or GROUP_V4
            return ip.build_v4(ip.Ipv4Packet(source, to_v4, ip.PROTOCOL_CARP, payload, tos=TOS))
        case IPv6Address(), None | IPv6Address():
            to_v6 = destination or GROUP_V6
            return ip.build_v6(ip.Ipv6Packet(source, to_v6, ip.PROTOCOL_CARP, payload))
        case _:
            raise LocalError(f"no advertisement goes from {source} to {destination}")


def multicast_frame(payload: bytes, mac: bytes, source: ip.IpAddress) -> bytes:
    """Return the whole Ethernet frame around an encoded advertisement, to the multicast group.

    mac: the sender's, either the interface's or `virtual_mac`.
    """
    if isinstance(source, IPv4Address):
        destination_mac, ethertype = GROUP_V4_MAC, ethernet.ETHERTYPE_IPV4
    else:
        destination_mac, ethertype = GROUP_V6_MAC, ethernet.ETHERTYPE_IPV6
    return ethernet.build(destination_mac, mac, ethertype, packet(payload, source))


def virtual_mac(vhid: int) -> bytes:
    """Return the hardware address that a group owns: 00:00:5e:00:01:vhid."""
    assert 1 <= vhid <= 255
    return b"\x00\x00\x5e\x00\x01" + bytes((vhid,))


def interval_ns(advbase: int, advskew: int) -> int:
    """Return the time between two advertisements: advbase s + advskew/256 s, never zero."""
    return advbase * NS_PER_S + advskew * SKEW_STEP_NS or SKEW_STEP_NS


def master_down_ns(advbase: int, advskew: int) -> int:
    """Return the silence after which a backup with these parameters takes the master for dead.

    3*advbase s + advskew/256 s; at advbase 0 OpenBSD counts the skew three times as well.
    """
    if advbase == 0:
        return 3 * interval_ns(0, advskew)
    return 3 * advbase * NS_PER_S + advskew * SKEW_STEP_NS


def _is_vrrp(payload: bytes) -> bool:
    """Tell whether a payload of IP protocol 112 is VRRP (RFC 3768 5.1, RFC 9568 5.1)."""
    if len(payload) < _VRRP_HEADER_LENGTH:
        return False
    version = payload[0] >> 4
    addresses, authentication_type = payload[3], payload[4]
    if version != _VERSION or addresses == AUTHLEN:
        return version == _VERSION_VRRP3
    length = _VRRP_HEADER_LENGTH + 4 * addresses + _VRRP2_AUTHENTICATION_LENGTH
    return authentication_type <= _VRRP2_AUTHENTICATION_TYPE_MAX and len(payload) == length


def _sha1(data: bytes) -> "hashlib._Hash":
    # CARP's HMAC is SHA-1 by its definition; the flag lets it run where SHA-1 is otherwise barred.
    return hashlib.sha1(data, usedforsecurity=False)
