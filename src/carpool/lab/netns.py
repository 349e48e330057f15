"""Network namespaces as a lab's machines: made, inhabited, and always removed.

A namespace is called `cp-PID-N`. Everything is in the registry before it exists; removal happens
in `finally`, on SIGINT, SIGTERM and SIGHUP, and by any other process through the registry.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, Self

from carpool.lab import registry as registries
from carpool.lab.processes import Known, alive, end, inhabitants, start_time
from carpool.lab.registry import Registry
from carpool.lab.shell import NETNS_DIR, inside, ip_batch, run, tool_environment
from carpool.lab.waiting import LabError

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Quiet machines: no router solicitations, no duplicate address detection that would add seconds.
QUIET: Final = (
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.router_solicitations=0",
)


def labs_directory() -> Path:
    """Return where labs are kept: ours alone, and outside /run when we are not root."""
    given = os.environ.get("CARPOOL_LAB_DIR")
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run/carpool-lab")
    return Path(f"/tmp/carpool-lab-{os.geteuid()}")  # noqa: S108  checked by `own_directory`


def own_directory(path: Path) -> Path:
    """Make `path` for us alone and return it; refuse one that belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise LabError(f"{path} belongs to another user")
    return path


class Lab:
    """Namespaces and processes of one lab; a context manager that leaves nothing behind."""

    def __init__(self, directory: Path, registry: Registry) -> None:
        self.directory = directory
        self.registry = registry

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Make an empty lab in `directory`; what a dead maker left there is removed first."""
        if (directory / registries.FILE_NAME).exists():
            left = cls.open(directory)
            if left.registry.detached or left.maker_lives():
                raise LabError(f"a lab is up in {directory} (carpool lab down removes it)")
            left.remove()
        own_directory(directory)
        lab = cls(directory, Registry(os.getpid(), start_time(os.getpid())))
        lab.save()
        return lab

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Return the lab that another process made. Raises LabError if there is none."""
        return cls(directory, registries.load(directory))

    def save(self) -> None:
        """Write the registry."""
        self.registry.save(self.directory)

    def maker_lives(self) -> bool:
        """Tell whether the process that made this lab still runs."""
        return start_time(self.registry.owner) == self.registry.owner_started != 0

    def add_host(self, host: str) -> str:
        """Make a namespace for `host` and return its name."""
        name = self._free_name()
        self.registry.namespaces[host] = name
        self.save()
        run(["ip", "netns", "add", name])
        ip_batch(["link set lo up"], namespace=name)
        run(inside(name, ["sysctl", "-q", "-w", *QUIET]))
        return name

    def _free_name(self) -> str:
        taken = set(self.registry.namespaces.values())
        for number in range(len(taken), len(taken) + 10_000):
            name = f"cp-{os.getpid()}-{number}"
            if name not in taken and not (NETNS_DIR / name).exists():
                return name
        raise LabError("no free name for a namespace")

    def namespace(self, host: str) -> str:
        """Return the namespace of `host`. Raises LabError for a host that is not here."""
        try:
            return self.registry.namespaces[host]
        except KeyError:
            known = ", ".join(self.registry.namespaces)
            raise LabError(f"no host {host!r} in this lab (there are {known})") from None

    def run(self, host: str, command: Sequence[str], *, text: str = "") -> str:
        """Run a command on `host` and return what it printed."""
        return run(inside(self.namespace(host), command), text=text)

    def spawn(self, role: str, host: str, command: Sequence[str], output: Path) -> Known:
        """Start a process on `host`, in a session of its own, its output appended to a file."""
        full = inside(self.namespace(host), command)
        environment = tool_environment()
        program = shutil.which(full[0], path=environment["PATH"])
        if program is None:
            raise LabError(f"{full[0]} is not installed")
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            program,
            full,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(output), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, *STOP_SIGNALS),
        )
        known = Known(role, host, pid, start_time(pid))
        self.registry.processes.append(known)
        self.save()
        return known

    def python(self, role: str, host: str, module: str, arguments: Sequence[str]) -> Known:
        """Start one of our own modules on `host`; its output is a file named after both."""
        output = self.directory / f"{role}.{host}.log"
        return self.spawn(role, host, [sys.executable, "-m", module, *arguments], output)

    def known(self, role: str, host: str) -> list[Known]:
        """Return the living processes of that role on that host."""
        return [
            process
            for process in self.registry.processes
            if process.role == role and process.host == host and alive(process)
        ]

    def forget_dead(self) -> None:
        """Drop processes that ended from the registry."""
        self.registry.processes = [each for each in self.registry.processes if alive(each)]
        self.save()

    def inhabitants(self, host: str) -> list[int]:
        """Return the process ids that live on `host`, oldest first."""
        name = self.namespace(host)
        return inhabitants([name]).get(name, [])

    def remove(self) -> None:
        """End every process by id, remove every namespace, then the directory."""
        with signals_held():
            names = list(self.registry.namespaces.values())
            pids = {pid for group in inhabitants(names).values() for pid in group}
            pids |= {each.pid for each in self.registry.processes if alive(each)}
            end(pids - {os.getpid()})
            for name in names:
                if (NETNS_DIR / name).exists():
                    run(["ip", "netns", "del", name])
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the stop signals, so that cleaning up is not interrupted half-way."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stopped(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise SystemExit here, so that `finally` runs."""
    before = {number: signal.signal(number, _stopped) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
