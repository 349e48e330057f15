"""Be on time: real-time priority, locked memory, no garbage collector, last in line to be killed.

Each function does what it can and returns what it could not, with the right that is missing: the
daemon runs on without, and says so. Follows sched(7), mlockall(2), capabilities(7), proc(5).
"""

import ctypes
import gc
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PRIORITY_DEFAULT: Final = 50  # above ordinary work, below the kernel's own threads
CPU_SECONDS_MAX: Final = 5  # without a pause: a run-away loop ends, and its death shuts the gate

_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_CAPABILITIES: Final = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_NICE": 23,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}  # bits of linux/capability.h

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_SELF: Final = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Shortcoming:
    """Something that could not be had."""

    attempted: str
    reason: str
    capability: str  # the right that would have allowed it, "" if it is not about rights

    def __str__(self) -> str:
        hint = f" (needs {self.capability})" if self.capability else ""
        return f"{self.attempted}: {self.reason}{hint}"


def parse_effective_capabilities(status: str) -> frozenset[str]:
    """Return the names, of those that matter to us, in the CapEff line of /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1)
    return frozenset()


def effective_capabilities() -> frozenset[str]:
    """Return which of the capabilities that matter to us this process has now.

    In a user namespace they reach only what that namespace owns: BPF and real time stay refused.
    """
    return parse_effective_capabilities((_SELF / "status").read_text())


def _attempt(attempted: str, capability: str, action: Callable[[], object]) -> list[Shortcoming]:
    """Run `action`; an OSError or ValueError of the kernel becomes a Shortcoming."""
    try:
        action()
    except (OSError, ValueError) as exc:
        refused = isinstance(exc, PermissionError | ValueError)
        return [Shortcoming(attempted, str(exc), capability if refused else "")]
    return []


def schedule_realtime(priority: int = PRIORITY_DEFAULT) -> list[Shortcoming]:
    """Run this thread under SCHED_FIFO, and bound what it may compute without a pause.

    Children start under the ordinary policy.
    """
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    missing = _attempt(
        f"run with real-time priority {priority}",
        "CAP_SYS_NICE",
        lambda: os.sched_setscheduler(0, policy, os.sched_param(priority)),
    )
    return missing + _attempt("bound real-time work", "CAP_SYS_RESOURCE", _bound_runtime)


def _bound_runtime() -> None:
    """Set RLIMIT_RTTIME, unless a stricter limit stands; sleeping starts the count again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    wanted = CPU_SECONDS_MAX * 1_000_000
    if soft == resource.RLIM_INFINITY or soft > wanted:
        resource.setrlimit(resource.RLIMIT_RTTIME, (wanted, hard))


def lock_memory() -> list[Shortcoming]:
    """Keep every page of this process, now and later, in memory.

    Not tried without CAP_IPC_LOCK below a limit: later allocations would fail for want of it.
    """
    attempted = "lock memory"
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    unlimited = limit == resource.RLIM_INFINITY
    if not unlimited and "CAP_IPC_LOCK" not in effective_capabilities():
        reason = f"the limit is {limit} bytes (LimitMEMLOCK)"
        return [Shortcoming(attempted, reason, "CAP_IPC_LOCK")]
    if _LIBC.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0:
        return []
    return [Shortcoming(attempted, os.strerror(ctypes.get_errno()), "CAP_IPC_LOCK")]


def stop_garbage_collector() -> None:
    """Collect once, then never again: what is alive now stays, cycles made later are not freed."""
    gc.collect()
    gc.freeze()
    gc.disable()


def spare_from_oom(score: int = -900) -> list[Shortcoming]:
    """Make this process one of the last that the kernel kills when memory is short."""
    file = _SELF / "oom_score_adj"
    return _attempt(
        "be spared when memory is short",
        "CAP_SYS_RESOURCE",
        lambda: file.write_text(str(score)),
    )


def become_realtime(priority: int = PRIORITY_DEFAULT) -> Sequence[Shortcoming]:
    """Do all of the above; return what is missing.

    The scheduler first: on a busy machine everything after it is then done at once.
    """
    missing = schedule_realtime(priority)
    stop_garbage_collector()
    missing += spare_from_oom()
    missing += lock_memory()
    return missing
