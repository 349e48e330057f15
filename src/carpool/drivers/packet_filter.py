"""Kernel socket filters: which frames wake the election, decided before they cost us anything.

Classic BPF is assembled here from a few matches; a frame that any of them accepts is delivered.
A filter may accept a little more than asked (neighbouring addresses are merged into ranges), never
less: `wire` judges what arrives. Follows the kernel's Documentation/networking/filter.rst.

    offsets in the frame:   0 destination   6 source   12 ethertype   14 IP header
    IPv4:  14 ihl   20 fragment   22 ttl   23 protocol   26 source   CARP vhid at 15 + 4 * ihl
    IPv6:  20 next header   21 hop limit   22 source   38 destination   CARP vhid at 55
    ND:    54 type   62 target         ARP:  28 sender address
"""

import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Final, TypeAlias

ETH_P_ALL: Final = 0x0003
ETH_P_IP: Final = 0x0800
ETH_P_ARP: Final = 0x0806
ETH_P_IPV6: Final = 0x86DD

SNAP_BYTES: Final = 2048  # of an accepted frame this much is delivered; ours are far shorter
RANGES_MAX: Final = 48  # address ranges a match, so that every jump fits its eight bits

_PROTOCOL_CARP: Final = 112
_PROTOCOL_ICMPV6: Final = 58
_NEIGHBOUR_SOLICITATION: Final = 135
_NEIGHBOUR_ADVERTISEMENT: Final = 136
_PACKET_OTHERHOST: Final = 3
_PACKET_OUTGOING: Final = 4

# Operation codes of linux/bpf_common.h.
_LOAD_WORD: Final = 0x20
_LOAD_HALF: Final = 0x28
_LOAD_BYTE: Final = 0x30
_LOAD_BYTE_INDEXED: Final = 0x50
_LOAD_IMMEDIATE: Final = 0x00
_LOADX_MEMORY: Final = 0x61
_LOADX_IP_HEADER: Final = 0xB1  # X = 4 * (byte & 15)
_STORE: Final = 0x02
_SHIFT_LEFT_BY_X: Final = 0x6C
_SHIFT_RIGHT: Final = 0x74
_AND: Final = 0x54
_COPY_TO_X: Final = 0x07
_COPY_FROM_X: Final = 0x87
_JUMP: Final = 0x05
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER: Final = 0x25
_JUMP_GREATER_EQUAL: Final = 0x35
_JUMP_BITS: Final = 0x45
_RETURN: Final = 0x06
# Where the kernel keeps a packet's type and VLAN tag: SKF_AD_OFF plus 4 and 44.
_PACKET_TYPE: Final = 0xFFFFF004
_VLAN_TAG: Final = 0xFFFFF02C
_VLAN_NUMBER: Final = 0x0FFF  # without priority bits; 0 is no VLAN, tagged for its priority only

_INSTRUCTION: Final = struct.Struct("=HBBI")
_NEXT: Final = ""  # the label of the instruction that follows


@dataclass(frozen=True, slots=True)
class CarpV4Match:
    """CARP over IPv4 to us: TTL 255, or any TTL from a known unicast peer."""

    vhids: Collection[int]
    peers: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class CarpV6Match:
    """CARP over IPv6 to us, hop limit 255."""

    vhids: Collection[int]


@dataclass(frozen=True, slots=True)
class ArpMatch:
    """ARP of IPv4 senders; of any sender when none is given."""

    senders: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class NeighbourMatch:
    """IPv6 neighbour solicitations and advertisements about these targets; about any if none."""

    targets: tuple[IPv6Address, ...] = ()


Match: TypeAlias = CarpV4Match | CarpV6Match | ArpMatch | NeighbourMatch


class _Assembler:
    """Instructions whose jumps name labels; labels become distances at the end."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def add(self, code: int, value: int = 0, yes: str = _NEXT, no: str = _NEXT) -> None:
        """Append one instruction."""
        self._code.append((code, yes, no, value))

    def label(self, name: str) -> None:
        """Name the place of the next instruction."""
        self._labels[name] = len(self._code)

    def finish(self) -> bytes:
        """Return the program as an array of struct sock_filter."""
        out = bytearray()
        for place, (code, yes, no, value) in enumerate(self._code):
            if code == _JUMP:
                out += _INSTRUCTION.pack(code, 0, 0, self._labels[yes] - place - 1)
                continue
            jumps = [self._labels[name] - place - 1 if name else 0 for name in (yes, no)]
            out += _INSTRUCTION.pack(code, *jumps, value)
        return bytes(out)


def merge_ranges(values: Iterable[int], limit: int = RANGES_MAX) -> list[tuple[int, int]]:
    """Return at most `limit` ranges (first, last) that hold all `values` and as little else."""
    ranges: list[tuple[int, int]] = []
    for value in sorted(set(values)):
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], value)
        else:
            ranges.append((value, value))
    if len(ranges) <= limit:
        return ranges
    # Keep the widest gaps; close the others.
    gaps = sorted(range(1, len(ranges)), key=lambda i: ranges[i - 1][1] - ranges[i][0])
    kept = [0, *sorted(gaps[: limit - 1]), len(ranges)]
    return [(ranges[start][0], ranges[end - 1][1]) for start, end in pairwise(kept)]


def build_filter(matches: Sequence[Match]) -> bytes:
    """Return the socket filter (an array of struct sock_filter) that accepts any of `matches`.

    Our own outgoing frames and frames of a VLAN (they belong to the VLAN's interface) are never
    accepted.
    """
    assembler = _Assembler()
    assembler.add(_LOAD_BYTE, _PACKET_TYPE)
    assembler.add(_JUMP_EQUAL, _PACKET_OUTGOING, no="tag")
    assembler.add(_RETURN, 0)
    assembler.label("tag")
    assembler.add(_LOAD_HALF, _VLAN_TAG)
    assembler.add(_JUMP_BITS, _VLAN_NUMBER, no="match 0")
    assembler.add(_RETURN, 0)
    for number, match in enumerate(matches):
        assembler.label(f"match {number}")
        _add_match(assembler, match, f"accept {number}", f"refuse {number}")
        # Each match has its own ends, so that conditional jumps (at most 255 far) reach them.
        assembler.label(f"accept {number}")
        assembler.add(_RETURN, SNAP_BYTES)
        assembler.label(f"refuse {number}")
        assembler.add(_JUMP, yes=f"match {number + 1}")
    assembler.label(f"match {len(matches)}")
    assembler.add(_RETURN, 0)
    return assembler.finish()


def _add_match(assembler: _Assembler, match: Match, accept: str, refuse: str) -> None:
    """Append the instructions of one match; they end at `accept` or `refuse`."""
    match match:
        case CarpV4Match():
            _add_carp_v4(assembler, match, accept, refuse)
        case CarpV6Match():
            _add_carp_v6(assembler, match, accept, refuse)
        case ArpMatch():
            _add_arp(assembler, match, accept, refuse)
        case NeighbourMatch():
            _add_neighbour(assembler, match, accept, refuse)


def _require(assembler: _Assembler, load: int, offset: int, value: int, refuse: str) -> None:
    """Append: what is loaded from `offset` must be `value`."""
    assembler.add(load, offset)
    assembler.add(_JUMP_EQUAL, value, no=refuse)


def _refuse_other_host(assembler: _Assembler, refuse: str) -> None:
    """Append: a frame to another machine's MAC, seen only in promiscuous mode, is not for us."""
    assembler.add(_LOAD_BYTE, _PACKET_TYPE)
    assembler.add(_JUMP_EQUAL, _PACKET_OTHERHOST, yes=refuse)


def _add_carp_v4(assembler: _Assembler, match: CarpV4Match, accept: str, refuse: str) -> None:
    """Append the test for CARP over IPv4."""
    vhid = f"{accept} vhid"
    _require(assembler, _LOAD_HALF, 12, ETH_P_IP, refuse)
    _require(assembler, _LOAD_BYTE, 23, _PROTOCOL_CARP, refuse)
    _refuse_other_host(assembler, refuse)
    assembler.add(_LOAD_HALF, 20)
    assembler.add(_JUMP_BITS, 0x1FFF, yes=refuse)  # a later fragment has no CARP header
    assembler.add(_LOAD_BYTE, 22)
    assembler.add(_JUMP_EQUAL, 255, yes=vhid)
    assembler.add(_LOAD_WORD, 26)
    _add_ranges(assembler, map(int, match.peers), vhid, refuse)
    assembler.label(vhid)
    assembler.add(_LOADX_IP_HEADER, 14)
    assembler.add(_LOAD_BYTE_INDEXED, 15)
    _add_byte_set(assembler, match.vhids, accept, refuse)


def _add_carp_v6(assembler: _Assembler, match: CarpV6Match, accept: str, refuse: str) -> None:
    """Append the test for CARP over IPv6."""
    _require(assembler, _LOAD_HALF, 12, ETH_P_IPV6, refuse)
    _require(assembler, _LOAD_BYTE, 20, _PROTOCOL_CARP, refuse)
    _require(assembler, _LOAD_BYTE, 21, 255, refuse)
    _refuse_other_host(assembler, refuse)
    assembler.add(_LOAD_BYTE, 55)
    _add_byte_set(assembler, match.vhids, accept, refuse)


def _add_arp(assembler: _Assembler, match: ArpMatch, accept: str, refuse: str) -> None:
    """Append the test for ARP."""
    _require(assembler, _LOAD_HALF, 12, ETH_P_ARP, refuse)
    if match.senders:
        assembler.add(_LOAD_WORD, 28)
        _add_ranges(assembler, map(int, match.senders), accept, refuse)


def _add_neighbour(assembler: _Assembler, match: NeighbourMatch, accept: str, refuse: str) -> None:
    """Append the test for neighbour discovery: the last 32 bits of target or source decide."""
    kind = f"{accept} kind"
    source = f"{accept} source"
    _require(assembler, _LOAD_HALF, 12, ETH_P_IPV6, refuse)
    _require(assembler, _LOAD_BYTE, 20, _PROTOCOL_ICMPV6, refuse)
    assembler.add(_LOAD_BYTE, 54)
    assembler.add(_JUMP_EQUAL, _NEIGHBOUR_ADVERTISEMENT, yes=kind)
    assembler.add(_JUMP_EQUAL, _NEIGHBOUR_SOLICITATION, no=refuse)
    assembler.label(kind)
    if match.targets:
        low_words = [int(target) & 0xFFFFFFFF for target in match.targets]
        assembler.add(_LOAD_WORD, 74)
        _add_ranges(assembler, low_words, accept, source)
        # A solicitation sent from a shared address shows another owner as well.
        assembler.label(source)
        assembler.add(_LOAD_WORD, 34)
        _add_ranges(assembler, low_words, accept, refuse)


def _add_ranges(assembler: _Assembler, values: Iterable[int], accept: str, refuse: str) -> None:
    """Append: the word loaded must lie in a range of `values`; ranges ascend."""
    for first, last in merge_ranges(values):
        if first == last:
            assembler.add(_JUMP_EQUAL, first, yes=accept)
        else:
            assembler.add(_JUMP_GREATER_EQUAL, first, no=refuse)
            assembler.add(_JUMP_GREATER, last, no=accept)
    assembler.add(_JUMP, yes=refuse)


def _add_byte_set(assembler: _Assembler, values: Collection[int], accept: str, refuse: str) -> None:
    """Append: the byte loaded must be one of `values`; a table of 256 bits in eight words."""
    words = [0] * 8
    for value in values:
        words[value >> 5] |= 1 << (value & 31)
    assembler.add(_COPY_TO_X)
    assembler.add(_AND, 31)
    assembler.add(_STORE, 0)
    assembler.add(_COPY_FROM_X)
    assembler.add(_SHIFT_RIGHT, 5)
    for index, word in enumerate(words):
        if not word:
            continue
        skip = f"{accept} word {index}"
        assembler.add(_JUMP_EQUAL, index, no=skip)
        assembler.add(_LOADX_MEMORY, 0)
        assembler.add(_LOAD_IMMEDIATE, 1)
        assembler.add(_SHIFT_LEFT_BY_X)
        assembler.add(_JUMP_BITS, word, yes=accept, no=refuse)
        assembler.label(skip)
    assembler.add(_JUMP, yes=refuse)
