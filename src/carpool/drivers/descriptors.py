"""Descriptors that the kernel's gate hangs on: they must go with this process, and go first.

Go with it: a gate is open only while one process holds certain descriptors. A child made by
`os.fork` has copies of them, with which the gate would stay open after the holder's death; so every
child gives its copies back before it does anything else. (Programs started by exec never get them:
all are close-on-exec.)

Go first: when a process ends, the kernel takes its files from the lowest descriptor up and puts
them on a list that it works off backwards. A descriptor above all others is released before them:
the gate is shut before the peer link's connection tells the standby that this process is dead.
"""

import contextlib
import fcntl
import os
import resource
import weakref
from typing import Final, Protocol

from carpool.base.errors import DriverError

HIGH_DESCRIPTOR: Final = 1016  # above all that the daemon opens, below the usual limit of 1024


class Abandonable(Protocol):
    """Something whose descriptors can be closed without touching what stands in the kernel."""

    def abandon(self) -> None:
        """Close all descriptors."""


_HELD: Final[weakref.WeakSet[Abandonable]] = weakref.WeakSet()


def abandon_in_children(held: Abandonable) -> None:
    """From now on, a forked child abandons its copy of `held`, as long as that lives."""
    _HELD.add(held)


def keep_in_children(held: Abandonable) -> None:
    """Undo `abandon_in_children`: there is nothing left to abandon."""
    _HELD.discard(held)


def duplicate_high(descriptor: int) -> int:
    """Return a copy of `descriptor` above all others, close-on-exec. Raises DriverError."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    start = HIGH_DESCRIPTOR if limit == resource.RLIM_INFINITY else min(HIGH_DESCRIPTOR, limit - 8)
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(start, 0))
    except OSError as exc:
        raise DriverError("duplicate a descriptor", os.strerror(exc.errno or 0)) from exc


def _abandon_all() -> None:
    """Do it, in the child."""
    for held in list(_HELD):
        with contextlib.suppress(OSError, DriverError):
            held.abandon()


os.register_at_fork(after_in_child=_abandon_all)
