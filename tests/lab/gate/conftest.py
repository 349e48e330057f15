"""The gate's bench: a node that holds it, a client that knocks.

        client                                  node
    [ wire0  192.0.2.2, 2001:db8::2  ]------[ wire0  192.0.2.1, 2001:db8::1; shared addresses ]
    [ side0  10.99.0.2               ]------[ side0  10.99.0.1                                ]

The shared addresses (192.0.2.10, 2001:db8::10, fe80::10) are configured on the node all the time:
what the client hears is the gate's doing alone. The test process itself opens packet sockets on
both ends. Silence is proved without waiting: knocks go out, then a knock that must be answered;
on a veth pair and one processor order is kept, so its answer comes after all others.
"""

import ctypes
import errno
import itertools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from carpool.drivers.clock import boottime_ns

CLONE_NEWNET = 0x40000000
NUMBERS = itertools.count(1)
ROOT = Path(__file__).parents[3]
HOLDER = Path(__file__).with_name("holder.py")
WIRE, SIDE = "wire0", "side0"
NODE4, CLIENT4, SHARED4 = "192.0.2.1", "192.0.2.2", "192.0.2.10"
NODE6, CLIENT6, SHARED6 = "2001:db8::1", "2001:db8::2", "2001:db8::10"
SHARED_LOCAL = "fe80::10"
CLIENT_MAC = bytes.fromhex("02c100000002")
NODE_MAC = bytes.fromhex("02c100000001")
SIDE_MAC = bytes.fromhex("02c100000003")
VIRTUAL_MAC = bytes.fromhex("00005e000107")
BROADCAST = b"\xff" * 6
CONTROL_TYPE = 0x88B5  # IEEE 802 local experimental: nobody answers
MS = 10**6
ANSWER_SECONDS = 3.0


def checksum(data: bytes) -> int:
    """Return the Internet checksum."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: bytes, source: bytes, kind: int, body: bytes) -> bytes:
    """Return a frame."""
    return destination + source + struct.pack("!H", kind) + body


def arp(operation: int, sender_mac: bytes, sender: str, target: str) -> bytes:
    """Return an ARP packet."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    addresses = (IPv4Address(sender).packed, bytes(6), IPv4Address(target).packed)
    return head + sender_mac + b"".join(addresses)


def ipv4(source: str, destination: str, protocol: int, body: bytes, ttl: int = 64) -> bytes:
    """Return an IPv4 packet."""
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, ttl, protocol, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv6(source: str, destination: str, following: int, body: bytes, hops: int = 255) -> bytes:
    """Return an IPv6 packet."""
    ends = IPv6Address(source).packed + IPv6Address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(body), following, hops) + ends + body


def icmp6(source: str, destination: str, kind: int, rest: bytes) -> bytes:
    """Return an ICMPv6 message in its packet."""
    body = struct.pack("!BBH", kind, 0, 0) + rest
    ends = IPv6Address(source).packed + IPv6Address(destination).packed
    total = checksum(ends + struct.pack("!II", len(body), 58) + body)
    return ipv6(source, destination, 58, body[:2] + struct.pack("!H", total) + body[4:])


def solicited(target: str) -> str:
    """Return the solicited-node multicast address."""
    return str(
        IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(IPv6Address(target)) & 0xFFFFFF)
    )


def carp_advertisement(vhid: int, auth_length: int = 7) -> bytes:
    """Return 36 bytes that look like a CARP advertisement (or not, with another length)."""
    return bytes([0x21, vhid, 0, auth_length]) + bytes(32)


def knock_arp(target: str, token: int) -> bytes:
    """Return a who-has from a sender nobody else uses."""
    sender = str(IPv4Address("198.18.0.0") + token)
    return ethernet(BROADCAST, CLIENT_MAC, 0x0806, arp(1, CLIENT_MAC, sender, target))


def knock_neighbour(target: str, token: int) -> bytes:
    """Return a neighbour solicitation from a source nobody else uses."""
    source = str(IPv6Address("2001:db8::1:0:0") + token)
    option = b"\1\1" + CLIENT_MAC
    packet = icmp6(source, solicited(target), 135, bytes(4) + IPv6Address(target).packed + option)
    mac = b"\x33\x33" + IPv6Address(solicited(target)).packed[12:]
    return ethernet(mac, CLIENT_MAC, 0x86DD, packet)


def knock_echo(target: str, token: int) -> bytes:
    """Return an echo request to a v4 or v6 address."""
    rest = struct.pack("!HH", 0xCA59, token)
    if ip_address(target).version == 6:
        packet = icmp6(CLIENT6, target, 128, rest)
        return ethernet(NODE_MAC, CLIENT_MAC, 0x86DD, packet)
    body = b"\x08\0" + struct.pack("!H", checksum(b"\x08\0\0\0" + rest)) + rest
    return ethernet(NODE_MAC, CLIENT_MAC, 0x0800, ipv4(CLIENT4, target, 1, body))


def answered_token(frame: bytes) -> tuple[str, int] | None:
    """Return who answered which knock, None for any other frame."""
    if frame[6:12] == CLIENT_MAC:
        return None
    kind = struct.unpack_from("!H", frame, 12)[0]
    body = frame[14:]
    if kind == 0x0806 and body[6:8] == b"\0\2":
        token = int(IPv4Address(body[24:28])) - int(IPv4Address("198.18.0.0"))
        return str(IPv4Address(body[14:18])), token
    if kind == 0x0800 and body[9] == 1 and body[20] == 0:
        return str(IPv4Address(body[12:16])), struct.unpack_from("!H", body, 26)[0]
    if kind == 0x86DD and body[6] == 58 and body[40] == 136:
        token = int(IPv6Address(body[24:40])) - int(IPv6Address("2001:db8::1:0:0"))
        return str(IPv6Address(body[48:64])), token
    if kind == 0x86DD and body[6] == 58 and body[40] == 129:
        return str(IPv6Address(body[8:24])), struct.unpack_from("!H", body, 46)[0]
    return None


# Each way to ask, with the shared address and the node's own that must answer.
KNOCKS = {
    "arp": (knock_arp, SHARED4, NODE4),
    "neighbour": (knock_neighbour, SHARED6, NODE6),
    "neighbour-local": (knock_neighbour, SHARED_LOCAL, NODE6),
    "echo4": (knock_echo, SHARED4, NODE4),
    "echo6": (knock_echo, SHARED6, NODE6),
}


class Wire:
    """A packet socket on one end of a cable."""

    def __init__(self, interface: str) -> None:
        """Open it in the present namespace."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 3))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._tokens = itertools.count(1)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def send(self, frame: bytes) -> None:
        """Send a frame, padded to the Ethernet minimum; a drop at egress is an error here."""
        try:
            self._socket.send(frame.ljust(60, b"\0"))
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise

    def frames(self, seconds: float) -> Iterator[bytes]:
        """Yield what arrives within a time, without our own."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                continue
            frame, address = self._socket.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                yield frame

    def drain(self) -> list[bytes]:
        """Return what is waiting."""
        found = []
        while select.select([self._socket], [], [], 0)[0]:
            frame, address = self._socket.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                found.append(frame)
        return found

    def token(self) -> int:
        """Return a number no other knock has."""
        return next(self._tokens) % 0xFFFF

    def answers(self, kind: str, *, knocks: int = 5) -> int:
        """Return how many of some knocks at the shared address are answered."""
        make, shared, _own = KNOCKS[kind]
        self.drain()
        wanted = {(shared, token) for token in (self.token() for _ in range(knocks))}
        for _address, token in sorted(wanted, key=lambda pair: pair[1]):
            self.send(make(shared, token))
        seen = {answered_token(frame) for frame in self.before_answer(kind)}
        return len(wanted & seen)

    def before_answer(self, kind: str = "echo4") -> list[bytes]:
        """Knock at the node's own address and return what came before the answer."""
        make, _shared, own = KNOCKS[kind]
        last = self.token()
        self.send(make(own, last))
        seen = []
        for frame in self.frames(ANSWER_SECONDS):
            if answered_token(frame) == (own, last):
                return seen
            seen.append(frame)
        raise AssertionError(f"{kind}: the node's own address {own} does not answer")

    def passed(self, receiver: "Wire", frames: list[bytes]) -> list[bool]:
        """Send frames, then one that nothing stops; say which arrived at the other end."""
        receiver.drain()
        mark = struct.pack("!I", self.token())
        for frame in frames:
            self.send(frame)
        control = ethernet(BROADCAST, b"\2\0\0\0\0\x99", CONTROL_TYPE, mark)
        self.send(control)
        seen = []
        for frame in receiver.frames(ANSWER_SECONDS):
            if frame.startswith(control):
                return [any(got.startswith(frame) for got in seen) for frame in frames]
            seen.append(frame)
        raise AssertionError("the control frame was lost")


@dataclass
class Watch:
    """Knocks sent one after the other with their instants, and which were answered."""

    wire: Wire
    kind: str = "echo4"
    sent: dict[tuple[str, int], int] = field(default_factory=dict)
    answered: set[tuple[str, int]] = field(default_factory=set)

    def knock(self) -> None:
        """Knock once and take note of what has been answered so far."""
        make, shared, _own = KNOCKS[self.kind]
        token = self.wire.token()
        self.sent[shared, token] = boottime_ns()
        self.wire.send(make(shared, token))
        self.collect()

    def collect(self) -> None:
        """Take note of the answers that have come."""
        for frame in self.wire.drain():
            answer = answered_token(frame)
            if answer in self.sent:
                self.answered.add(answer)

    def until(self, instant: int) -> None:
        """Knock about each half millisecond until an instant.

        Each new sender takes a place of 1024 in the machine's neighbour table: those go slower.
        """
        pace = 0.0005 if self.kind.startswith("echo") else 0.001
        while boottime_ns() < instant:
            self.knock()
            select.select([], [], [], pace)

    def settle(self) -> None:
        """Wait until every answer must be here: one to the node's own address comes last."""
        for frame in self.wire.before_answer(self.kind):
            answer = answered_token(frame)
            if answer in self.sent:
                self.answered.add(answer)

    @property
    def last_answered(self) -> int:
        """Return when the last knock that was answered went out; 0 if none was."""
        return max((self.sent[key] for key in self.answered), default=0)


class Holder:
    """The process that holds the gate."""

    def __init__(self, namespace: str, kind: str) -> None:
        """Start it."""
        command = ["ip", "netns", "exec", namespace, sys.executable, str(HOLDER), kind]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )

    def send(self, verb: str, **words: object) -> None:
        """Give an order and do not wait."""
        self.process.stdin.write(json.dumps({"do": verb, **words}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> object:
        """Return what the last order came to."""
        line = self.process.stdout.readline()
        assert line, "the holder is dead"
        answer = json.loads(line)
        if "error" in answer:
            raise HolderError(answer["error"], answer["text"])
        return answer["ok"]

    def do(self, verb: str, **words: object) -> object:
        """Give an order and return what it came to."""
        self.send(verb, **words)
        return self.answer()

    def open(self, group: str = "edge", milliseconds: int = 60_000) -> int:
        """Open the gate for a while; return the deadline."""
        until = boottime_ns() + milliseconds * MS
        self.do("open", group=group, serve=until, advertise=until)
        return until

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a stop is waited for."""
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def close(self) -> None:
        """End it, whatever state it is in."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


class HolderError(Exception):
    """The holder's gate refused: the error's class and text."""


@dataclass
class Bench:
    """Everything of one test."""

    node: str
    client: str
    ifindex: int
    side_ifindex: int
    wire: Wire
    side: Wire
    node_wire: Wire
    holders: list[Holder]

    def hold(self, kind: str) -> Holder:
        """Start a holder."""
        self.holders.append(Holder(self.node, kind))
        return self.holders[-1]

    def group(self, **changes: object) -> dict[str, object]:
        """Return the usual group, described for the holder."""
        usual: dict[str, object] = {
            "group": "edge",
            "slot": 0,
            "interface": WIRE,
            "ifindex": self.ifindex,
            "vhid": 7,
            "v4": [SHARED4],
            "v6": [SHARED6, SHARED_LOCAL],
        }
        return usual | changes

    def listen(self) -> socket.socket:
        """Return a TCP listener of the client."""
        with inside(self.client):
            return socket.create_server((CLIENT4, 0))

    def ip(self, namespace: str, *words: str) -> None:
        """Call iproute2 in a namespace."""
        self.run(namespace, "ip", *words)

    def run(self, namespace: str, *words: str) -> str:
        """Run a program in a namespace and return what it prints."""
        command = ["ip", "netns", "exec", namespace, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def traces(self) -> str:
        """Return what a gate leaves in the node's kernel."""
        return "".join(
            self.run(self.node, *words)
            for words in (
                ("tc", "qdisc", "show"),
                ("tc", "filter", "show", "dev", WIRE, "ingress"),
                ("tc", "filter", "show", "dev", WIRE, "egress"),
                ("nft", "list", "ruleset"),
            )
        )


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a namespace: sockets that are opened stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)
        os.close(there)


def ip_batch(*lines: str) -> None:
    """Run iproute2 commands."""
    subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(lines), check=True, capture_output=True, text=True
    )


def plumb(node: str, client: str) -> None:
    """Make the cables and the addresses."""
    for namespace in (node, client):
        with inside(namespace):
            for key in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{key}/accept_dad").write_text("0")
                Path(f"/proc/sys/net/ipv6/conf/{key}/router_solicitations").write_text("0")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if namespace == node else "0")
    ip_batch(
        f"link add {WIRE} netns {node} type veth peer name {WIRE} netns {client}",
        f"link add {SIDE} netns {node} type veth peer name {SIDE} netns {client}",
    )
    in_node = [
        f"link set {WIRE} address {NODE_MAC.hex(':')} up",
        f"link set {SIDE} address {SIDE_MAC.hex(':')} up",
        "link set lo up",
        f"addr add {NODE4}/24 dev {WIRE}",
        f"addr add {SHARED4}/24 dev {WIRE}",
        f"addr add {NODE6}/64 dev {WIRE} nodad",
        f"addr add {SHARED6}/64 dev {WIRE} nodad",
        f"addr add {SHARED_LOCAL}/64 dev {WIRE} nodad",
        f"addr add 10.99.0.1/24 dev {SIDE}",
        f"route add 198.18.0.0/16 dev {WIRE}",
    ]
    in_client = [
        f"link set {WIRE} address {CLIENT_MAC.hex(':')} up",
        f"link set {SIDE} up",
        "link set lo up",
        f"addr add {CLIENT4}/24 dev {WIRE}",
        f"addr add {CLIENT6}/64 dev {WIRE} nodad",
    ]
    for namespace, lines in ((node, in_node), (client, in_client)):
        subprocess.run(
            ["ip", "-n", namespace, "-batch", "-"],
            input="\n".join(lines),
            check=True,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def gate_bench_module() -> str:
    """Return this module's name: tests find it in sys.modules, conftest files are not imported."""
    return __name__


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a fresh bench; nothing of it is left afterwards."""
    node, client = (f"cp-{os.getpid()}-{next(NUMBERS)}" for _ in range(2))
    processors = os.sched_getaffinity(0)
    wires: list[Wire] = []
    holders: list[Holder] = []
    try:
        os.sched_setaffinity(0, {min(processors)})  # order is kept on one processor
        for namespace in (node, client):
            subprocess.run(["ip", "netns", "add", namespace], check=True)
        plumb(node, client)
        with inside(client):
            wires += [Wire(WIRE), Wire(SIDE)]
        with inside(node):
            wires.append(Wire(WIRE))
            indexes = socket.if_nametoindex(WIRE), socket.if_nametoindex(SIDE)
        bench = Bench(node, client, *indexes, *wires, holders)
        for kind in KNOCKS:  # also primes the neighbour tables
            assert bench.wire.answers(kind) == 5
        yield bench
    finally:
        os.sched_setaffinity(0, processors)
        for wire in wires:
            wire.close()
        for holder in holders:
            holder.close()
        for namespace in (node, client):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
