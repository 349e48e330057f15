"""ARP: the frames we send, field by field, and every reason to refuse one."""

from ipaddress import IPv4Address

import pytest

from carpool.base.errors import DecodeError, Reject
from carpool.wire import arp, ethernet

MAC = bytes.fromhex("00005e000107")
OTHER_MAC = bytes.fromhex("020000000002")
ADDRESS = IPv4Address("192.0.2.10")
OTHER = IPv4Address("192.0.2.2")


def parsed(data):
    frame = ethernet.parse(data)
    assert frame.ethertype == ethernet.ETHERTYPE_ARP
    assert frame.source == MAC
    return frame.destination, arp.parse(frame.payload)


def test_gratuitous():
    """An announcement is a broadcast request with the address as sender and target."""
    destination, packet = parsed(arp.gratuitous(MAC, ADDRESS))
    assert destination == ethernet.MAC_BROADCAST
    request = arp.ArpOperation.REQUEST
    assert packet == arp.ArpPacket(request, MAC, ADDRESS, ethernet.MAC_ZERO, ADDRESS)


def test_probe():
    """A probe has no sender's IP address, so that nobody learns from it (RFC 5227 2.1.1)."""
    destination, packet = parsed(arp.probe(MAC, ADDRESS))
    assert destination == ethernet.MAC_BROADCAST
    request = arp.ArpOperation.REQUEST
    assert packet == arp.ArpPacket(request, MAC, IPv4Address(0), ethernet.MAC_ZERO, ADDRESS)


def test_who_has():
    """An ordinary question names the asker."""
    destination, packet = parsed(arp.who_has(MAC, ADDRESS, OTHER))
    assert destination == ethernet.MAC_BROADCAST
    request = arp.ArpOperation.REQUEST
    assert packet == arp.ArpPacket(request, MAC, ADDRESS, ethernet.MAC_ZERO, OTHER)


def test_reply():
    """An answer goes to the asker alone."""
    destination, packet = parsed(arp.reply(MAC, ADDRESS, OTHER_MAC, OTHER))
    assert destination == OTHER_MAC
    assert packet == arp.ArpPacket(arp.ArpOperation.REPLY, MAC, ADDRESS, OTHER_MAC, OTHER)


def test_padding_is_ignored():
    """Ethernet pads ARP to 60 bytes; the rest does not matter."""
    payload = ethernet.parse(arp.probe(MAC, ADDRESS)).payload
    assert arp.parse(payload + b"\xff" * 18) == arp.parse(payload)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "0001080006040001" + "00" * 19,
        "0006080006040001" + "00" * 20,
        "000186dd06040001" + "00" * 20,
        "0001080008040001" + "00" * 20,
        "0001080006100001" + "00" * 20,
        "0001080006040000" + "00" * 20,
        "0001080006040003" + "00" * 20,
    ],
    ids=["empty", "short", "hardware", "protocol", "hlen", "plen", "op-0", "reverse-arp"],
)
def test_format(payload):
    """Short, not IPv4 on Ethernet, neither request nor reply: ARP_FORMAT."""
    with pytest.raises(DecodeError) as error:
        arp.parse(bytes.fromhex(payload))
    assert error.value.reason is Reject.ARP_FORMAT
