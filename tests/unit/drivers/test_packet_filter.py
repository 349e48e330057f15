"""Socket filters, run by the kernel itself on a pair of local sockets: no rights, no network.

The kernel runs the same program on a datagram of a local socket as on a frame; what is refused
there simply does not arrive.
"""

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.drivers.packet_filter import (
    RANGES_MAX,
    ArpMatch,
    CarpV4Match,
    CarpV6Match,
    Match,
    NeighbourMatch,
    build_filter,
    merge_ranges,
)
from carpool.drivers.rawsock import attach_filter

MACS = bytes(12)
PEER = IPv4Address("192.0.2.7")
TARGET = IPv6Address("2001:db8::10")


def carp_v4(
    vhid: int, *, ttl: int = 255, source: str = "192.0.2.1", options: int = 0, fragment: int = 0
) -> bytes:
    """Return a CARP frame over IPv4 with so many words of IP options."""
    addresses = IPv4Address(source).packed + IPv4Address("224.0.0.18").packed
    header = struct.pack("!BBHHHBBH", 0x45 + options, 0, 56, 0, fragment, ttl, 112, 0)
    return MACS + b"\x08\x00" + header + addresses + bytes(4 * options) + bytes([0x21, vhid, 0, 7])


def carp_v6(vhid: int, *, hops: int = 255, protocol: int = 112) -> bytes:
    """Return a CARP frame over IPv6."""
    header = struct.pack("!IHBB", 6 << 28, 36, protocol, hops) + bytes(32)
    return MACS + b"\x86\xdd" + header + bytes([0x21, vhid, 0, 7])


def arp(sender: str) -> bytes:
    """Return an ARP frame."""
    return MACS + b"\x08\x06" + bytes(14) + IPv4Address(sender).packed + bytes(10)


def neighbour(kind: int, target: IPv6Address, source: str = "fe80::1") -> bytes:
    """Return an ICMPv6 frame with a target."""
    header = struct.pack("!IHBB", 6 << 28, 24, 58, 255) + IPv6Address(source).packed + bytes(16)
    return MACS + b"\x86\xdd" + header + bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + target.packed


def accepted(matches: Sequence[Match], frames: Sequence[bytes]) -> list[bool]:
    """Return for each frame whether the kernel's filter lets it through."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with near, far:
        attach_filter(far, build_filter(matches))
        answers: list[bool] = []
        for frame in frames:
            near.send(frame)
            try:
                answers.append(far.recv(4096) == frame)
            except BlockingIOError:
                answers.append(False)
    return answers


def test_carp_v4_wants_vhid_and_ttl() -> None:
    """Only CARP for our vhids passes, with TTL 255 or from a unicast peer, options or not."""
    frames = {
        carp_v4(7): True,
        carp_v4(7, options=3): True,
        carp_v4(8): False,
        carp_v4(7, ttl=254): False,
        carp_v4(7, ttl=64, source=str(PEER)): True,
        carp_v4(8, ttl=64, source=str(PEER)): False,
        carp_v4(7, fragment=1): False,
        carp_v4(7)[:20]: False,
        carp_v6(7): False,
        arp("192.0.2.1"): False,
        b"": False,
    }
    answers = accepted([CarpV4Match({7, 200}, (PEER,))], list(frames))
    assert dict(zip(frames, answers, strict=True)) == frames


def test_carp_v6_wants_vhid_and_hop_limit() -> None:
    """Only CARP over IPv6 for our vhids and from this link passes."""
    frames = {
        carp_v6(9): True,
        carp_v6(10): False,
        carp_v6(9, hops=254): False,
        carp_v6(9, protocol=58): False,
        carp_v4(9): False,
    }
    answers = accepted([CarpV6Match({9})], list(frames))
    assert dict(zip(frames, answers, strict=True)) == frames


def test_arp_by_sender() -> None:
    """ARP passes from given senders, or from all when none is given."""
    frames = [arp("192.0.2.10"), arp("192.0.2.99"), carp_v4(1)]
    assert accepted([ArpMatch((IPv4Address("192.0.2.10"),))], frames) == [True, False, False]
    assert accepted([ArpMatch()], frames) == [True, True, False]


def test_neighbour_by_target_or_source() -> None:
    """NS and NA pass about a target, NS also from it; other ICMPv6 never."""
    other = IPv6Address("2001:db8::99")
    frames = {
        neighbour(135, TARGET): True,
        neighbour(136, TARGET): True,
        neighbour(136, other): False,
        neighbour(135, other, source=str(TARGET)): True,
        neighbour(128, TARGET): False,
    }
    answers = accepted([NeighbourMatch((TARGET,))], list(frames))
    assert dict(zip(frames, answers, strict=True)) == frames
    assert accepted([NeighbourMatch()], list(frames)) == [True, True, True, True, False]


def test_any_of_several_matches() -> None:
    """One filter of all matches accepts what each accepts, and no match accepts nothing."""
    matches: list[Match] = [
        CarpV4Match({1}),
        CarpV6Match({2}),
        ArpMatch((IPv4Address("192.0.2.10"),)),
        NeighbourMatch((TARGET,)),
    ]
    good = [carp_v4(1), carp_v6(2), arp("192.0.2.10"), neighbour(136, TARGET)]
    bad = [carp_v4(2), carp_v6(1), arp("192.0.2.11"), neighbour(136, IPv6Address("::1")), b"x" * 60]
    assert accepted(matches, good + bad) == [True] * 4 + [False] * 5
    assert accepted([], good) == [False] * 4


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 255), max_size=256))
def test_every_set_of_vhids(vhids: set[int]) -> None:
    """For any set of vhids the filter passes exactly these, over both families."""
    everything = range(256)
    matches: list[Match] = [CarpV4Match(vhids), CarpV6Match(vhids)]
    expected = [vhid in vhids for vhid in everything]
    assert accepted(matches, [carp_v4(vhid) for vhid in everything]) == expected
    assert accepted(matches, [carp_v6(vhid) for vhid in everything]) == expected


@pytest.mark.parametrize("count", [1, RANGES_MAX, 1000])
def test_many_addresses_still_fit(count: int) -> None:
    """However many and however scattered the addresses are, each of them passes."""
    senders = tuple(IPv4Address(0x0A000001 + 7 * index) for index in range(count))
    targets = tuple(IPv6Address((0x20010DB8 << 96) + 11 * index) for index in range(count))
    matches: list[Match] = [
        CarpV4Match({1}, senders),
        ArpMatch(senders),
        NeighbourMatch(targets),
    ]
    frames = [arp(str(sender)) for sender in senders]
    frames += [neighbour(136, target) for target in targets]
    frames += [carp_v4(1, ttl=3, source=str(senders[-1]))]
    assert all(accepted(matches, frames))
    assert accepted(matches, [arp("9.255.255.255"), carp_v4(2)]) == [False, False]


@given(st.sets(st.integers(0, 2**32 - 1), max_size=200), st.integers(1, 20))
def test_ranges_hold_everything(values: set[int], limit: int) -> None:
    """Merged ranges hold all values, ascend, do not touch and are not more than allowed."""
    ranges = merge_ranges(values, limit)
    assert len(ranges) <= limit
    assert all(any(first <= value <= last for first, last in ranges) for value in values)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
    assert all(first in values and last in values for first, last in ranges)
