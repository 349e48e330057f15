"""The clock: the one place where time is read, and a timer that wakes the event loop.

Everything is CLOCK_BOOTTIME (see `base.time`). Python 3.11 has no os.timerfd_create, so the timer
is made through the C library: timerfd_create(2).
"""

import ctypes
import os
import time
from typing import Final

from carpool.base.errors import DriverError
from carpool.base.time import NS_PER_S, NS_PER_US, Instant

OFFSET_SAMPLES: Final = 3  # the tightest of three readings keeps an interruption out

_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.timerfd_create.argtypes = (ctypes.c_int, ctypes.c_int)
_LIBC.timerfd_settime.argtypes = (
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_long),
    ctypes.c_void_p,
)


def boottime_ns() -> Instant:
    """Return the present instant of CLOCK_BOOTTIME."""
    return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def realtime_offset_ns() -> int:
    """Return wall clock minus boot time, now; the administrator may change it at any moment."""
    best_width = NS_PER_S
    best_offset = 0
    for _ in range(OFFSET_SAMPLES):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        width = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before
        if width < best_width or not best_offset:
            best_width, best_offset = width, wall - before - width // 2
    return best_offset


class BoottimeTimer:
    """A file descriptor that becomes readable at an instant; an instant in the past counts too."""

    def __init__(self) -> None:
        """Make the timer, disarmed. Raises DriverError."""
        self._fd = int(_LIBC.timerfd_create(time.CLOCK_BOOTTIME, _TFD_FLAGS))
        if self._fd < 0:
            raise DriverError("make a timer", os.strerror(ctypes.get_errno()))
        # struct itimerspec: interval (s, ns), then value (s, ns).
        self._spec = (ctypes.c_long * 4)()
        self._armed: Instant | None = None

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def arm(self, instant: Instant | None) -> None:
        """Fire at `instant`; None disarms. The same instant again costs nothing."""
        if instant == self._armed:
            return
        # A value of zero would disarm, and 1 ns after boot is past as well.
        at = 0 if instant is None else max(1, instant)
        self._spec[2], self._spec[3] = divmod(at, NS_PER_S)
        if _LIBC.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._spec, None) < 0:
            raise DriverError("set a timer", os.strerror(ctypes.get_errno()))
        self._armed = instant

    def clear(self) -> int:
        """Take note that the timer fired: unreadable until armed again; return how often."""
        try:
            fired = int.from_bytes(os.read(self._fd, 8), "little")
        except BlockingIOError:
            return 0
        self._armed = None
        return fired

    def close(self) -> None:
        """Give the timer back; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def monotonic_us() -> int:
    """Return CLOCK_MONOTONIC in microseconds: systemd's clock, for `systemd` only."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // NS_PER_US
