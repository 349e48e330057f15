"""A client that asks each shared address again and again and records who answered when.

    python -m carpool.lab.prober --record FILE [--period-us 1000] [--reask-ms 0] ADDRESS...

Records, one a line (instants are CLOCK_REALTIME ns):
    R target received asked name    an answer; `received` is the kernel's time stamp
    L before after                  we ourselves asked nothing between these instants
    T instant                       everything up to here is in the file

With --reask-ms the client forgets its neighbours that often and asks ARP or NDP anew: a client
without memory sees a second owner that others' caches hide.
"""

import argparse
import select
import socket
import struct
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from carpool.lab.neighbours import forget
from carpool.lab.responder import PORT, QUESTION_BYTES
from carpool.lab.stamps import (
    RECEIVE_BUFFER,
    SO_TIMESTAMPNS,
    RecordWriter,
    StopFlag,
    drain,
    prefer_real_time,
)
from carpool.lab.waiting import realtime_ns

_QUESTION: Final = struct.Struct("!Q")
_TICKS_NS: Final = 20_000_000  # how often the file says how far it is
_LATE_FACTOR: Final = 3  # an own silence of more periods than this is recorded
_S: Final = 1_000_000_000


class Prober:
    """The sockets and the clockwork."""

    def __init__(self, targets: list[str], record: RecordWriter) -> None:
        self.targets = [str(ip_address(target)) for target in targets]
        self.record = record
        self._number = {target: number for number, target in enumerate(self.targets)}
        self._sockets = {
            4: self._socket(socket.AF_INET),
            6: self._socket(socket.AF_INET6),
        }
        self._ways = [
            (self._sockets[ip_address(target).version], (target, PORT)) for target in self.targets
        ]

    @staticmethod
    def _socket(family: socket.AddressFamily) -> socket.socket:
        endpoint = socket.socket(family, socket.SOCK_DGRAM)
        endpoint.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        endpoint.setblocking(False)
        return endpoint

    def ask(self) -> None:
        """Ask every target once; no route or a full queue is an unanswered question."""
        for endpoint, way in self._ways:
            try:
                endpoint.sendto(_QUESTION.pack(realtime_ns()), way)
            except OSError:
                continue

    def take(self, data: bytes, stamp: int, sender: tuple[object, ...]) -> None:
        """Record one answer."""
        number = self._number.get(str(sender[0]))
        if number is not None and len(data) > QUESTION_BYTES:
            (asked,) = _QUESTION.unpack_from(data)
            name = data[QUESTION_BYTES:].decode(errors="replace")
            self.record.write(f"R {number} {stamp} {asked} {name}")

    def listen(self, until: int) -> None:
        """Take answers until the instant `until`."""
        while True:
            left = until - realtime_ns()
            ready, _, _ = select.select(list(self._sockets.values()), [], [], max(0, left) / _S)
            for endpoint in ready:
                drain(endpoint, self.take, 64)
            if left <= 0:
                return


def probe(prober: Prober, period_ns: int, reask_ns: int, stop: StopFlag) -> None:
    """Ask each `period_ns` until told to stop."""
    next_at = before = realtime_ns()
    ticked_at = forgot_at = next_at
    while not stop:
        now = realtime_ns()
        if now - before > _LATE_FACTOR * period_ns:
            prober.record.write(f"L {before} {now}")
            next_at = now
        before = now
        if reask_ns and now - forgot_at >= reask_ns:
            forget(prober.targets)
            forgot_at = now
        prober.ask()
        if now - ticked_at >= _TICKS_NS:
            prober.record.write(f"T {now}")
            prober.record.flush()
            ticked_at = now
        next_at += period_ns
        prober.listen(next_at)


def main(arguments: list[str]) -> int:
    """Ask until told to stop."""
    parser = argparse.ArgumentParser(prog="carpool.lab.prober")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--period-us", type=int, default=1000)
    parser.add_argument("--reask-ms", type=int, default=0)
    parser.add_argument("--processor", type=int)
    parser.add_argument("targets", nargs="+")
    options = parser.parse_args(arguments)
    stop = StopFlag()
    refused = prefer_real_time(options.processor)
    if refused:
        sys.stderr.write(refused + "\n")
    record = RecordWriter(options.record)
    prober = Prober(options.targets, record)
    probe(prober, options.period_us * 1000, options.reask_ms * 1_000_000, stop)
    record.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
