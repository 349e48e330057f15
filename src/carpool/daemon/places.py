"""Where the daemon keeps its things while it runs: directory, locks, process ids, control socket.

Two locks, held by the kernel for exactly as long as their process lives, whatever the disk has room
for: `lock` is the parent's (flock(2)), `elect.lock` the election process's own (a record lock of
fcntl(2), whose holder's id the kernel tells). The process ids in files are for people and tools.
"""

import contextlib
import fcntl
import os
import signal
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from carpool.base.errors import LocalError
from carpool.base.time import NS_PER_S, after
from carpool.drivers.clock import boottime_ns

ORPHAN_NS_MAX: Final = 10 * NS_PER_S  # how long an orphaned election process may take to leave
CLAIM_NS_MAX: Final = NS_PER_S  # how long one that just found out that it is an orphan may take
_POLL_S: Final = 0.005
_FLOCK: Final = struct.Struct("@hhqqi")  # struct flock: type, whence, start, length, pid


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one daemon."""

    runtime: Path
    state: Path

    @property
    def socket(self) -> Path:
        """Return the path of the control socket."""
        return self.runtime / "control.sock"

    def pid_file(self, process: str) -> Path:
        """Return the file with a process's id."""
        return self.runtime / f"{process}.pid"

    def lock(self) -> int:
        """Make the runtime directory ours; return the lock's descriptor.

        Raises LocalError when another carpoold has it.
        """
        path = self.runtime / "lock"
        while True:
            try:
                self.runtime.mkdir(parents=True, exist_ok=True, mode=0o755)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as exc:
                raise LocalError(f"{self.runtime}: {exc.strerror}") from exc
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                os.close(descriptor)
                raise LocalError(f"another carpoold runs in {self.runtime}") from exc
            if _is_file(descriptor, path):
                return descriptor
            os.close(descriptor)  # its last holder took the file away meanwhile

    def write_pid(self, process: str, pid: int) -> None:
        """Note a process's id, whole or not at all; without the file nothing stops."""
        path = self.pid_file(process)
        fresh = path.with_suffix(".new")
        try:
            self.runtime.mkdir(parents=True, exist_ok=True, mode=0o755)
            fresh.write_text(f"{pid}\n")
            fresh.replace(path)
        except OSError:
            for stale in (fresh, path):
                with contextlib.suppress(OSError):
                    stale.unlink()

    def claim_election(self, parent: int) -> None:
        """Be the only election process of this directory, until this process ends.

        parent: the process that started this one; without it there is nobody to work for.
        Raises LocalError.
        """
        descriptor = self._open_election_lock()
        deadline = after(boottime_ns(), CLAIM_NS_MAX)
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as exc:
                if boottime_ns() >= deadline:
                    text = f"another election process runs in {self.runtime}"
                    raise LocalError(text) from exc
                time.sleep(_POLL_S)  # noqa: TID251  a poll for a fact with a deadline
        if os.getppid() != parent:  # it was killed before we had the lock: its successor saw nobody
            raise LocalError("carpoold has ended")

    def end_orphan(self) -> None:
        """End an election process whose parent was killed: its addresses are ours to take over.

        Raises LocalError.
        """
        descriptor = self._open_election_lock()
        try:
            deadline = after(boottime_ns(), ORPHAN_NS_MAX)
            asked = 0
            while (pid := _holder(descriptor)) > 0:
                number = signal.SIGTERM if boottime_ns() < deadline else signal.SIGKILL
                if pid != asked or number == signal.SIGKILL:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                    asked = pid
                time.sleep(_POLL_S)  # noqa: TID251  a poll for a fact with a deadline
        finally:
            os.close(descriptor)

    def _open_election_lock(self) -> int:
        path = self.runtime / "elect.lock"
        try:
            self.runtime.mkdir(parents=True, exist_ok=True, mode=0o755)  # somebody may tidy up
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise LocalError(f"{path}: {exc.strerror}") from exc

    def tidy(self, *, alone: bool) -> None:
        """Remove what a stopped daemon leaves; the directory may be systemd's.

        alone: no process of ours is left. Otherwise the locks stay: an orphaned election process
        that lost its lock file could not be found by the next carpoold.
        """
        paths = [self.socket, self.pid_file("serve"), self.pid_file("carpoold")]
        if alone:
            locks = (self.runtime / "elect.lock", self.runtime / "lock")
            paths += [self.pid_file("elect"), *locks]
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_file(descriptor: int, path: Path) -> bool:
    """Return whether the open file is the one that the path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _holder(descriptor: int) -> int:
    """Return the process that holds a record lock on the file, 0 when none does."""
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question.ljust(_FLOCK.size + 8, b"\0"))
    kind, _, _, _, pid = _FLOCK.unpack_from(answer)
    return 0 if kind == fcntl.F_UNLCK else int(pid)
