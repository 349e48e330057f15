"""Both gates in a real kernel: which frames pass which way, and what foreign hands are repaired.

The table that is proved here is the one in carpool.drivers.gate_contract; the bench is in conftest.
"""

import select
import signal
import sys

import pytest

from carpool.drivers.clock import boottime_ns

MS = 10**6
VIRTUAL = "00005e000107"

pytestmark = pytest.mark.lab


@pytest.fixture(params=[pytest.param("bpf", marks=pytest.mark.bpf), "nft"])
def kind(request):
    """Return which gate."""
    return request.param


@pytest.fixture
def holder(bench, kind):
    """Return a holder with the usual group installed, shut."""
    holder = bench.hold(kind)
    holder.do("install", groups=[bench.group()])
    return holder


@pytest.fixture
def frames(bench):
    """Return the module that builds frames."""
    return sys.modules[type(bench).__module__]


def claims(frames):
    """Return, by name, frames by which the node would be the shared address."""
    node, everyone = frames.NODE_MAC, frames.BROADCAST
    shared4, shared6 = frames.SHARED4, frames.SHARED6
    all_nodes = bytes.fromhex("333300000001")
    target = bytes(4) + frames.IPv6Address(shared6).packed
    local = bytes(4) + frames.IPv6Address(frames.SHARED_LOCAL).packed
    own6 = frames.NODE6
    return {
        "announcement": frames.ethernet(
            everyone, node, 0x0806, frames.arp(1, node, shared4, shared4)
        ),
        "arp reply": frames.ethernet(
            frames.CLIENT_MAC, node, 0x0806, frames.arp(2, node, shared4, frames.CLIENT4)
        ),
        "v4 source": frames.ethernet(
            frames.CLIENT_MAC, node, 0x0800, frames.ipv4(shared4, frames.CLIENT4, 17, bytes(8))
        ),
        "v6 source": frames.ethernet(
            frames.CLIENT_MAC, node, 0x86DD, frames.ipv6(shared6, frames.CLIENT6, 17, bytes(8))
        ),
        "advertised target": frames.ethernet(
            all_nodes, node, 0x86DD, frames.icmp6(own6, "ff02::1", 136, target)
        ),
        "advertised link-local target": frames.ethernet(
            all_nodes, node, 0x86DD, frames.icmp6(own6, "ff02::1", 136, local)
        ),
    }


def innocents(frames):
    """Return, by name, frames a standby sends as everybody does."""
    node, everyone = frames.NODE_MAC, frames.BROADCAST
    own4, own6, shared6 = frames.NODE4, frames.NODE6, frames.SHARED6
    target = bytes(4) + frames.IPv6Address(shared6).packed
    own_target = bytes(4) + frames.IPv6Address(own6).packed
    group = frames.solicited(shared6)
    return {
        "who has the shared address": frames.ethernet(
            everyone, node, 0x0806, frames.arp(1, node, own4, frames.SHARED4)
        ),
        "to the shared v4 address": frames.ethernet(
            frames.CLIENT_MAC, node, 0x0800, frames.ipv4(own4, frames.SHARED4, 17, bytes(8))
        ),
        "to the shared v6 address": frames.ethernet(
            frames.CLIENT_MAC, node, 0x86DD, frames.ipv6(own6, shared6, 17, bytes(8))
        ),
        "solicited target": frames.ethernet(
            bytes.fromhex("3333ff000010"), node, 0x86DD, frames.icmp6(own6, group, 135, target)
        ),
        "own address advertised": frames.ethernet(
            bytes.fromhex("333300000001"),
            node,
            0x86DD,
            frames.icmp6(own6, "ff02::1", 136, own_target),
        ),
        "foreign vhid": advertisement(frames, 8),
        "VRRP": advertisement(frames, 7, auth_length=1),
    }


def advertisement(frames, vhid, auth_length=7, version=4):
    """Return a CARP advertisement's frame (or VRRP's)."""
    body = frames.carp_advertisement(vhid, auth_length)
    if version == 6:
        packet = frames.ipv6(frames.NODE6, "ff02::12", 112, body)
        return frames.ethernet(
            bytes.fromhex("333300000012"), bytes.fromhex("00005e000107"), 0x86DD, packet
        )
    packet = frames.ipv4(frames.NODE4, "224.0.0.18", 112, body, ttl=255)
    source = bytes.fromhex("00005e0001") + bytes([vhid])
    return frames.ethernet(bytes.fromhex("01005e000012"), source, 0x0800, packet)


def passes(bench, named):
    """Return the names of the node's frames that reach the client."""
    arrived = bench.node_wire.passed(bench.wire, list(named.values()))
    return {name for name, came in zip(named, arrived, strict=True) if came}


def test_claims_leave_only_while_open(bench, holder, frames):
    """Frames by which the node is the address leave only while the gate is open."""
    named = claims(frames)
    assert passes(bench, named) == set()
    holder.open()
    assert passes(bench, named) == set(named)
    holder.do("shut", group="edge")
    assert passes(bench, named) == set()


def test_a_standby_speaks_as_everybody_does(bench, holder, frames):
    """A shut gate stops no request for, no packet to the shared address, and nothing of others."""
    named = innocents(frames)
    # Not the link-local address: the node may choose it as source for its own multicast reports.
    holder.do("install", groups=[bench.group(v6=[frames.SHARED6])])
    before = holder.do("drops")
    assert passes(bench, named) == set(named)
    assert holder.do("drops") == before


@pytest.mark.usefixtures("holder")
def test_a_standby_is_a_client_of_the_true_master(bench):
    """With the address at the other host, the shut node pings it and learns its new MAC."""
    for version, address in (("-4", "192.0.2.10/24"), ("-6", "2001:db8::10/64")):
        bench.ip(bench.node, version, "addr", "del", address, "dev", "wire0")
        bench.ip(bench.client, version, "addr", "add", address, "dev", "wire0")
    for address in ("192.0.2.10", "2001:db8::10"):
        assert " 0% packet loss" in bench.run(
            bench.node, "ping", "-c", "3", "-i", "0.05", "-W", "3", address
        )


def test_an_announcement_of_the_true_master_is_heard(bench, holder, frames):
    """A gratuitous ARP request of the new master changes the shut node's neighbour table."""
    bench.ip(bench.node, "addr", "del", "192.0.2.10/24", "dev", "wire0")
    old = ("192.0.2.10", "lladdr", "02:c1:00:00:00:77", "dev", "wire0", "nud", "stale")
    bench.ip(bench.node, "neigh", "add", *old)
    mac = frames.CLIENT_MAC
    announcement = frames.arp(1, mac, frames.SHARED4, frames.SHARED4)
    bench.wire.send(frames.ethernet(frames.BROADCAST, mac, 0x0806, announcement))
    bench.wire.answers("arp")  # comes after it
    neighbours = bench.run(bench.node, "ip", "neigh", "show", "192.0.2.10")
    assert "02:c1:00:00:00:02" in neighbours
    assert holder.do("drops")["edge"] >= 5


def test_advertisements_have_a_deadline_of_their_own(bench, holder, frames):
    """Our CARP advertisements leave until advertise_until, v4 and v6, and never while shut."""
    named = {"v4": advertisement(frames, 7), "v6": advertisement(frames, 7, version=6)}
    assert passes(bench, named) == set()
    now = boottime_ns()
    holder.do("open", group="edge", serve=now + 60_000 * MS, advertise=now + 150 * MS)
    assert passes(bench, named) == set(named)
    while boottime_ns() < now + 165 * MS:
        select.select([], [], [], 0.005)
    assert passes(bench, named) == set()
    assert passes(bench, claims(frames)) == set(claims(frames))
    until = boottime_ns() + 60_000 * MS
    holder.do("renew", group="edge", serve=until, advertise=until)
    assert passes(bench, named) == set(named)


def test_frames_of_the_virtual_mac(bench, holder, frames):
    """Frames from and to the virtual MAC pass while open; an advertisement is judged as such."""
    mac = bytes.fromhex(VIRTUAL)
    named = {
        "from it": frames.ethernet(
            frames.BROADCAST, mac, 0x0806, frames.arp(1, mac, frames.NODE4, frames.CLIENT4)
        ),
        "advertisement": advertisement(frames, 7),
    }
    knock = frames.knock_echo(frames.NODE4, 77)
    to_it = mac + knock[6:]
    holder.do("install", groups=[bench.group(virtual_mac=VIRTUAL, v6=[])])
    assert passes(bench, named) == set()
    before = holder.do("drops")["edge"]
    bench.wire.passed(bench.node_wire, [to_it])
    assert holder.do("drops")["edge"] == before + 1
    now = boottime_ns()
    holder.do("open", group="edge", serve=now + 60_000 * MS, advertise=0)
    assert passes(bench, named) == {"from it"}
    before = holder.do("drops")["edge"]
    bench.wire.passed(bench.node_wire, [to_it])
    assert holder.do("drops")["edge"] == before


def forwarded(bench, frames):
    """Send a v4 and a v6 packet through the node; return how many come out at the other side."""
    source4, source6 = "10.99.0.2", "2001:db8:99::2"
    mac = bench.run(bench.client, "cat", "/sys/class/net/side0/address").strip().replace(":", "")
    packets = (
        (0x0800, frames.ipv4(source4, frames.CLIENT4, 17, bytes(8))),
        (0x86DD, frames.ipv6(source6, frames.CLIENT6, 17, bytes(8), hops=64)),
    )
    bench.wire.drain()
    for ethertype, packet in packets:
        frame = frames.ethernet(frames.SIDE_MAC, bytes.fromhex(mac), ethertype, packet)
        bench.side.send(frame)
    sources = (
        frames.IPv4Address(source4).packed,
        frames.IPv6Address(source6).packed,
    )
    seen = bench.wire.before_answer()
    return sum(frame[26:30] == sources[0] or frame[22:38] == sources[1] for frame in seen)


def test_a_firewall_forwards_only_while_open(bench, kind, frames):
    """What came in elsewhere leaves by a firewall group's interface only while it is open."""
    bench.run(bench.node, "sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
    bench.ip(bench.node, "route", "add", "2001:db8:99::/64", "dev", "side0")
    assert forwarded(bench, frames) == 2
    holder = bench.hold(kind)
    holder.do("install", groups=[bench.group()])
    assert forwarded(bench, frames) == 2
    holder.do("install", groups=[bench.group(firewall=True)])
    assert forwarded(bench, frames) == 0
    assert holder.do("drops")["edge"] >= 2
    holder.open()
    assert forwarded(bench, frames) == 2
    holder.do("shut", group="edge")
    assert forwarded(bench, frames) == 0
    # A second firewall group on the interface: any open one is enough.
    other = bench.group(group="other", slot=9, vhid=9, v4=[], v6=[], firewall=True)
    holder.do("install", groups=[bench.group(firewall=True), other])
    holder.open("other")
    assert forwarded(bench, frames) == 2
    holder.signal(signal.SIGKILL)
    holder.process.wait(10)
    end = boottime_ns() + 1000 * MS
    while forwarded(bench, frames):
        assert boottime_ns() < end


def wait_for_notice(holder_audit, wanted):
    """Audit until something is found, which must be at once when the notice has come."""
    end = boottime_ns() + 2000 * MS
    while boottime_ns() < end:
        found = holder_audit()
        if found:
            assert any(wanted in what for what in found), found
            return found
    raise AssertionError("the audit found nothing")


DAMAGE = {
    "bpf": {
        "clsact": (("tc", "qdisc", "del", "dev", "wire0", "clsact"), "clsact on wire0"),
        "one filter": (
            ("tc", "filter", "del", "dev", "wire0", "egress", "pref", "1"),
            "gate at wire0 egress",
        ),
    },
    "nft": {
        "ruleset": (("nft", "flush", "ruleset"), "table netdev carpool_gate"),
        "table": (("nft", "delete", "table", "netdev", "carpool_gate"), "table netdev"),
        "rules": (("nft", "flush", "chain", "netdev", "carpool_gate", "group_0"), "table netdev"),
        "addresses": (("nft", "flush", "map", "netdev", "carpool_gate", "v4"), "map netdev"),
    },
}
CASES = [
    pytest.param(gate, name, marks=[pytest.mark.bpf] if gate == "bpf" else [])
    for gate, cases in DAMAGE.items()
    for name in cases
]


@pytest.mark.parametrize(("gate", "name"), CASES)
def test_what_others_take_away_is_put_back(bench, frames, gate, name):
    """The audit finds what a foreign command removed, says so, repairs it; open stays open."""
    command, wanted = DAMAGE[gate][name]
    holder = bench.hold(gate)
    holder.do("install", groups=[bench.group()])
    assert holder.do("audit") == []
    bench.run(bench.node, *command)
    assert passes(bench, claims(frames))  # the hole
    wait_for_notice(lambda: holder.do("audit"), wanted)
    assert passes(bench, claims(frames)) == set()
    assert bench.wire.answers("arp") == 0
    assert holder.do("audit") == []
    holder.open()
    bench.run(bench.node, *command)
    wait_for_notice(lambda: holder.do("audit"), wanted)
    assert passes(bench, claims(frames)) == set(claims(frames))
    assert bench.wire.answers("arp") == 5
    holder.do("shut", group="edge")
    assert passes(bench, claims(frames)) == set()


def test_a_renewal_survives_a_flush(bench, frames):
    """With nft, a renewal that finds the table flushed puts it back instead of giving up."""
    holder = bench.hold("nft")
    holder.do("install", groups=[bench.group()])
    holder.open()
    bench.run(bench.node, "nft", "flush", "ruleset")
    until = boottime_ns() + 60_000 * MS
    holder.do("renew", group="edge", serve=until, advertise=until)
    assert passes(bench, claims(frames)) == set(claims(frames))
    bench.run(bench.node, "nft", "flush", "ruleset")
    holder.do("shut", group="edge")
    assert passes(bench, claims(frames)) == set()


def test_a_notice_wakes_and_our_own_changes_do_not(bench, holder):
    """The descriptor to watch is quiet for our changes and readable after somebody else's."""
    foreign = {
        "bpf": ("tc", "qdisc", "add", "dev", "side0", "clsact"),
        "nft": ("nft", "add", "table", "inet", "foreign"),
    }[holder.do("kind")]
    holder.do("audit")
    holder.open()
    until = boottime_ns() + 1000 * MS
    holder.do("renew", group="edge", serve=until, advertise=until)
    holder.do("shut", group="edge")
    holder.do("install", groups=[bench.group(v4=["192.0.2.10", "192.0.2.12"])])
    assert holder.do("readable", milliseconds=0) is False
    bench.run(bench.node, *foreign)
    assert holder.do("readable", milliseconds=2000) is True
    assert holder.do("audit") == []
    assert holder.do("readable", milliseconds=0) is False


def test_an_interface_that_is_made_anew(bench, holder, kind):
    """Without its interface a group stays installed; when that comes back it is guarded again."""
    bench.ip(bench.node, "link", "del", "wire0")
    holder.do("audit")
    holder.do("install", groups=[bench.group(ifindex=0)])
    bench.ip(bench.node, "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    bench.ip(bench.node, "link", "set", "wire0", "up")
    index = int(bench.run(bench.node, "cat", "/sys/class/net/wire0/ifindex"))
    holder.do("install", groups=[bench.group(ifindex=index)])
    shown = {
        "bpf": ("tc", "filter", "show", "dev", "wire0", "egress"),
        "nft": ("nft", "list", "chains", "netdev"),
    }[kind]
    assert {"bpf": "carpool_gate", "nft": 'device "wire0"'}[kind] in bench.run(bench.node, *shown)
    holder.do("remove")


@pytest.mark.bpf
def test_the_filters_of_others_stay(bench):
    """A foreign clsact with a foreign filter is used, and is there after the clean stop."""
    bench.run(bench.node, "tc", "qdisc", "add", "dev", "wire0", "clsact")
    before = bench.traces()
    holder = bench.hold("bpf")
    holder.do("install", groups=[bench.group()])
    assert bench.wire.answers("arp") == 0
    holder.do("remove")
    assert bench.traces() == before


@pytest.mark.bpf
def test_an_ingress_qdisc_in_the_way_is_named(bench):
    """Where the old ingress qdisc stands there is no egress: the refusal says what to remove."""
    bench.run(bench.node, "tc", "qdisc", "add", "dev", "wire0", "ingress")
    holder = bench.hold("bpf")
    groups = [bench.group()]
    holder.send("install", groups=groups)
    refusal = holder.process.stdout.readline()
    assert "DriverError" in refusal
    assert "tc qdisc del dev NAME ingress" in refusal
