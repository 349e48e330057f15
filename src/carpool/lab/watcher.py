"""A third host that asks who has each shared address, and records every answer.

    python -m carpool.lab.watcher --record FILE [--period-us 5000] INTERFACE ADDRESS...

ARP who-has for IPv4 (RFC 826), neighbour solicitations for IPv6 (RFC 4861 7.2), on a packet socket:
the kernel's neighbour table has no say. Records, one a line (instants are CLOCK_REALTIME ns):
    Q target asked              a question went out
    A target received mac       an answer to us; `received` is the kernel's time stamp
    G target received mac       somebody announced the address unasked
    T instant                   everything up to here is in the file
"""

import argparse
import select
import socket
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from carpool.base.errors import DecodeError
from carpool.lab.stamps import (
    RECEIVE_BUFFER,
    SO_TIMESTAMPNS,
    RecordWriter,
    StopFlag,
    drain,
    prefer_real_time,
)
from carpool.lab.waiting import realtime_ns
from carpool.wire import arp, ethernet, ip, ndp

ETH_P_ALL: Final = 3
PACKET_OUTGOING: Final = 4
_SIOCGIFADDR: Final = 0x8915
_TICKS_NS: Final = 20_000_000
_S: Final = 1_000_000_000

Address = IPv4Address | IPv6Address
Heard = Callable[[str, Address, int, str], None]  # kind "A" or "G", address, received, MAC


class Ears:
    """A packet socket on one interface that understands ARP and neighbour discovery."""

    def __init__(self, interface: str, heard: Heard) -> None:
        self._heard = heard
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.bind((interface, ETH_P_ALL))
        self.socket.setblocking(False)
        self.mac: bytes = self.socket.getsockname()[4]

    def send(self, frame: bytes) -> None:
        """Put one frame on the wire; an interface that is down loses it, as a cable would."""
        try:
            self.socket.send(frame)
        except OSError:
            return

    def take_all(self) -> None:
        """Understand everything that waits."""
        drain(self.socket, self._take, 2048)

    def _take(self, data: bytes, stamp: int, sender: tuple[object, ...]) -> None:
        if sender[2] == PACKET_OUTGOING:
            return
        try:
            frame = ethernet.parse(data)
            if frame.ethertype == ethernet.ETHERTYPE_ARP:
                self._take_arp(frame, stamp)
            elif frame.ethertype == ethernet.ETHERTYPE_IPV6:
                self._take_ndp(frame, stamp)
        except DecodeError:  # other people's traffic on the same wire
            return

    def _take_arp(self, frame: ethernet.Frame, stamp: int) -> None:
        packet = arp.parse(frame.payload)
        mac = ethernet.format_mac(packet.sender_mac)
        if packet.op is arp.ArpOperation.REPLY and frame.destination == self.mac:
            self._heard("A", packet.sender_ip, stamp, mac)
        elif packet.sender_ip == packet.target_ip:
            self._heard("G", packet.sender_ip, stamp, mac)

    def _take_ndp(self, frame: ethernet.Frame, stamp: int) -> None:
        packet = ip.parse_v6(frame.payload, ip.PROTOCOL_ICMPV6)
        message = ndp.parse(packet)
        if isinstance(message, ndp.NeighborAdvertisement):
            mac = ethernet.format_mac(message.link_layer or frame.source)
            self._heard("A" if message.solicited else "G", message.target, stamp, mac)


def question(mac: bytes, own: dict[int, Address], target: Address) -> bytes:
    """Return the frame that asks who has `target`."""
    if isinstance(target, IPv4Address):
        source = own.get(4)
        if isinstance(source, IPv4Address):
            return arp.who_has(mac, source, target)
        return arp.probe(mac, target)
    source = own.get(6)
    if isinstance(source, IPv6Address):
        return ndp.solicitation(mac, source, target)
    return ndp.probe(mac, target)


class Watcher:
    """Asks in turn, records everything."""

    def __init__(
        self, interface: str, own: list[str], targets: list[str], record: RecordWriter
    ) -> None:
        self.record = record
        addresses = [ip_address(target) for target in targets]
        self._number = {address: number for number, address in enumerate(addresses)}
        self.ears = Ears(interface, self._heard)
        mine: dict[int, Address] = {
            each.version: each for each in (ip_address(text) for text in own)
        }
        self._questions = [question(self.ears.mac, mine, address) for address in addresses]

    def _heard(self, kind: str, address: Address, received: int, mac: str) -> None:
        number = self._number.get(address)
        if number is not None:
            self.record.write(f"{kind} {number} {received} {mac}")

    def ask(self) -> None:
        """Ask for every address once."""
        for number, frame in enumerate(self._questions):
            self.record.write(f"Q {number} {realtime_ns()}")
            self.ears.send(frame)

    def watch(self, period_ns: int, stop: StopFlag) -> None:
        """Ask each `period_ns` until told to stop."""
        ticked_at = next_at = realtime_ns()
        while not stop:
            self.ask()
            next_at = max(next_at + period_ns, realtime_ns())
            self._listen(next_at)
            if next_at - ticked_at >= _TICKS_NS:
                self.record.write(f"T {next_at}")
                self.record.flush()
                ticked_at = next_at

    def _listen(self, until: int) -> None:
        while True:
            left = until - realtime_ns()
            if select.select([self.ears.socket], [], [], max(0, left) / _S)[0]:
                self.ears.take_all()
            if left <= 0:
                return


def main(arguments: list[str]) -> int:
    """Watch until told to stop."""
    parser = argparse.ArgumentParser(prog="carpool.lab.watcher")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--period-us", type=int, default=5000)
    parser.add_argument("--own", action="append", default=[])
    parser.add_argument("interface")
    parser.add_argument("targets", nargs="+")
    options = parser.parse_args(arguments)
    stop = StopFlag()
    refused = prefer_real_time()
    if refused:
        sys.stderr.write(refused + "\n")
    record = RecordWriter(options.record)
    watcher = Watcher(options.interface, options.own, options.targets, record)
    watcher.watch(options.period_us * 1000, stop)
    record.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
