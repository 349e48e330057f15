"""Time as integers: instants on the boot-time clock and durations, both in nanoseconds.

Why boot time and not monotonic time: a lease must also end while the machine is suspended
(CLOCK_MONOTONIC stops then, CLOCK_BOOTTIME does not), and the kernel's gate compares with the same
clock (`bpf_ktime_get_boot_ns`).
"""

import re
from typing import Final, NewType

Instant = NewType("Instant", int)
"""A point on this machine's CLOCK_BOOTTIME, nanoseconds. Never compared across machines."""

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000

_UNIT_NS: Final = {
    "us": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 86400 * NS_PER_S,
}
_DURATION: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?(us|ms|s|m|h|d)")


def after(instant: Instant, duration_ns: int) -> Instant:
    """Return the instant `duration_ns` nanoseconds after `instant`."""
    return Instant(instant + duration_ns)


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration such as "250ms", "1.5s", "2m", "1h".

    Raises ValueError with a sentence for the operator: no unit, no number, or not a duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            raise ValueError(f'{text} has no unit (write "{text}s" or "{text}ms")')
        raise ValueError(f'{text!r} is not a duration (write for example "250ms", "1s" or "2m")')
    whole, fraction, unit = match.groups()
    scale = _UNIT_NS[unit]
    fraction_ns = int(fraction) * scale // 10 ** len(fraction) if fraction else 0
    return int(whole) * scale + fraction_ns


def format_duration(duration_ns: int) -> str:
    """Return the shortest text that `parse_duration` reads back as `duration_ns`.

    Below one microsecond nothing can be written; the caller keeps durations in microseconds.
    """
    for unit in ("d", "h", "m", "s", "ms"):
        if duration_ns and duration_ns % _UNIT_NS[unit] == 0:
            return f"{duration_ns // _UNIT_NS[unit]}{unit}"
    if duration_ns == 0:
        return "0s"
    return f"{duration_ns // NS_PER_US}us"


def human_duration(duration_ns: int) -> str:
    """Return a duration for a person's eye: "2.8 ms", "3.1 s", "3d 04h"."""
    seconds = duration_ns / NS_PER_S
    if abs(seconds) < 1:
        milliseconds = duration_ns / NS_PER_MS
        return f"{milliseconds:.1f} ms" if abs(milliseconds) < 100 else f"{milliseconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 120:
        return f"{minutes}m {int(seconds) % 60:02d}s"
    hours = minutes // 60
    if hours < 48:
        return f"{hours}h {minutes % 60:02d}m"
    return f"{hours // 24}d {hours % 24:02d}h"
