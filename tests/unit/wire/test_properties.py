"""For all inputs: any bytes give a value or a DecodeError, and decode of encode is the identity."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.base.errors import DecodeError
from carpool.wire import arp, carp, ethernet, ip, ndp

QUICK = settings(max_examples=150, deadline=None)

byte = st.integers(0, 255)
macs = st.binary(min_size=6, max_size=6)
payloads = st.binary(max_size=60)
v4_addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
v6_addresses = st.integers(0, 2**128 - 1).map(IPv6Address)
unicast_v6 = st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address)
counters = st.integers(0, 2**64 - 1)
vhids = st.integers(1, 255)

advertisements = st.builds(
    carp.Advertisement,
    vhid=vhids,
    advbase=byte,
    advskew=byte,
    demote=byte,
    counter=counters,
    hmac=st.binary(min_size=20, max_size=20),
    trailer=payloads,
)
arp_packets = st.builds(
    arp.ArpPacket, st.sampled_from(arp.ArpOperation), macs, v4_addresses, macs, v4_addresses
)
v4_packets = st.builds(
    ip.Ipv4Packet,
    v4_addresses,
    v4_addresses,
    st.just(112),
    payloads,
    byte,
    byte,
    st.integers(0, 65535),
    st.booleans(),
)
v6_packets = st.builds(
    ip.Ipv6Packet,
    v6_addresses,
    v6_addresses,
    st.just(112),
    payloads,
    byte,
    byte,
    st.integers(0, 2**20 - 1),
)
neighbor_messages = st.one_of(
    st.builds(ndp.NeighborSolicitation, unicast_v6, unicast_v6, unicast_v6, st.none() | macs),
    st.builds(
        ndp.NeighborAdvertisement,
        unicast_v6,
        unicast_v6,
        unicast_v6,
        st.none() | macs,
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
)
tagged = st.sampled_from(["", "81000001", "88a8000181000002"]).map(bytes.fromhex)

DECODERS = {
    "ethernet": ethernet.parse,
    "ipv4": lambda data: ip.parse_v4(data, 112),
    "ipv6": lambda data: ip.parse_v6(data, 112),
    "carp": carp.decode,
    "arp": arp.parse,
    "ndp": lambda data: ndp.parse(ip.parse_v6(data, 58)),
}
LIKELY_STARTS = {
    "ethernet": b"\0" * 12 + b"\x81\x00",
    "ipv4": bytes.fromhex("45100038"),
    "ipv6": bytes.fromhex("60000000"),
    "carp": bytes.fromhex("21016407"),
    "arp": bytes.fromhex("0001080006040001"),
    "ndp": bytes.fromhex("6000000000203aff"),
}


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.data())
def test_any_bytes_give_a_value_or_a_decode_error(name, data):
    """No decoder fails in another way, on noise or on a likely start followed by noise."""
    noise = data.draw(st.binary(max_size=90))
    for candidate in (noise, LIKELY_STARTS[name] + noise):
        try:
            value = DECODERS[name](candidate)
        except DecodeError as error:
            assert error.reason  # noqa: PT017  both outcomes are right
        else:
            assert value is not None


@QUICK
@given(message=neighbor_messages, cut=st.integers(0, 40), at=st.integers(0, 100), bit=byte)
def test_damaged_neighbor_messages(message, cut, at, bit):
    """A real message, cut and changed behind the IP header, gives a value or a DecodeError."""
    packet = ip.parse_v6(ndp.build(message), ip.PROTOCOL_ICMPV6)
    payload = bytearray(packet.payload[: len(packet.payload) - cut])
    if payload:
        payload[at % len(payload)] ^= bit
    try:
        assert ndp.parse(replace(packet, payload=bytes(payload))).target is not None
    except DecodeError as error:
        assert error.reason  # noqa: PT017  both outcomes are right


@QUICK
@given(advertisements)
def test_carp_identity(advertisement):
    """Decoding what was encoded gives the same advertisement."""
    assert carp.decode(carp.encode(advertisement)) == advertisement


@QUICK
@given(arp_packets)
def test_arp_identity(packet):
    """Parsing what was built gives the same ARP packet."""
    assert arp.parse(arp.build(packet)) == packet


@QUICK
@given(v4_packets, payloads)
def test_ipv4_identity(packet, padding):
    """Parsing what was built gives the same packet, whatever padding follows."""
    assert ip.parse_v4(ip.build_v4(packet) + padding, 112) == packet


@QUICK
@given(v6_packets, payloads)
def test_ipv6_identity(packet, padding):
    """Parsing what was built gives the same packet, whatever padding follows."""
    assert ip.parse_v6(ip.build_v6(packet) + padding, 112) == packet


@QUICK
@given(neighbor_messages)
def test_ndp_identity(message):
    """Parsing what was built gives the same message."""
    assert ndp.parse(ip.parse_v6(ndp.build(message), ip.PROTOCOL_ICMPV6)) == message


@QUICK
@given(macs, macs, tagged, payloads)
def test_ethernet_identity(destination, source, tags, payload):
    """A frame comes back the same behind any number of tags."""
    data = ethernet.build(destination, source, ethernet.ETHERTYPE_IPV4, payload)
    frame = ethernet.parse(data[:12] + tags + data[12:])
    assert replace(frame, vlans=()) == ethernet.Frame(destination, source, 0x0800, payload)


@QUICK
@given(macs)
def test_mac_text_identity(mac):
    """A hardware address written is read back."""
    assert ethernet.parse_mac(ethernet.format_mac(mac)) == mac


@QUICK
@given(
    key=st.binary(max_size=20),
    vhid=vhids,
    v4=st.lists(v4_addresses, max_size=3),
    v6=st.lists(v6_addresses, max_size=3),
    counter=counters,
    variant=st.sampled_from(carp.Variant),
)
def test_signed_advertisements_verify(key, vhid, v4, v6, counter, variant):
    """Whatever we sign in either variant is accepted by a member that lists them in any order."""
    ours = carp.Authenticator(key, vhid, v4, v6)
    theirs = carp.Authenticator(key, vhid, reversed(v4), reversed(v6))
    sent = carp.advertise(ours, advbase=1, advskew=0, counter=counter, variant=variant)
    heard = carp.decode(carp.encode(sent))
    carp.verify(heard, theirs)
    assert heard == sent


@QUICK
@given(vhid=vhids, counter=counters, bit=st.integers(0, 8 + 64 + 160 - 1))
def test_one_bit_spoils_the_advertisement(vhid, counter, bit):
    """Any bit of vhid, counter or HMAC that flips makes verification fail."""
    key = carp.Authenticator(b"secret", vhid, [IPv4Address("192.0.2.10")])
    sent = carp.advertise(key, advbase=1, advskew=0, counter=counter)
    if bit < 8:
        heard = replace(sent, vhid=vhid ^ 1 << bit)
    elif bit < 72:
        heard = replace(sent, counter=counter ^ 1 << (bit - 8))
    else:
        flipped = int.from_bytes(sent.hmac, "big") ^ 1 << (bit - 72)
        heard = replace(sent, hmac=flipped.to_bytes(20, "big"))
    with pytest.raises(DecodeError):
        carp.verify(heard, key)
