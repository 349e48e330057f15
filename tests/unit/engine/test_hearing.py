"""What arrives on the wire: one counter for each reason to refuse it, and what is taken from it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from tests.unit.engine.bench import (
    ALPHA,
    BRAVO,
    FACTS,
    MAC,
    OTHER_MAC,
    Bench,
    journal,
    with_group,
    with_parameters,
)

from carpool.base.journal import ConflictSeen
from carpool.base.time import NS_PER_S
from carpool.election.effects import Announce
from carpool.election.parameters import CONFLICTS_KEPT_MAX, Kind, Member
from carpool.engine.effects import Journal
from carpool.wire import arp, carp, ethernet, ip, ndp

SHARED = IPv4Address("192.0.2.101")
SHARED_V6 = IPv6Address("2001:db8::10")


def wrapped(payload, source=BRAVO, ttl=255):
    """Return a frame with an IPv4 packet of protocol 112 in it."""
    packet = ip.Ipv4Packet(source, carp.GROUP_V4, ip.PROTOCOL_CARP, payload, ttl=ttl)
    return ethernet.build(
        carp.GROUP_V4_MAC, OTHER_MAC, ethernet.ETHERTYPE_IPV4, ip.build_v4(packet)
    )


def fixed(payload):
    """Return a payload with its checksum made right again."""
    return (
        payload[:6]
        + carp.internet_checksum(payload[:6] + b"\0\0" + payload[8:36]).to_bytes(2, "big")
        + payload[8:]
    )


def changed(payload, offset, value):
    """Return a payload with one byte changed and a right checksum."""
    return fixed(payload[:offset] + bytes((value,)) + payload[offset + 1 :])


REFUSED = {
    "ttl": lambda good: wrapped(good, ttl=254),
    "length": lambda good: wrapped(good[:35]),
    "checksum": lambda good: wrapped(good[:20] + b"\xff" + good[21:]),
    "vhid": lambda good: wrapped(changed(good, 1, 77)),
    "version": lambda good: wrapped(changed(good, 0, 0x41)),
    "type": lambda good: wrapped(changed(good, 0, 0x22)),
    "vrrp": lambda _: wrapped(bytes.fromhex("31010a01006400000000000a")),
    "hmac": lambda good: wrapped(changed(good, 30, good[30] ^ 1)),
    "protocol": lambda good: good and ethernet.build(MAC, OTHER_MAC, 0x88CC, b"lldp" * 10),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_each_refusal_has_its_counter(reason):
    """What is wrong with a frame is counted under its name, and changes nothing else."""
    bench = Bench()
    before = bench.engine.snapshot(bench.now, "bpf").groups
    assert bench.frame(REFUSED[reason](bench.advertisement())) == []
    assert bench.count(f"reject.{reason}") == 1
    assert bench.count("heard.edge") == 0
    assert bench.engine.snapshot(bench.now, "bpf").groups == before


def test_an_interface_without_groups():
    """A frame from where no group lives is counted as that."""
    bench = Bench()
    assert bench.frame(wrapped(bench.advertisement()), interface="eth7") == []
    assert bench.count("reject.interface") == 1


def test_the_other_group_on_the_interface():
    """The vhid says which group is meant."""
    bench = Bench(groups=("edge", "inside"))
    bench.advert(group="inside")
    assert bench.count("heard.inside") == 1
    assert bench.count("heard.edge") == 0


def test_a_loop_is_noted_once_in_ten_seconds():
    """Our own advertisement that comes back is counted each time and said once in a while."""
    bench = Bench().master()
    own = [effect for effect in bench.effects if hasattr(effect, "payload")][-1].payload
    noted = []
    for _ in range(3):
        noted += journal(bench.frame(wrapped(own, source=ALPHA)))
    assert noted == ["edge: our own advertisement came back from 192.0.2.11: a loop"]
    assert bench.count("reject.loop") == 3
    bench.run(11 * NS_PER_S)
    own = [effect for effect in bench.effects if hasattr(effect, "payload")][-1].payload
    assert len(journal(bench.frame(wrapped(own, source=ALPHA)))) == 1
    assert bench.state() == "MASTER"


def test_a_routed_unicast_peer():
    """A declared unicast peer may be behind a router; nobody else may."""
    bench = Bench()
    peer = IPv4Address("198.51.100.9")
    bench = Bench(
        setup=with_group(bench.setup, unicast=(peer,), peers=((str(peer), Kind.FREEBSD),))
    )
    bench.frame(wrapped(bench.advertisement(), source=peer, ttl=61))
    assert bench.count("heard.edge") == 1
    assert bench.standing().master.kind is Kind.FREEBSD
    bench.frame(wrapped(bench.advertisement(), ttl=61))
    assert bench.count("reject.ttl") == 1


def test_who_sent_it():
    """A source is one of ours by heartbeat or by configuration, else a declared or unknown one."""
    bench = Bench()
    bench.advert()
    assert bench.standing().master.node == "bravo"  # by the address in the configuration
    bench.report("bravo", sources=("192.0.2.200",))
    bench.advert(source=IPv4Address("192.0.2.200"))
    assert bench.standing().master.node == "bravo"  # by its heartbeat
    bench.advert(source=IPv4Address("192.0.2.201"))
    master = bench.standing().master
    assert (master.node, master.kind) == ("", Kind.CARPOOL)
    foreign = Bench(setup=with_group(bench.setup, peers=(("", Kind.UCARP),)))
    foreign.advert(source=IPv4Address("192.0.2.201"))
    assert foreign.standing().master.kind is Kind.UCARP  # undeclared address, declared kind


def test_several_nodes_without_an_address():
    """Nodes whose interfaces have no address all send from 0.0.0.0: their pace tells them apart."""
    nowhere = IPv4Address("0.0.0.0")
    bench = Bench(nodes=3)
    for name in ("bravo", "charlie"):
        bench.report(name, sources=("0.0.0.0",))
    bench.advert(source=nowhere, advskew=20)
    assert bench.standing().master.node == "charlie"
    bench.advert(source=nowhere, advskew=10)
    assert bench.standing().master.node == "bravo"
    assert set(bench.standing().heard) == {"bravo", "charlie"}
    bench.advert(source=nowhere, advskew=77)
    assert bench.standing().master.node == ""


@pytest.mark.parametrize(("last", "yields"), [(9, True), (12, False)])
def test_ties_by_address(last, yields):
    """An equal of unknown name stays where its address is the lower one."""
    bench = Bench().master()
    bench.advert(source=IPv4Address(f"192.0.2.{last}"), advskew=0)
    assert (bench.state() == "BACKUP") is yields


@pytest.mark.parametrize(("source", "yields"), [("10.0.1.1", True), ("193.0.2.11", False)])
def test_ties_with_ucarp(source, yields):
    """Ucarp compares the address byte-swapped, and so do we with it."""
    bench = Bench()
    member = Member("10.0.1.1", Kind.UCARP, 1, 0, 5)
    setup = with_group(bench.setup, peers=(("", Kind.UCARP),))
    parameters = setup.groups[0].parameters
    setup = with_parameters(setup, members=(*parameters.members, member))
    bench = Bench(setup=setup)
    bench.see(replace(FACTS, v4=IPv4Address("10.0.0.2")))
    bench.master()
    bench.advert(source=IPv4Address(source), advskew=0)
    assert (bench.state() == "BACKUP") is yields


def test_ipv6():
    """IPv6 advertisements count alike; with IPv4 addresses in the group they decide no tie."""
    bench = Bench().master()
    bench.advert(source=IPv6Address("fe80::1"), advskew=0)
    assert bench.state() == "MASTER"
    bench.advert(source=IPv6Address("fe80::1"), advskew=0, advbase=0)
    assert bench.state() == "BACKUP"


def test_ipv6_only_group():
    """Without IPv4 addresses IPv6 decides ties; without our own address nobody is lower."""
    base = Bench(start=False)
    setup = with_group(base.setup, v4=(), v6=(SHARED_V6,), addresses=("2001:db8::10/64",))
    bench = Bench(setup=setup, start=False)
    bench.see(replace(FACTS, v6=None))
    assert bench.standing().reason == "interface eth0 has no IPv6 link-local address"
    bench.see(FACTS)
    bench.master()
    bench.advert(source=IPv6Address("fe80::99"), advskew=0)
    assert bench.state() == "MASTER"
    bench.see(replace(FACTS, v6=None))
    assert bench.state() == "INIT"


def na(mac, target=SHARED_V6):
    """Return a neighbour advertisement for a shared address."""
    return ndp.unsolicited(mac, target, router=False)


CLAIMS = {
    "arp": lambda mac: arp.gratuitous(mac, SHARED),
    "neighbour advertisement": na,
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_another_owner_is_reported(kind):
    """Who answers for a shared address while we serve it is named, with its MAC."""
    base = Bench()
    setup = with_group(base.setup, v6=(SHARED_V6,))
    bench = Bench(setup=setup).master()
    entries = [
        effect.entry
        for effect in bench.neighbour(CLAIMS[kind](OTHER_MAC))
        if isinstance(effect, Journal)
    ]
    address = str(SHARED if kind == "arp" else SHARED_V6)
    assert entries == [ConflictSeen("edge", address, "02:00:00:00:00:02")]
    assert bench.neighbour(CLAIMS[kind](MAC)) == []
    assert bench.neighbour(CLAIMS[kind](OTHER_MAC), "eth1") == []


def test_a_flood_of_owners_is_counted():
    """Made-up MACs for many addresses: every frame counts, memory and announcements are bounded."""
    shared = tuple(IPv4Address(f"198.51.100.{number}") for number in range(1, 41))
    bench = Bench(setup=with_group(Bench().setup, v4=shared)).master()
    effects = []
    for number, address in enumerate(shared):
        effects += bench.neighbour(arp.gratuitous(bytes((2, 9, 0, 0, 0, number)), address))
    assert [type(effect) for effect in effects] == [Journal, Announce]
    assert bench.count("conflict.edge") == len(shared)
    assert len(bench.standing().conflicts) == CONFLICTS_KEPT_MAX


def test_no_conflict():
    """A probe, another address, another packet, a backup: nothing of that is a conflict."""
    bench = Bench()
    assert bench.neighbour(arp.gratuitous(OTHER_MAC, SHARED)) == []
    bench.master()
    frames = [
        arp.probe(OTHER_MAC, SHARED),
        arp.gratuitous(OTHER_MAC, BRAVO),
        ethernet.build(MAC, OTHER_MAC, 0x88CC, b"lldp"),
        ndp.probe(OTHER_MAC, SHARED_V6),
    ]
    for frame in frames:
        assert bench.neighbour(frame) == []
    assert bench.neighbour(frames[0][:20]) == []
    assert bench.count("reject.arp-format") + bench.count("reject.length") == 1


def test_a_virtual_mac_is_ours():
    """With a virtual MAC its frames are no conflict."""
    bench = Bench(setup=with_group(Bench().setup, mac="virtual")).master()
    own = carp.virtual_mac(1)
    assert bench.neighbour(arp.gratuitous(own, SHARED)) == []
