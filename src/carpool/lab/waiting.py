"""Waiting for a fact: the only place of the lab that lets time pass without an event to wait on.

STYLE 28: poll for a fact with a deadline, never sleep.
"""

import select
import time
from collections.abc import Callable
from typing import Final, TypeVar

from carpool.base.errors import CarpoolError
from carpool.base.time import NS_PER_S

POLL_S: Final = 0.005  # short against every bound that is measured with it
Fact = TypeVar("Fact")


class LabError(CarpoolError):
    """The lab could not do what was asked, or a fact did not come true in time."""


def wait_for(
    fact: Callable[[], Fact],
    deadline_s: float,
    what: str,
    instead: Callable[[], str] | None = None,
) -> Fact:
    """Return the first true value of `fact()`.

    Raises LabError naming `what` and, once `deadline_s` seconds are over, what was there: the
    sentence of `instead`, or the last value where it says more than "no".
    """
    end = time.monotonic_ns() + int(deadline_s * NS_PER_S)
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic_ns() >= end:
            seen = instead() if instead else _stayed(value)
            raise LabError(f"waited {deadline_s:.3g} s for {what}, in vain{seen and f': {seen}'}")
        select.select([], [], [], POLL_S)


def _stayed(value: object) -> str:
    return "" if value is None or value is False or value == "" else f"it stayed {value!r}"


def realtime_ns() -> int:
    """Return CLOCK_REALTIME in nanoseconds, the clock of the kernel's receive time stamps."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)
