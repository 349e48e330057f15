"""Golden vectors: frames of real programs through every layer, and back byte for byte."""

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from carpool.base.errors import DecodeError, Reject
from carpool.wire import arp, carp, ethernet, ip, ndp

VECTORS = Path(__file__).parent / "vectors"


@dataclass(frozen=True)
class CapturedCarp:
    """A frame of real ucarp and what it was told."""

    id: str
    vhid: int
    password: str
    address: str
    advbase: int
    advskew: int
    counter: str
    frame: str


@dataclass(frozen=True)
class DerivedHmac:
    """An HMAC computed by another program."""

    id: str
    key: str
    vhid: int
    v4: list[str]
    v6: list[str]
    counter: str
    variant: str
    lladdr: str | None
    hmac: str


@dataclass(frozen=True)
class CapturedVrrp:
    """A frame of real keepalived."""

    id: str
    what: str
    frame: str


def load(name):
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


CARP = [CapturedCarp(**value) for value in load("carp_captured.json")]
DERIVED = [DerivedHmac(**value) for value in load("carp_derived_hmac.json")]
VRRP = [CapturedVrrp(**value) for value in load("vrrp_captured.json")]
ARP = load("arp_linux.json")
NDP = load("ndp_linux.json")


def by_id(vector):
    return vector["id"] if isinstance(vector, dict) else vector.id


def test_vectors_are_complete():
    """No vector was lost from the files."""
    assert (len(CARP), len(DERIVED), len(VRRP), len(ARP), len(NDP)) == (8, 9, 14, 2, 3)


@pytest.mark.parametrize("vector", CARP, ids=by_id)
def test_captured_carp_verifies(vector):
    """A frame of real ucarp decodes to what ucarp was told, and its HMAC is right."""
    frame = ethernet.parse(bytes.fromhex(vector.frame))
    assert frame.ethertype == ethernet.ETHERTYPE_IPV4
    packet = ip.parse_v4(frame.payload, ip.PROTOCOL_CARP)
    ip.check_ttl(packet.ttl)
    assert packet.destination == carp.GROUP_V4
    assert packet.tos == carp.TOS
    advertisement = carp.decode(packet.payload)
    assert advertisement.vhid == vector.vhid
    assert (advertisement.advbase, advertisement.advskew) == (vector.advbase, vector.advskew)
    assert advertisement.counter == int(vector.counter, 16)
    assert (advertisement.authlen, advertisement.demote) == (carp.AUTHLEN, 0)
    key = carp.Authenticator(vector.password.encode(), vector.vhid, [IPv4Address(vector.address)])
    carp.verify(advertisement, key)


@pytest.mark.parametrize("vector", CARP, ids=by_id)
def test_captured_carp_is_made_again(vector):
    """From password, address and fields alone we build ucarp's frame byte for byte."""
    captured = bytes.fromhex(vector.frame)
    frame = ethernet.parse(captured)
    packet = ip.parse_v4(frame.payload, ip.PROTOCOL_CARP)
    key = carp.Authenticator(vector.password.encode(), vector.vhid, [IPv4Address(vector.address)])
    advertisement = carp.advertise(
        key, advbase=vector.advbase, advskew=vector.advskew, counter=int(vector.counter, 16)
    )
    payload = carp.encode(advertisement)
    assert payload == packet.payload
    again = ip.build_v4(
        ip.Ipv4Packet(
            packet.source,
            packet.destination,
            ip.PROTOCOL_CARP,
            payload,
            tos=carp.TOS,
            identification=packet.identification,
        )
    )
    assert again == frame.payload
    assert ethernet.build(frame.destination, frame.source, frame.ethertype, again) == captured


@pytest.mark.parametrize("vector", CARP, ids=by_id)
def test_captured_carp_needs_its_password(vector):
    """The same frame with another password is HMAC."""
    frame = ethernet.parse(bytes.fromhex(vector.frame))
    advertisement = carp.decode(ip.parse_v4(frame.payload, ip.PROTOCOL_CARP).payload)
    key = carp.Authenticator(b"another", vector.vhid, [IPv4Address(vector.address)])
    with pytest.raises(DecodeError) as error:
        carp.verify(advertisement, key)
    assert error.value.reason is Reject.HMAC


@pytest.mark.parametrize("vector", DERIVED, ids=by_id)
def test_derived_hmac(vector):
    """Our HMAC is the one that the BSD sources give, and it is accepted."""
    key = carp.Authenticator(
        vector.key.encode(),
        vector.vhid,
        [IPv4Address(text) for text in vector.v4],
        [IPv6Address(text) for text in vector.v6],
        bytes.fromhex(vector.lladdr) if vector.lladdr else None,
    )
    counter = int(vector.counter, 16)
    assert key.sign(counter, carp.Variant(vector.variant)).hex() == vector.hmac
    assert key.matches(counter, bytes.fromhex(vector.hmac))


@pytest.mark.parametrize("vector", VRRP, ids=by_id)
def test_captured_vrrp_is_rejected_as_vrrp(vector):
    """A frame of real keepalived is counted as VRRP, whatever its version and authentication."""
    frame = ethernet.parse(bytes.fromhex(vector.frame))
    with pytest.raises(DecodeError) as error:
        carp.decode(vrrp_payload(frame))
    assert error.value.reason is Reject.VRRP


def vrrp_payload(frame):
    if frame.ethertype == ethernet.ETHERTYPE_IPV6:
        return ip.parse_v6(frame.payload, ip.PROTOCOL_CARP).payload
    if frame.payload[9] != 51:
        return ip.parse_v4(frame.payload, ip.PROTOCOL_CARP).payload
    with pytest.raises(DecodeError) as error:  # an authentication header is another protocol
        ip.parse_v4(frame.payload, ip.PROTOCOL_CARP)
    assert error.value.reason is Reject.PROTOCOL
    return ip.parse_v4(frame.payload, 51).payload[24:]


@pytest.mark.parametrize("vector", ARP, ids=by_id)
def test_arp_of_linux(vector):
    """ARP of a real host parses to its fields and is made again byte for byte."""
    captured = bytes.fromhex(vector["frame"])
    frame = ethernet.parse(captured)
    packet = arp.parse(frame.payload)
    assert packet == arp.ArpPacket(
        arp.ArpOperation(vector["op"]),
        bytes.fromhex(vector["sender_mac"]),
        IPv4Address(vector["sender_ip"]),
        bytes.fromhex(vector["target_mac"]),
        IPv4Address(vector["target_ip"]),
    )
    if packet.op is arp.ArpOperation.REQUEST:
        again = arp.who_has(packet.sender_mac, packet.sender_ip, packet.target_ip)
    else:
        again = arp.reply(packet.sender_mac, packet.sender_ip, packet.target_mac, packet.target_ip)
    assert again == captured


@pytest.mark.parametrize("vector", NDP, ids=by_id)
def test_ndp_of_linux(vector):
    """Neighbour discovery of a real host parses to its fields and is made again."""
    frame = ethernet.parse(bytes.fromhex(vector["frame"]))
    message = ndp.parse(ip.parse_v6(frame.payload, ip.PROTOCOL_ICMPV6))
    link_layer = bytes.fromhex(vector["link_layer"]) if vector["link_layer"] else None
    addresses = [IPv6Address(vector[name]) for name in ("source", "destination", "target")]
    if vector["kind"] == "solicitation":
        assert message == ndp.NeighborSolicitation(*addresses, link_layer)
    else:
        assert message == ndp.NeighborAdvertisement(
            *addresses,
            link_layer,
            router=vector["router"],
            solicited=vector["solicited"],
            override=vector["override"],
        )
    assert (ndp.build(message) == frame.payload) is vector["again"]
