"""Real ucarp in the lab: started as its manual says, its state read from its own log.

It announces with its interface's address, runs a script to add the shared address and one to take
it away, and knows exactly one IPv4 address and a password of at most 19 characters.
Source: ucarp(8), ucarp 1.5.2.
"""

import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from carpool.lab import processes
from carpool.lab.netns import Lab
from carpool.lab.shell import SYSTEM_PATH
from carpool.lab.waiting import LabError, realtime_ns, wait_for

ROLE: Final = "ucarp"
END_S: Final = 5.0
_STATE: Final = re.compile(r"\[WARNING\] Switching to state: (\w+)")


@dataclass(frozen=True, slots=True)
class UcarpOptions:
    """What ucarp is told."""

    interface: str
    source: str
    vhid: int
    password: str
    address: str  # the shared address, without prefix length
    advbase: int = 1
    advskew: int = 0
    preempt: bool = True


def installed() -> bool:
    """Tell whether ucarp is on this machine."""
    return shutil.which("ucarp", path=SYSTEM_PATH) is not None


class Ucarp:
    """One ucarp process on a host of the lab."""

    def __init__(self, lab: Lab, host: str, options: UcarpOptions) -> None:
        self.lab = lab
        self.host = host
        self.options = options
        self.log = lab.directory / f"{ROLE}.{host}.log"

    def start(self) -> None:
        """Start it, with scripts that add and take the address."""
        if not installed():
            raise LabError("ucarp is not installed")
        up = self._script("up", "add")
        down = self._script("down", "del")
        each = self.options
        command = [
            "ucarp",
            f"--interface={each.interface}",
            f"--srcip={each.source}",
            f"--vhid={each.vhid}",
            f"--pass={each.password}",
            f"--addr={each.address}",
            f"--advbase={each.advbase}",
            f"--advskew={each.advskew}",
            f"--upscript={up}",
            f"--downscript={down}",
            "--shutdown",
            "--neutral",
            *(["--preempt"] if each.preempt else []),
        ]
        self.lab.spawn(ROLE, self.host, command, self.log)

    def _script(self, name: str, verb: str) -> Path:
        path = self.lab.directory / f"{ROLE}.{self.host}.{name}"
        path.write_text(f'#!/bin/sh\nexec ip address {verb} "$2/32" dev "$1"\n')
        path.chmod(0o700)
        return path

    @property
    def state(self) -> str:
        """MASTER or BACKUP as it logged last, "" before."""
        if not self.log.exists():
            return ""
        found = _STATE.findall(self.log.read_text(errors="replace"))
        return str(found[-1]) if found else ""

    def wait_state(self, state: str, deadline_s: float = 10.0) -> None:
        """Wait until it logged this state."""
        wait_for(lambda: self.state == state, deadline_s, f"ucarp on {self.host} to be {state}")

    def complaints(self, word: str) -> int:
        """Return in how many lines of its log `word` stands."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return sum(word in line for line in lines)

    def pids(self) -> list[int]:
        """Return its process ids."""
        return [known.pid for known in self.lab.known(ROLE, self.host)]

    def _signal(self, number: signal.Signals) -> int:
        pids = self.pids()
        began = realtime_ns()
        processes.send(pids, number)
        return began

    def kill(self) -> int:
        """Send SIGKILL and return the instant just before."""
        pids = self.pids()
        began = self._signal(signal.SIGKILL)
        wait_for(lambda: processes.gone(pids), END_S, "the end of ucarp")
        return began

    def freeze(self) -> int:
        """Send SIGSTOP and return the instant just before."""
        return self._signal(signal.SIGSTOP)

    def thaw(self) -> int:
        """Send SIGCONT and return the instant just before."""
        return self._signal(signal.SIGCONT)

    def stop(self) -> int:
        """Stop it as its manual says (SIGTERM) and return the instant just before."""
        pids = self.pids()
        began = self._signal(signal.SIGTERM)
        wait_for(lambda: processes.gone(pids), END_S, "ucarp to stop")
        return began
