"""Processes by id: who lives in a namespace, signals to exactly those, never by name.

A process is remembered by its id and its start time, so that an id that the kernel gave to
somebody else meanwhile is never hit.
"""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from carpool.lab.shell import NETNS_DIR
from carpool.lab.waiting import wait_for

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Known:
    """A process that the lab started."""

    role: str  # "daemon", "responder", "prober" ...
    host: str
    pid: int
    started: int  # clock ticks after boot, from /proc/PID/stat


def start_time(pid: int) -> int:
    """Return when `pid` started, in clock ticks after boot; 0 if it is gone or a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def state(pid: int) -> str:
    """Return the letter of the process' state ("T" = stopped), "" if it is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def alive(known: Known) -> bool:
    """Tell whether this very process still runs."""
    return start_time(known.pid) == known.started != 0


def inhabitants(namespaces: Iterable[str]) -> dict[str, list[int]]:
    """Return the process ids that live in each of the named network namespaces, oldest first."""
    names: dict[tuple[int, int], str] = {}
    for name in namespaces:
        with suppress(OSError):
            place = (NETNS_DIR / name).stat()
            names[place.st_dev, place.st_ino] = name
    found: dict[str, list[int]] = {name: [] for name in names.values()}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                place = (entry / "ns/net").stat()
                name = names.get((place.st_dev, place.st_ino), "")
                if name:
                    found[name].append(int(entry.name))
    return {name: sorted(pids, key=start_time) for name, pids in found.items()}


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each; one that is gone already is what was wanted."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def reap(pids: Iterable[int]) -> None:
    """Collect the exit of those that are our own children, so that no zombie stays."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def gone(pids: Iterable[int]) -> bool:
    """Tell whether none of them runs any more; our own children are reaped on the way."""
    pids = list(pids)
    reap(pids)
    return all(start_time(pid) == 0 for pid in pids)


def end(pids: Iterable[int], deadline_s: float = 5.0) -> None:
    """Kill each by id and wait until all of them are gone."""
    pids = list(pids)
    send(pids, signal.SIGKILL)
    wait_for(lambda: gone(pids), deadline_s, f"the end of processes {pids}")
