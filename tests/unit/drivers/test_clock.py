"""The clock and the timer that wakes the loop."""

import select
import time

from carpool.base.time import NS_PER_MS, NS_PER_S, after
from carpool.drivers.clock import BoottimeTimer, boottime_ns, monotonic_us, realtime_offset_ns


def test_boottime_goes_on() -> None:
    """Two readings never go backwards, and are the kernel's boot time."""
    first, second = boottime_ns(), boottime_ns()
    assert first <= second
    assert abs(second - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < NS_PER_S


def test_realtime_offset_converts() -> None:
    """Wall clock less the offset is boot time, within 10 ms."""
    converted = time.clock_gettime_ns(time.CLOCK_REALTIME) - realtime_offset_ns()
    assert abs(converted - boottime_ns()) < 10 * NS_PER_MS


def test_monotonic_is_in_microseconds() -> None:
    """Systemd's clock is CLOCK_MONOTONIC in microseconds."""
    assert abs(monotonic_us() - time.monotonic_ns() // 1000) < 1_000_000


def test_timer_fires_at_its_instant() -> None:
    """The timer wakes not before its instant, counts one firing, and is silent afterwards."""
    timer = BoottimeTimer()
    try:
        instant = after(boottime_ns(), 20 * NS_PER_MS)
        timer.arm(instant)
        assert select.select([timer], [], [], 5)[0] == [timer]
        assert boottime_ns() >= instant
        assert timer.clear() == 1
        assert timer.clear() == 0
        assert select.select([timer], [], [], 0)[0] == []
    finally:
        timer.close()


def test_timer_fires_for_the_past() -> None:
    """An instant that is over, even zero, wakes at once instead of never."""
    timer = BoottimeTimer()
    try:
        for instant in (after(boottime_ns(), -NS_PER_S), type(boottime_ns())(0)):
            timer.arm(instant)
            assert select.select([timer], [], [], 5)[0] == [timer]
            assert timer.clear() >= 1
    finally:
        timer.close()


def test_timer_disarms() -> None:
    """A disarmed timer stays silent; clear on a timer that has not fired does not disarm it."""
    timer = BoottimeTimer()
    try:
        timer.arm(after(boottime_ns(), 30 * NS_PER_MS))
        assert timer.clear() == 0
        timer.arm(None)
        assert select.select([timer], [], [], 0.06)[0] == []
    finally:
        timer.close()
        timer.close()
