"""A third host that asks for an address as soon as somebody announces it, and again until answered.

    python -m carpool.lab.sweeper --record FILE --targets FILE INTERFACE

For groups of a thousand addresses: asking for all of them all the time would be the load that is
measured. Records as the watcher's: Q, A, G, T, targets numbered in the order of the file.
"""

import argparse
import select
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from carpool.lab.stamps import RecordWriter, StopFlag, prefer_real_time
from carpool.lab.waiting import realtime_ns
from carpool.lab.watcher import Address, Ears, question

AGAIN_NS: Final = 10_000_000  # when an unanswered question is asked again
_TICK_S: Final = 0.005


class Sweeper:
    """Asks for what is announced."""

    def __init__(
        self, interface: str, own: Sequence[str], targets: Sequence[str], record: RecordWriter
    ) -> None:
        self._record = record
        self._number = {ip_address(text): number for number, text in enumerate(targets)}
        self._mine: dict[int, Address] = {
            each.version: each for each in (ip_address(text) for text in own)
        }
        self._pending: dict[Address, tuple[str, int]] = {}  # address -> announcer, asked
        self._settled: dict[Address, str] = {}  # address -> the MAC that answered last
        self._ears = Ears(interface, self._heard)

    def _heard(self, kind: str, address: Address, received: int, mac: str) -> None:
        number = self._number.get(address)
        if number is None:
            return
        self._record.write(f"{kind} {number} {received} {mac}")
        if kind == "G" and self._settled.get(address) != mac and address not in self._pending:
            self._ask(address, mac)
        elif kind == "A":
            self._settled[address] = mac
            if address in self._pending and self._pending[address][0] == mac:
                del self._pending[address]

    def _ask(self, address: Address, announcer: str) -> None:
        now = realtime_ns()
        self._pending[address] = (announcer, now)
        self._record.write(f"Q {self._number[address]} {now}")
        self._ears.send(question(self._ears.mac, self._mine, address))

    def sweep(self, stop: StopFlag) -> None:
        """Ask and listen until told to stop."""
        while not stop:
            if select.select([self._ears.socket], [], [], _TICK_S)[0]:
                self._ears.take_all()
            now = realtime_ns()
            for address, (announcer, asked) in list(self._pending.items()):
                if now - asked >= AGAIN_NS:
                    self._ask(address, announcer)
            self._record.write(f"T {now}")
            self._record.flush()


def main(arguments: list[str]) -> int:
    """Sweep until told to stop."""
    parser = argparse.ArgumentParser(prog="carpool.lab.sweeper")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--own", action="append", default=[])
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("interface")
    options = parser.parse_args(arguments)
    stop = StopFlag()
    refused = prefer_real_time()
    if refused:
        sys.stderr.write(refused + "\n")
    record = RecordWriter(options.record)
    targets = options.targets.read_text().split()
    Sweeper(options.interface, options.own, targets, record).sweep(stop)
    record.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
