"""Neighbour discovery: the frames we send, field by field, and every reason to refuse one."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from carpool.base.errors import DecodeError, Reject
from carpool.wire import ethernet, ip, ndp
from carpool.wire.checksum import internet_checksum, pseudo_header_v6

MAC = bytes.fromhex("00005e000107")
ADDRESS = IPv6Address("2001:db8::12:3456")
OWN = IPv6Address("2001:db8::1")
NODE = IPv6Address("ff02::1:ff12:3456")
NODE_MAC = bytes.fromhex("3333ff123456")
UNSPECIFIED = IPv6Address("::")
SOLICITATION = ndp.NeighborSolicitation(OWN, NODE, ADDRESS, MAC)
ADVERTISEMENT = ndp.NeighborAdvertisement(ADDRESS, OWN, ADDRESS, MAC, solicited=True)


def parsed(data):
    frame = ethernet.parse(data)
    assert frame.ethertype == ethernet.ETHERTYPE_IPV6
    assert frame.source == MAC
    return frame.destination, ndp.parse(ip.parse_v6(frame.payload, ip.PROTOCOL_ICMPV6))


def packet_of(message):
    return ip.parse_v6(ndp.build(message), ip.PROTOCOL_ICMPV6)


def resealed(packet, payload):
    """Return `packet` with another ICMPv6 message, its checksum made right."""
    body = payload[:2] + b"\0\0" + payload[4:]
    source, destination = packet.source.packed, packet.destination.packed
    pseudo = pseudo_header_v6(source, destination, len(body), ip.PROTOCOL_ICMPV6)
    checksum = internet_checksum(pseudo + body).to_bytes(2, "big")
    return replace(packet, payload=body[:2] + checksum + body[4:])


def refused(packet):
    with pytest.raises(DecodeError) as error:
        ndp.parse(packet)
    assert error.value.reason is Reject.NDP_FORMAT
    return error.value.detail


@pytest.mark.parametrize("router", [False, True])
def test_unsolicited(router):
    """The announcement overrides what all nodes knew; the router flag is as told."""
    destination, message = parsed(ndp.unsolicited(MAC, ADDRESS, router=router))
    assert destination == bytes.fromhex("333300000001")
    assert message == ndp.NeighborAdvertisement(
        ADDRESS, ndp.ALL_NODES, ADDRESS, MAC, router=router, solicited=False, override=True
    )


def test_probe():
    """A probe comes from the unspecified address and names no hardware address (RFC 4862 5.4.2)."""
    destination, message = parsed(ndp.probe(MAC, ADDRESS))
    assert destination == NODE_MAC
    assert message == ndp.NeighborSolicitation(UNSPECIFIED, NODE, ADDRESS)


def test_solicitation():
    """An ordinary question goes to the solicited-node group and names the asker."""
    destination, message = parsed(ndp.solicitation(MAC, OWN, ADDRESS))
    assert destination == NODE_MAC
    assert message == SOLICITATION


def test_other_options_are_skipped():
    """Unknown options and link-layer addresses of another length do not hide the right one."""
    packet = packet_of(replace(SOLICITATION, link_layer=None))
    nonce = bytes.fromhex("0e01aabbccddeeff")
    infiniband = bytes((1, 3)) + bytes(22)
    own = bytes((1, 1)) + MAC
    second = bytes((1, 1)) + bytes(6)
    message = ndp.parse(resealed(packet, packet.payload + nonce + infiniband + own + second))
    assert message == SOLICITATION


def test_hop_limit():
    """A hop limit below 255 came through a router."""
    assert refused(replace(packet_of(SOLICITATION), hop_limit=254)) == "hop limit 254"


@pytest.mark.parametrize("length", [4, 23])
def test_length(length):
    """Fewer than 24 bytes are no message."""
    packet = packet_of(SOLICITATION)
    assert refused(resealed(packet, packet.payload[:length])) == f"{length} bytes"


@pytest.mark.parametrize(("kind", "code"), [(133, 0), (137, 0), (128, 0), (135, 1), (136, 255)])
def test_type_and_code(kind, code):
    """Other messages of ICMPv6, and codes other than 0, are not judged further."""
    packet = packet_of(SOLICITATION)
    changed = resealed(packet, bytes((kind, code)) + packet.payload[2:])
    assert refused(changed) == f"type {kind}, code {code}"


def test_multicast_target():
    """Nobody is asked for a group."""
    assert refused(packet_of(replace(SOLICITATION, target=NODE))) == (
        "the target is a multicast address"
    )


@pytest.mark.parametrize("offset", [2, 4, 23, 31])
def test_checksum(offset):
    """A byte changed on the way does not get through."""
    packet = packet_of(SOLICITATION)
    payload = bytearray(packet.payload)
    payload[offset] ^= 1
    assert refused(replace(packet, payload=bytes(payload))) == "checksum"


def test_checksum_covers_the_addresses():
    """The sum is over the pseudo header too."""
    assert refused(replace(packet_of(SOLICITATION), source=ADDRESS)) == "checksum"


@pytest.mark.parametrize("options", ["0100", "01", "0102" + "00" * 6, "0e0100000000000001"])
def test_option_lengths(options):
    """An option of length zero, or longer than what is there, spoils the message."""
    packet = packet_of(replace(SOLICITATION, link_layer=None))
    changed = resealed(packet, packet.payload + bytes.fromhex(options))
    assert refused(changed) == "an option's length"


def test_probe_destination():
    """A probe must go to a solicited-node group (RFC 4861 7.1.1)."""
    message = ndp.NeighborSolicitation(UNSPECIFIED, ndp.ALL_NODES, ADDRESS)
    assert "solicited-node" in refused(packet_of(message))


def test_probe_with_link_layer_address():
    """A probe must not teach anybody (RFC 4861 7.1.1)."""
    message = ndp.NeighborSolicitation(UNSPECIFIED, NODE, ADDRESS, MAC)
    assert "source link-layer" in refused(packet_of(message))


def test_solicited_to_many():
    """An answer to one asker is not sent to a group (RFC 4861 7.1.2)."""
    message = replace(ADVERTISEMENT, destination=ndp.ALL_NODES)
    assert "sent to many" in refused(packet_of(message))
