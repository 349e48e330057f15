"""Being on time: what works, and what is said about what does not."""

import os
import subprocess
import sys

from carpool.drivers.realtime import (
    Shortcoming,
    effective_capabilities,
    parse_effective_capabilities,
)

# Gives up every capability first, so that every right is missing whoever runs the tests.
UNPRIVILEGED = """
import ctypes, gc, struct
from carpool.drivers.realtime import become_realtime
libc = ctypes.CDLL(None, use_errno=True)
assert libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24)) == 0
missing = become_realtime(10)
print(sorted({item.capability for item in missing}))
print(gc.isenabled(), gc.get_freeze_count() > 0)
"""

# With whatever rights the tests run: what is not complained about must be so.
AS_IT_IS = """
import os
from carpool.drivers.realtime import become_realtime
missing = become_realtime(10)
print(any(item.capability == "CAP_SYS_NICE" for item in missing))
print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO)
print(any(item.attempted == "lock memory" for item in missing))
print("VmLck:\\t       0 kB" not in open("/proc/self/status").read())
"""


def run(program: str) -> list[str]:
    """Run a Python program in a process of its own and return its lines."""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return ran.stdout.splitlines()


def test_capabilities_are_read() -> None:
    """The capability mask is read by its bits; other lines and other bits are not ours."""
    mask = 1 << 12 | 1 << 39 | 1 << 1
    status = f"Name:\tx\nCapPrm:\tffff\nCapEff:\t{mask:016x}\n"
    assert parse_effective_capabilities(status) == {"CAP_NET_ADMIN", "CAP_BPF"}
    assert parse_effective_capabilities("Name:\tx\n") == frozenset()


def test_own_capabilities() -> None:
    """This process's own capabilities can be asked."""
    assert all(name.startswith("CAP_") for name in effective_capabilities())


def test_unprivileged_process_says_what_it_lacks() -> None:
    """Without rights nothing is raised: each missing one is named; the collector stops anyway."""
    lacks, collector = run(UNPRIVILEGED)
    assert "CAP_SYS_NICE" in lacks
    assert "CAP_SYS_RESOURCE" in lacks
    assert collector == "False True"


def test_what_is_not_missing_is_so() -> None:
    """Real-time policy and locked memory are in force, or else reported as missing."""
    no_realtime, realtime, no_lock, locked = run(AS_IT_IS)
    assert no_realtime != realtime
    assert no_lock != locked


def test_shortcoming_is_a_sentence() -> None:
    """A shortcoming prints what, why and which right; the right only if it is about rights."""
    assert str(Shortcoming("lock memory", "refused", "CAP_IPC_LOCK")) == (
        "lock memory: refused (needs CAP_IPC_LOCK)"
    )
    assert str(Shortcoming("lock memory", "no memory", "")) == "lock memory: no memory"
