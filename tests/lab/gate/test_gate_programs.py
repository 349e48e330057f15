"""The BPF programs frame by frame, by BPF_PROG_TEST_RUN: no cable, no other machine.

The gate is really loaded and installed, on the loopback interface of an empty namespace.
"""

import ctypes
import errno
import os
import struct
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carpool.base.time import Instant
from carpool.drivers.bpf.syscall import BpfError, call_in_place, delete_element
from carpool.drivers.bpf_gate import BpfGate
from carpool.drivers.clock import boottime_ns
from carpool.drivers.gate import GateGroup
from carpool.drivers.tc import Direction

pytestmark = [pytest.mark.lab, pytest.mark.bpf]

PASS, DROP = 0xFFFF_FFFF, 2  # TC_ACT_UNSPEC: on to the next filter; TC_ACT_SHOT
TEST_RUN = 10
LOOPBACK = 1
ATTRIBUTES = struct.Struct("=IIIIQQIIIIQQIIII")
CONTEXT_BYTES = 192  # struct __sk_buff up to tstamp_type
VIRTUAL = bytes.fromhex("00005e000107")
OWN, PEER, EVERYONE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), b"\xff" * 6
V4, V6, LOCAL = IPv4Address("192.0.2.10"), IPv6Address("2001:db8::10"), IPv6Address("fe80::10")
OTHER4, OTHER6 = IPv4Address("192.0.2.9"), IPv6Address("2001:db8::9")
EDGE = GateGroup("edge", 3, "lo", LOOPBACK, 7, (V4,), (V6, LOCAL), VIRTUAL)
ALSO = GateGroup("also", 254, "lo", LOOPBACK, 8, (IPv4Address("192.0.2.20"),), ())
ALSO4 = ALSO.v4[0]


class Bed:
    """A gate and a way to run its programs."""

    def __init__(self) -> None:
        """Load."""
        self.gate = BpfGate()
        self.programs = {
            Direction.INGRESS: self.gate._loaded.programs["gate_ingress"],
            Direction.EGRESS: self.gate._loaded.programs["gate_egress"],
        }

    def run(self, direction: Direction, frame: bytes, *, came_in: int = 0) -> int:
        """Return the verdict on a frame; came_in: the interface it is forwarded from."""
        data = ctypes.create_string_buffer(frame, len(frame))
        context = bytearray(CONTEXT_BYTES)
        struct.pack_into("=II", context, 36, came_in, LOOPBACK)
        given_context = ctypes.create_string_buffer(bytes(context), CONTEXT_BYTES)
        attributes = ctypes.create_string_buffer(
            ATTRIBUTES.pack(
                self.programs[direction],
                0,
                len(frame),
                0,
                ctypes.addressof(data),
                0,
                1,
                0,
                CONTEXT_BYTES,
                0,
                ctypes.addressof(given_context),
                0,
                0,
                0,
                0,
                0,
            )
        )
        try:
            call_in_place(TEST_RUN, attributes, "run a program")
        except BpfError as exc:
            # The kernel's test bench refuses frames that are shorter than their IP header.
            if exc.code == errno.EINVAL and len(frame) < 60:
                return PASS
            if exc.code != errno.ENOSPC:  # the frame itself is not asked back
                raise
        return struct.unpack_from("=I", attributes, 4)[0]

    def open(self, group: str) -> None:
        """Open for a minute."""
        until = Instant(boottime_ns() + 60 * 10**9)
        self.gate.open(group, until, until)


@pytest.fixture
def bed(request):
    """Return a bed with two groups, shut, in a namespace of its own."""
    bench = sys.modules[request.getfixturevalue("gate_bench_module")]
    name = f"cp-{os.getpid()}-{next(bench.NUMBERS)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with bench.inside(name):
            bed = Bed()
            bed.gate.install([EDGE, ALSO])
            yield bed
            bed.gate.remove()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def frame(kind, body, mac_from=OWN, mac_to=PEER, tags=()):
    """Return an Ethernet frame, tagged if so wanted, at least 60 bytes long."""
    head = mac_to + mac_from
    for protocol, vlan in tags:
        head += struct.pack("!HH", protocol, vlan)
    return (head + struct.pack("!H", kind) + body).ljust(60, b"\0")


def arp(operation, sender, target, **words):
    """Return an ARP frame."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    body = head + OWN + sender.packed + bytes(6) + target.packed
    return frame(0x0806, body, **words)


def ipv4(source, destination, protocol=17, body=b"", options=b"", **words):
    """Return an IPv4 frame."""
    length = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | length, 0, 0, 0, 0, 255, protocol, 0)
    return frame(0x0800, head + source.packed + destination.packed + options + body, **words)


def ipv6(source, destination, following=17, body=b"", **words):
    """Return an IPv6 frame."""
    head = struct.pack("!IHBB", 6 << 28, len(body), following, 255)
    return frame(0x86DD, head + source.packed + destination.packed + body, **words)


def neighbour(kind, target, source=OTHER6, extensions=(), **words):
    """Return a neighbour message behind extension headers, given by their numbers."""
    body = struct.pack("!BBHI", kind, 0, 0, 0) + target.packed
    following = 58
    for number in reversed(extensions):
        if number == 51:  # the authentication header counts in fours
            body = struct.pack("!BBH", following, 4, 0) + bytes(20) + body
        elif number == 44:
            body = struct.pack("!BBHI", following, 0, 1, 9) + body
        else:
            body = struct.pack("!BB", following, 1) + bytes(14) + body
        following = number
    return ipv6(source, IPv6Address("ff02::1"), following, body, **words)


def carp(vhid, first=0x21, auth_length=7):
    """Return the payload of an advertisement."""
    return bytes([first, vhid, 0, auth_length]) + bytes(32)


ANY4, GROUP4 = IPv4Address("192.0.2.1"), IPv4Address("224.0.0.18")
GROUP6 = IPv6Address("ff02::12")
TAG, OUTER = (0x8100, 10), (0x88A8, 20)
EGRESS_GUARDED = {
    "arp request": arp(1, V4, OTHER4),
    "arp reply": arp(2, V4, OTHER4),
    "announcement": arp(1, V4, V4),
    "tagged arp": arp(2, V4, OTHER4, tags=[TAG]),
    "twice tagged arp": arp(2, V4, OTHER4, tags=[OUTER, TAG]),
    "ip": ipv4(V4, OTHER4),
    "ip with options": ipv4(V4, OTHER4, options=bytes(8)),
    "tagged ip": ipv4(V4, OTHER4, tags=[TAG]),
    "ipv6": ipv6(V6, OTHER6),
    "ipv6 link-local": ipv6(LOCAL, OTHER6),
    "solicitation from it": neighbour(135, OTHER6, source=V6),
    "advertisement of it": neighbour(136, V6),
    "advertisement of link-local": neighbour(136, LOCAL),
    "advertisement, hop-by-hop": neighbour(136, V6, extensions=[0]),
    "advertisement, five headers": neighbour(136, V6, extensions=[0, 60, 43, 51, 60]),
    "tagged advertisement": neighbour(136, V6, tags=[TAG]),
    "virtual mac": arp(1, ANY4, OTHER4, mac_from=VIRTUAL),
    "virtual mac, unknown protocol": frame(0x88CC, bytes(40), mac_from=VIRTUAL),
    "own vhid": ipv4(ANY4, GROUP4, 112, carp(7)),
    "own vhid, virtual mac": ipv4(ANY4, GROUP4, 112, carp(7), mac_from=VIRTUAL),
    "own vhid, options": ipv4(ANY4, GROUP4, 112, carp(7), options=bytes(4)),
    "own vhid, v6": ipv6(OTHER6, GROUP6, 112, carp(7)),
    "own vhid, tagged": ipv4(ANY4, GROUP4, 112, carp(7), tags=[TAG]),
}
INGRESS_GUARDED = {
    "who has it": arp(1, OTHER4, V4, mac_to=EVERYONE),
    "probe for it": arp(1, IPv4Address("0.0.0.0"), V4, mac_to=EVERYONE),
    "tagged who has it": arp(1, OTHER4, V4, tags=[TAG]),
    "ip": ipv4(OTHER4, V4),
    "ipv6": ipv6(OTHER6, V6),
    "ipv6 link-local": ipv6(OTHER6, LOCAL),
    "solicitation": neighbour(135, V6),
    "solicitation of link-local": neighbour(135, LOCAL),
    "solicitation, options header": neighbour(135, V6, extensions=[60]),
    "virtual mac": ipv4(OTHER4, ANY4, mac_to=VIRTUAL),
}
EGRESS_FREE = {
    "arp for it": arp(1, OTHER4, V4),
    "ip to it": ipv4(OTHER4, V4),
    "ipv6 to it": ipv6(OTHER6, V6),
    "solicitation": neighbour(135, V6),
    "advertisement of another": neighbour(136, OTHER6),
    "foreign vhid": ipv4(ANY4, GROUP4, 112, carp(9)),
    "VRRPv2": ipv4(ANY4, GROUP4, 112, carp(7, auth_length=1)),
    "VRRPv3": ipv4(ANY4, GROUP4, 112, carp(7, first=0x31)),
    "to the virtual mac": ipv4(OTHER4, ANY4, mac_to=VIRTUAL),
    "three tags are not looked through": arp(2, V4, OTHER4, tags=[OUTER, OUTER, TAG]),
    "in a fragment": neighbour(136, V6, extensions=[44]),
    "behind seven headers": neighbour(136, V6, extensions=[60] * 7),
    "another protocol in arp": frame(
        0x0806, struct.pack("!HHBBH", 1, 0x86DD, 6, 4, 2) + OWN + V4.packed + bytes(10)
    ),
    "unknown": frame(0x88CC, bytes(40)),
}
INGRESS_FREE = {
    "reply of the master": arp(2, V4, ANY4),
    "announcement of the master": arp(1, V4, V4, mac_to=EVERYONE),
    "ip from it": ipv4(V4, ANY4),
    "ipv6 from it": ipv6(V6, OTHER6),
    "advertisement of it": neighbour(136, V6),
    "solicitation of another": neighbour(135, OTHER6),
    "advertisement of the vhid": ipv4(OTHER4, GROUP4, 112, carp(7)),
    "from the virtual mac": ipv4(OTHER4, ANY4, mac_from=VIRTUAL),
}


@pytest.mark.parametrize("direction", [Direction.EGRESS, Direction.INGRESS])
def test_every_frame_of_the_table(bed, direction):
    """Guarded frames pass while their group is open and only then; free ones always."""
    guarded = EGRESS_GUARDED if direction == Direction.EGRESS else INGRESS_GUARDED
    free = EGRESS_FREE if direction == Direction.EGRESS else INGRESS_FREE
    wanted = dict.fromkeys(guarded, DROP) | dict.fromkeys(free, PASS)

    def verdicts():
        return {name: bed.run(direction, data) for name, data in (guarded | free).items()}

    assert verdicts() == wanted
    assert bed.gate.drops() == {"edge": len(guarded), "also": 0}
    bed.open("also")
    assert verdicts() == wanted
    bed.open("edge")
    assert verdicts() == dict.fromkeys(wanted, PASS)
    bed.gate.shut("edge")
    assert verdicts() == wanted


def test_a_frame_of_two_groups_needs_both(bed):
    """A frame from one group's MAC with another's address passes when both are open."""
    both = ipv4(ALSO4, OTHER4, mac_from=VIRTUAL)
    drops = []
    for opened in ([], ["edge"], ["also"], ["edge", "also"]):
        for name in ("edge", "also"):
            bed.gate.shut(name)
        for name in opened:
            bed.open(name)
        drops.append((bed.run(Direction.EGRESS, both), bed.gate.drops()))
    assert [verdict for verdict, _counts in drops] == [DROP, DROP, DROP, PASS]
    assert drops[-1][1] == {"edge": 2, "also": 1}


def test_three_slots_in_one_frame(bed):
    """MAC, source and target may belong to different groups: all of them count."""
    third = GateGroup("third", 9, "lo", LOOPBACK, 9, (), (IPv6Address("2001:db8::30"),))
    also = GateGroup("also", 254, "lo", LOOPBACK, 8, ALSO.v4, (IPv6Address("2001:db8::20"),))
    bed.gate.install([EDGE, also, third])
    data = neighbour(136, third.v6[0], source=also.v6[0], tags=[TAG])
    data = data[:6] + VIRTUAL + data[12:]
    names = ("edge", "also", "third")
    for missing in (*names, None):
        for name in names:
            bed.gate.shut(name)
            if name != missing:
                bed.open(name)
        assert bed.run(Direction.EGRESS, data) == (DROP if missing else PASS)


def test_both_deadlines(bed):
    """Addresses are served until serve_until, advertisements sent until advertise_until."""
    now = boottime_ns()
    past, coming = Instant(now - 1), Instant(now + 60 * 10**9)
    address, advert = ipv4(V4, OTHER4), ipv4(ANY4, GROUP4, 112, carp(7))
    bed.gate.open("edge", past, coming)
    assert bed.run(Direction.EGRESS, address) == DROP
    assert bed.run(Direction.EGRESS, advert) == PASS
    bed.gate.open("edge", coming, past)
    assert bed.run(Direction.EGRESS, address) == PASS
    assert bed.run(Direction.EGRESS, advert) == DROP


def test_permission_is_asked_besides_the_deadline(bed):
    """With a deadline ahead, nothing passes without the permit or without the holder's socket."""
    address = ipv4(V4, OTHER4)
    bed.open("edge")
    assert bed.run(Direction.EGRESS, address) == PASS
    delete_element(bed.gate._maps["holder"], bytes(4))
    assert bed.run(Direction.EGRESS, address) == DROP
    delete_element(bed.gate._maps["permits"], struct.pack("=I", EDGE.slot))
    assert bed.run(Direction.EGRESS, address) == DROP
    assert bed.gate.drops()["edge"] == 2


def test_transit_needs_any_open_firewall_group(bed):
    """Forwarded packets are stopped unless a firewall group is open; local ones never are."""
    fire = [
        GateGroup(group.group, group.slot, "lo", LOOPBACK, group.vhid, group.v4, (), None, True)
        for group in (EDGE, ALSO)
    ]
    bed.gate.install(fire)
    transit = ipv4(OTHER4, ANY4)
    assert bed.run(Direction.EGRESS, transit) == PASS
    assert bed.run(Direction.EGRESS, transit, came_in=LOOPBACK) == DROP
    assert bed.run(Direction.EGRESS, ipv6(OTHER6, GROUP6), came_in=LOOPBACK) == DROP
    assert bed.run(Direction.EGRESS, arp(1, OTHER4, ANY4), came_in=LOOPBACK) == PASS
    assert bed.run(Direction.INGRESS, transit) == PASS
    bed.open("also")
    assert bed.run(Direction.EGRESS, transit, came_in=LOOPBACK) == PASS
    bed.gate.shut("also")
    assert bed.run(Direction.EGRESS, transit, came_in=LOOPBACK) == DROP
    bed.open("edge")
    assert bed.run(Direction.EGRESS, transit, came_in=LOOPBACK) == PASS


def test_truncated_frames(bed):
    """Every prefix of a guarded frame gets a verdict, and none of them opens the gate."""
    for data in (*EGRESS_GUARDED.values(), *INGRESS_GUARDED.values()):
        for length in range(14, len(data)):
            verdicts = {bed.run(direction, data[:length]) for direction in Direction}
            assert verdicts <= {PASS, DROP}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    head=st.binary(min_size=12, max_size=12),
    kind=st.sampled_from([b"\x08\x06", b"\x08\0", b"\x86\xdd", b"\x81\0\0\1\x86\xdd"]),
    body=st.binary(max_size=120),
)
def test_any_bytes_get_a_verdict(bed, head, kind, body):
    """Whatever comes, the programs answer pass or drop."""
    data = head + kind + body
    assert {bed.run(direction, data) for direction in Direction} <= {PASS, DROP}
