"""Two nodes of the peer link on this namespace's loopback, and a forger who resets connections.

The forger sees the traffic (AF_PACKET) and sends RST segments with the right addresses, ports and
sequence numbers, in the name of either end (RFC 9293 3.5.3: a RST must carry the next expected
number). Prints what happened to both nodes after the link was first up, one event a line, without
the messages.
"""

import os
import select
import socket
import struct
import sys
from collections.abc import Callable

from carpool.base.time import NS_PER_S
from carpool.drivers.clock import boottime_ns
from carpool.drivers.peerlink import Identity, PeerLinks, PeerPath
from carpool.wire.link import LinkEvent, MessageHeard
from carpool.wire.peer import Accept

PORT = 7112
KEYS = {1: b"sixteen bytes or more"}
ADDRESSES = {"alpha": "127.0.0.11", "bravo": "127.0.0.12"}
LIMIT_NS = 5 * NS_PER_S
RESETS = 10
Segment = tuple[str, str, int, int, int]


def node(name: str, peer: str) -> PeerLinks:
    """Return one end."""
    path = PeerPath(peer, ADDRESSES[name], ADDRESSES[peer], PORT)
    me = Identity("example", name, os.urandom(16))
    return PeerLinks(me, KEYS, [(ADDRESSES[name], PORT)], [path], os.urandom)


def checksum(data: bytes) -> int:
    """Return the Internet checksum."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def segments(sniffer: socket.socket) -> list[Segment]:
    """Return source, destination, ports and acknowledged number of every segment seen."""
    seen = []
    while select.select([sniffer], [], [], 0)[0]:
        packet = sniffer.recv(65535)[14:]
        if packet[9] == socket.IPPROTO_TCP:
            head = (packet[0] & 15) * 4
            source_port, target_port, _, acknowledged = struct.unpack_from("!HHII", packet, head)
            addresses = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
            seen.append((*addresses, source_port, target_port, acknowledged))
    return seen


def forge_reset(victim: Segment, raw: socket.socket) -> None:
    """Send a RST to the sender of `victim`, in the name of the one it was sent to."""
    victim_address, name, victim_port, port, expected = victim
    reset = struct.pack("!HHIIBBHHH", port, victim_port, expected, 0, 5 << 4, 4, 0, 0, 0)
    pseudo = socket.inet_aton(name) + socket.inet_aton(victim_address)
    value = checksum(pseudo + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20) + reset)
    reset = reset[:16] + value.to_bytes(2) + reset[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + pseudo
    raw.sendto(head + reset, (victim_address, 0))


class Talk:
    """Both nodes, everything that happened, and messages with ever new serials."""

    def __init__(self) -> None:
        """Start both and wait until they hear each other."""
        self.nodes = {"alpha": node("alpha", "bravo"), "bravo": node("bravo", "alpha")}
        self.events: list[LinkEvent] = []
        self.serial = 0
        self.prove_both_ways()

    def run_until(self, fact: Callable[[], bool]) -> None:
        """Run both nodes until the fact holds."""
        end = boottime_ns() + LIMIT_NS
        filenos = [fileno for links in self.nodes.values() for fileno in links.filenos()]
        while not fact():
            if boottime_ns() > end:
                raise TimeoutError(f"events: {self.events}")
            for links in self.nodes.values():
                now = boottime_ns()
                self.events += links.handle(0, 0, now) + links.tick(now)
            select.select(filenos, [], [], 0.005)

    def prove_both_ways(self) -> None:
        """Send until each node has heard the other; what a dead connection takes is sent again."""
        self.serial += 1
        message = Accept("edge", self.serial)

        def heard() -> bool:
            self.nodes["alpha"].send("bravo", message)
            self.nodes["bravo"].send("alpha", message)
            ears = (event for event in self.events if isinstance(event, MessageHeard))
            return {event.node for event in ears if event.message == message} == set(ADDRESSES)

        self.run_until(heard)

    def attack(self, name: str) -> None:
        """Reset the connection over which the node `name` sends."""
        links = self.nodes[name]
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as sniffer,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        ):
            sniffer.bind(("lo", 0x0800))
            links.send("bravo" if name == "alpha" else "alpha", Accept("attack", 1))
            self.run_until(lambda: select.select([sniffer], [], [], 0)[0] != [])
            victim = next(one for one in segments(sniffer) if one[0] == ADDRESSES[name])
            forge_reset(victim, raw)
        self.run_until(lambda: (victim[2], victim[3]) not in open_ports(links))
        sys.stdout.write("attacked -\n")
        self.prove_both_ways()


def open_ports(links: PeerLinks) -> set[tuple[int, int]]:
    """Return own and peer's port of every connection."""
    return {
        (one.endpoint.getsockname()[1], one.endpoint.getpeername()[1])
        for one in links._connections.values()
        if one.session.established and is_connected(one.endpoint)
    }


def is_connected(endpoint: socket.socket) -> bool:
    """Return whether the kernel still knows the other end."""
    try:
        return bool(endpoint.getpeername())
    except OSError:
        return False


def main() -> None:
    """Attack both ends in turn and print what they said."""
    talk = Talk()
    talk.events.clear()
    for number in range(RESETS):
        talk.attack("alpha" if number % 2 else "bravo")
    for event in talk.events:
        if not isinstance(event, MessageHeard):
            sys.stdout.write(f"{type(event).__name__} {getattr(event, 'how', '-')}\n")
    for links in talk.nodes.values():
        links.close()


if __name__ == "__main__":
    main()
