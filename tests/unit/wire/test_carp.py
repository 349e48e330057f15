"""CARP advertisements: every reason to refuse one, both HMAC variants, addresses and times."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from carpool.base.errors import DecodeError, LocalError, Reject
from carpool.base.time import NS_PER_S
from carpool.wire import carp, ethernet, ip
from carpool.wire.checksum import internet_checksum

V4 = [IPv4Address("192.0.2.10")]
V6 = [IPv6Address("2001:db8::10")]
LINK_LOCAL = IPv6Address("fe80::10")
KEY = carp.Authenticator(b"secret", 7, V4)
ADVERTISEMENT = carp.advertise(KEY, advbase=1, advskew=100, counter=5, demote=3)
PAYLOAD = carp.encode(ADVERTISEMENT)


def changed(offset, value):
    """Return PAYLOAD with one byte changed and the checksum made right again."""
    data = bytearray(PAYLOAD)
    data[offset] = value
    data[6:8] = b"\0\0"
    data[6:8] = internet_checksum(bytes(data)).to_bytes(2, "big")
    return bytes(data)


def reason_of(payload):
    with pytest.raises(DecodeError) as error:
        carp.decode(payload)
    return error.value.reason


def test_fields_are_where_the_document_says():
    """Byte for byte: version and type, vhid, advskew, authlen, demote, advbase, counter."""
    assert PAYLOAD[:6] == bytes((0x21, 7, 100, 7, 3, 1))
    assert PAYLOAD[8:16] == (5).to_bytes(8, "big")
    assert PAYLOAD[16:] == KEY.sign(5)
    assert len(PAYLOAD) == carp.ADVERTISEMENT_LENGTH


def test_decodes_to_what_was_encoded():
    """The advertisement comes back, and verifies."""
    assert carp.decode(PAYLOAD) == ADVERTISEMENT
    carp.verify(carp.decode(PAYLOAD), KEY)


def test_trailer_is_kept_and_not_judged():
    """Bytes behind the 36 change neither the checksum nor the verdict."""
    heard = carp.decode(PAYLOAD + b"anything")
    assert heard == replace(ADVERTISEMENT, trailer=b"anything")
    assert carp.encode(heard) == PAYLOAD + b"anything"
    carp.verify(heard, KEY)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 35])
def test_length(length):
    """Fewer than 36 bytes are LENGTH."""
    assert reason_of(PAYLOAD[:length]) is Reject.LENGTH


@pytest.mark.parametrize("offset", range(36))
def test_checksum(offset):
    """A byte changed on the way is CHECKSUM, unless it makes the packet look like VRRP."""
    data = bytearray(PAYLOAD)
    data[offset] ^= 0x40
    assert reason_of(bytes(data)) is Reject.CHECKSUM


def test_all_zero_is_checksum():
    """Zeros are not an advertisement with a right sum."""
    assert reason_of(bytes(36)) is Reject.CHECKSUM


@pytest.mark.parametrize("version", [0, 1, 4, 15])
def test_version(version):
    """Versions that nobody speaks are VERSION."""
    assert reason_of(changed(0, version << 4 | 1)) is Reject.VERSION


@pytest.mark.parametrize("kind", [0, 2, 15])
def test_type(kind):
    """Anything but an advertisement is TYPE."""
    assert reason_of(changed(0, 0x20 | kind)) is Reject.TYPE


def test_vhid_zero():
    """There is no vhid 0."""
    assert reason_of(changed(1, 0)) is Reject.VHID


def test_version_three_is_vrrp():
    """FreeBSD's carp speaks VRRP version 3 under the same number: told apart by version."""
    assert reason_of(changed(0, 0x31)) is Reject.VRRP


@pytest.mark.parametrize("addresses", [0, 1, 6, 8])
def test_version_two_with_addresses_is_vrrp(addresses):
    """A VRRP version 2 packet is one by its length, count of addresses and authentication type."""
    payload = bytes((0x21, 51, 100, addresses, 1, 1, 0, 0)) + bytes(4 * addresses + 8)
    assert reason_of(payload) is Reject.VRRP


def test_vrrp_with_seven_addresses_is_still_refused():
    """The one count that looks like CARP does not get through: the 36 bytes do not sum up."""
    head = bytes((0x21, 51, 100, 7, 0, 1, 0, 0)) + b"".join(
        IPv4Address(0xC0000200 + host).packed for host in range(7)
    )
    payload = head + bytes(range(8))
    checksum = internet_checksum(payload).to_bytes(2, "big")
    assert reason_of(payload[:6] + checksum + payload[8:]) is Reject.CHECKSUM


def test_authlen_is_not_judged():
    """No receiver checks authlen, so an odd one is accepted where it is not VRRP."""
    heard = carp.decode(changed(3, 9))
    assert heard.authlen == 9
    carp.verify(heard, KEY)


def test_wrong_password_is_hmac():
    """Another password is HMAC."""
    with pytest.raises(DecodeError) as error:
        carp.verify(ADVERTISEMENT, carp.Authenticator(b"Secret", 7, V4))
    assert error.value.reason is Reject.HMAC


@pytest.mark.parametrize(("v4", "v6"), [([], []), ([*V4, IPv4Address("192.0.2.11")], []), (V4, V6)])
def test_other_addresses_are_hmac(v4, v6):
    """A member with one address more or less does not fit."""
    with pytest.raises(DecodeError) as error:
        carp.verify(ADVERTISEMENT, carp.Authenticator(b"secret", 7, v4, v6))
    assert error.value.reason is Reject.HMAC


def test_other_groups_authenticator_is_vhid():
    """An advertisement shown to the wrong group's key is VHID, whatever its HMAC says."""
    with pytest.raises(DecodeError) as error:
        carp.verify(ADVERTISEMENT, carp.Authenticator(b"secret", 8, V4))
    assert error.value.reason is Reject.VHID


def test_what_the_hmac_does_not_cover():
    """advbase, advskew and demote can be changed by anyone; the documents say so, and so do we."""
    carp.verify(replace(ADVERTISEMENT, advbase=0, advskew=0, demote=255), KEY)


def test_both_variants_are_accepted_and_nov6ll_is_sent():
    """With a link-local address OpenBSD's and FreeBSD's HMAC differ; we accept both."""
    key = carp.Authenticator(b"secret", 7, V4, [*V6, LINK_LOCAL])
    without = carp.Authenticator(b"secret", 7, V4, V6)
    orig = key.sign(1, carp.Variant.ORIG)
    assert key.sign(1) == key.sign(1, carp.Variant.NOV6LL) == without.sign(1)
    assert orig != key.sign(1)
    assert key.matches(1, orig)
    assert key.matches(1, key.sign(1))
    assert not without.matches(1, orig)


def test_variants_are_one_without_link_local():
    """Without a link-local address there is one HMAC only."""
    key = carp.Authenticator(b"secret", 7, V4, V6)
    assert key.sign(9, carp.Variant.ORIG) == key.sign(9)


def test_scope_is_not_hashed():
    """A scope identifier belongs to one machine and never goes into the HMAC."""
    scoped = carp.Authenticator(b"k", 7, [], [IPv6Address("fe80::10%eth0")])
    plain = carp.Authenticator(b"k", 7, [], [LINK_LOCAL])
    assert scoped.sign(1, carp.Variant.ORIG) == plain.sign(1, carp.Variant.ORIG)


def test_order_and_repetition_do_not_matter():
    """Addresses are sorted, and the two that BSD skips are skipped."""
    one, two = IPv4Address("10.0.0.1"), IPv4Address("9.255.255.255")
    odd = [one, IPv4Address("0.0.0.0"), two, one, IPv4Address("255.255.255.255")]
    assert carp.Authenticator(b"k", 1, odd).sign(1) == carp.Authenticator(b"k", 1, [two, one]).sign(
        1
    )


def test_key_length():
    """Twenty bytes are a key, twenty-one are the operator's mistake."""
    carp.Authenticator(b"x" * carp.CARP_KEY_LENGTH_MAX, 1)
    with pytest.raises(LocalError, match="21 bytes, at most 20"):
        carp.Authenticator(b"x" * 21, 1)


def test_key_is_not_shown():
    """Printing an authenticator shows no secret."""
    assert "secret" not in repr(KEY)
    assert not hasattr(KEY, "__dict__")


def test_multicast_frame_v4():
    """The whole frame to the IPv4 group: addresses, TTL, tos, DF, length."""
    source = IPv4Address("192.0.2.1")
    data = carp.multicast_frame(PAYLOAD, carp.virtual_mac(7), source)
    frame = ethernet.parse(data)
    assert (frame.destination, frame.source) == (carp.GROUP_V4_MAC, bytes.fromhex("00005e000107"))
    packet = ip.parse_v4(frame.payload, ip.PROTOCOL_CARP)
    assert packet == ip.Ipv4Packet(source, carp.GROUP_V4, 112, PAYLOAD, tos=0x10)
    assert len(data) == 70


def test_multicast_frame_v6():
    """The whole frame to the IPv6 group."""
    source = IPv6Address("fe80::1")
    frame = ethernet.parse(carp.multicast_frame(PAYLOAD, carp.virtual_mac(7), source))
    assert (frame.destination, frame.ethertype) == (carp.GROUP_V6_MAC, ethernet.ETHERTYPE_IPV6)
    packet = ip.parse_v6(frame.payload, ip.PROTOCOL_CARP)
    assert packet == ip.Ipv6Packet(source, carp.GROUP_V6, 112, PAYLOAD)


@pytest.mark.parametrize(
    ("source", "peer"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]
)
def test_unicast_packet(source, peer):
    """An advertisement to one peer carries the peer's address."""
    family, parse = (IPv6Address, ip.parse_v6) if ":" in source else (IPv4Address, ip.parse_v4)
    data = carp.packet(PAYLOAD, family(source), family(peer))
    packet = parse(data, ip.PROTOCOL_CARP)
    assert (packet.destination, packet.payload) == (family(peer), PAYLOAD)


def test_families_do_not_mix():
    """There is no packet from IPv4 to IPv6."""
    with pytest.raises(LocalError, match="no advertisement goes from 192"):
        carp.packet(PAYLOAD, IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))


def test_group_hardware_addresses():
    """The groups' hardware addresses are those of the documents."""
    assert ethernet.format_mac(carp.GROUP_V4_MAC) == "01:00:5e:00:00:12"
    assert ethernet.format_mac(carp.GROUP_V6_MAC) == "33:33:00:00:00:12"


@pytest.mark.parametrize(
    ("advbase", "advskew", "interval", "master_down"),
    [
        (1, 0, NS_PER_S, 3 * NS_PER_S),
        (1, 100, NS_PER_S + 390_625_000, 3 * NS_PER_S + 390_625_000),
        (0, 26, 101_562_500, 304_687_500),
        (0, 1, 3_906_250, 11_718_750),
        (0, 0, 3_906_250, 11_718_750),
        (255, 255, 255 * NS_PER_S + 996_093_750, 765 * NS_PER_S + 996_093_750),
    ],
)
def test_times(advbase, advskew, interval, master_down):
    """Interval and master-down time, exact to the nanosecond."""
    assert carp.interval_ns(advbase, advskew) == interval
    assert carp.master_down_ns(advbase, advskew) == master_down


def test_bow_out_is_too_slow_for_everyone():
    """255/255 is slower than any member's patience with a sane interval."""
    assert carp.interval_ns(*carp.BOW_OUT) > carp.master_down_ns(85, 0)
