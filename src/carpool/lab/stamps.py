"""Kernel time stamps, real-time rank and the record file: what prober, responder and watcher share.

Socket options that Python 3.11 has no names for: include/uapi/asm-generic/socket.h, linux/in.h,
linux/in6.h. SO_TIMESTAMPNS stamps are CLOCK_REALTIME at reception by the kernel.
"""

import gc
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from carpool.lab.waiting import realtime_ns

SO_TIMESTAMPNS: Final = 35
IP_PKTINFO: Final = 8
IPV6_RECVPKTINFO: Final = 49
IPV6_PKTINFO: Final = 50
RECEIVE_BUFFER: Final = 1 << 20
PRIORITY: Final = 5  # SCHED_FIFO, far below the election's: measuring must not disturb
FLUSH_BYTES: Final = 2048  # some 25 ms of a prober's records

_TIMESPEC: Final = struct.Struct("@qq")


def stamp_of(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """Return the kernel's receive time stamp, or now if the kernel gave none."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= 16:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return realtime_ns()


def prefer_real_time(processor: int | None = None) -> str:
    """Take a real-time rank, one processor, and no garbage collection; return what was refused."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        if processor is not None:
            os.sched_setaffinity(0, {processor})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError as refused:
        return f"no real-time rank: {refused.strerror}"
    return ""


class StopFlag:
    """Becomes true at SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.raised = False
        signal.signal(signal.SIGTERM, self._raise)
        signal.signal(signal.SIGINT, self._raise)

    def _raise(self, *_: object) -> None:
        self.raised = True

    def __bool__(self) -> bool:
        return self.raised


class RecordWriter:
    """Appends lines to a file in pieces: a system call for each record would cost too much."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._pending: list[str] = []
        self._size = 0

    def write(self, line: str) -> None:
        """Add one record."""
        self._pending.append(line)
        self._size += len(line) + 1
        if self._size >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Give everything to the kernel."""
        if self._pending:
            os.write(self._descriptor, ("\n".join(self._pending) + "\n").encode())
            self._pending.clear()
            self._size = 0

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        os.close(self._descriptor)


def drain(
    endpoint: socket.socket, take: Callable[[bytes, int, tuple[object, ...]], None], size: int
) -> None:
    """Hand everything that waits in a non-blocking socket to `take(data, stamp, sender)`."""
    while True:
        try:
            data, ancillary, _, sender = endpoint.recvmsg(size, 256)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error or the interface going down: the next packet counts
            return
        take(data, stamp_of(ancillary), sender)
