"""A tap: a packet socket on any host of the lab, opened from here, to listen, to ask and to forge.

A socket belongs to the network namespace in which it was made; a thread that enters the host's
namespace for a moment makes it (setns(2), packet(7)).
"""

import ctypes
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final, Literal

from carpool.base.errors import DecodeError
from carpool.base.time import NS_PER_S
from carpool.lab.netns import Lab
from carpool.lab.shell import NETNS_DIR
from carpool.lab.waiting import LabError, realtime_ns
from carpool.lab.watcher import ETH_P_ALL, PACKET_OUTGOING, Address, question
from carpool.wire import arp, ethernet, ip, ndp

Ways = Literal["both", "received", "sent"]

ANSWER_S: Final = 0.1  # a neighbour on a bridge answers within one millisecond
RECEIVE_BYTES: Final = 8 << 20
_CLONE_NEWNET: Final = 0x40000000
_SO_RCVBUFFORCE: Final = 33
_FRAME_BYTES: Final = 65536


class Tap:
    """Whole frames of one interface of one host, both ways."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.socket = endpoint
        self.mac: bytes = endpoint.getsockname()[4]

    def send(self, frame: bytes) -> None:
        """Put one frame on the wire."""
        self.socket.send(frame)

    def drain(self, ways: Ways = "both") -> list[bytes]:
        """Return the frames that wait: those that the host received, sent, or both."""
        found: list[bytes] = []
        while True:
            try:
                data, sender = self.socket.recvfrom(_FRAME_BYTES)
            except BlockingIOError:
                return found
            if ways in {"both", "sent" if sender[2] == PACKET_OUTGOING else "received"}:
                found.append(data)

    def listen(self, duration_s: float, ways: Ways = "both") -> list[bytes]:
        """Return the frames of the next `duration_s` seconds."""
        end = realtime_ns() + int(duration_s * NS_PER_S)
        found: list[bytes] = []
        while (left := end - realtime_ns()) > 0:
            select.select([self.socket], [], [], left / NS_PER_S)
            found += self.drain(ways)
        return found

    def owners(self, addresses: Sequence[str], wait_s: float = ANSWER_S) -> dict[str, set[str]]:
        """Return the MACs that answer for each address; waits no longer than for one each."""
        wanted = {ip_address(address): address for address in addresses}
        found: dict[str, set[str]] = {address: set() for address in addresses}
        self.drain()
        for address in wanted:
            self.send(question(self.mac, {}, address))
        end = realtime_ns() + int(wait_s * NS_PER_S)
        while not all(found.values()) and (left := end - realtime_ns()) > 0:
            select.select([self.socket], [], [], left / NS_PER_S)
            for address, mac in _answers(self.drain("received")):
                if address in wanted:
                    found[wanted[address]].add(mac)
        return found


def _answers(frames: Sequence[bytes]) -> Iterator[tuple[Address, str]]:
    """Yield (address, MAC) of every ARP reply and neighbour advertisement."""
    for data in frames:
        try:
            yield from answer_in(data)
        except DecodeError:  # other people's traffic on the same wire
            continue


def answer_in(data: bytes) -> Iterator[tuple[Address, str]]:
    """Yield the address and MAC that a frame answers for, nothing if it is no answer."""
    frame = ethernet.parse(data)
    if frame.ethertype == ethernet.ETHERTYPE_ARP:
        packet = arp.parse(frame.payload)
        if packet.op is arp.ArpOperation.REPLY:
            yield packet.sender_ip, ethernet.format_mac(packet.sender_mac)
    elif frame.ethertype == ethernet.ETHERTYPE_IPV6:
        message = ndp.parse(ip.parse_v6(frame.payload, ip.PROTOCOL_ICMPV6))
        if isinstance(message, ndp.NeighborAdvertisement):
            yield message.target, ethernet.format_mac(message.link_layer or frame.source)


def _enter(place: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(place, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def inside(lab: Lab, host: str, make: Callable[[], socket.socket]) -> socket.socket:
    """Return the socket that `make` makes in the network namespace of `host`."""
    made: list[socket.socket | OSError] = []
    path = NETNS_DIR / lab.namespace(host)

    def enter_and_make() -> None:
        try:
            with path.open("rb") as place:
                _enter(place.fileno())
            made.append(make())
        except OSError as refused:
            made.append(refused)

    thread = threading.Thread(target=enter_and_make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise LabError(f"a socket on {host}: {made[0]}")
    return made[0]


@contextmanager
def tap(lab: Lab, host: str, interface: str = "eth0") -> Iterator[Tap]:
    """Open a tap on an interface of a host of the lab."""

    def make() -> socket.socket:
        endpoint = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        try:
            endpoint.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
        except PermissionError:  # in a user namespace the system's own limit stands
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        endpoint.bind((interface, ETH_P_ALL))
        endpoint.setblocking(False)
        return endpoint

    endpoint = inside(lab, host, make)
    try:
        yield Tap(endpoint)
    finally:
        endpoint.close()
