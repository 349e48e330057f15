"""The real daemon on a node of the lab: started, killed, frozen, thawed, asked and ordered."""

import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from carpool.base.errors import CarpoolError
from carpool.control.client import ask
from carpool.control.messages import ControlError
from carpool.lab import processes
from carpool.lab.netns import Lab
from carpool.lab.waiting import LabError, realtime_ns, wait_for

MODULE: Final = "carpool.daemon.main"
ROLE: Final = "daemon"
READY_S: Final = 15.0  # Python, BPF programs and the first snapshot, on a busy machine
STOP_S: Final = 10.0  # a hand-over and the end of three processes


class Daemon:
    """carpoold on one node."""

    def __init__(self, lab: Lab, node: str) -> None:
        self.lab = lab
        self.node = node
        self.directory = lab.directory / node
        self.runtime = self.directory / "run"
        self.state = self.directory / "state"
        self._stopped_by_us = False  # a frozen daemon takes connections and never answers

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.runtime / "control.sock"

    def start(self) -> None:
        """Start carpoold; `wait_ready` waits until it answers."""
        if self.pids():
            raise LabError(f"carpoold runs on {self.node} already")
        for folder in (self.runtime, self.state):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.lab.python(
            ROLE,
            self.node,
            MODULE,
            [
                "--config",
                str(self.directory / "carpool.toml"),
                "--node",
                self.node,
                "--state-dir",
                str(self.state),
                "--runtime-dir",
                str(self.runtime),
            ],
        )

    def wait_ready(self) -> None:
        """Wait until the daemon answers `status`; say what it logged if it ended instead."""
        try:
            wait_for(self._ready_or_ended, READY_S, f"carpoold on {self.node}")
        except LabError as late:
            raise LabError(f"{late}:\n{self.log_tail()}") from late

    def _ready_or_ended(self) -> bool:
        if self.status():
            return True
        if not self.lab.known(ROLE, self.node):  # by id: `ip` enters the namespace a bit later
            raise LabError("it ended")
        return False

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that the daemon wrote."""
        path = self.lab.directory / f"{ROLE}.{self.node}.log"
        with suppress(FileNotFoundError):
            return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
        return "(nothing was logged)"

    def pids(self) -> list[int]:
        """Return the daemon's processes, the parent first: all on this node but our helpers."""
        helpers = {
            each.pid
            for each in self.lab.registry.processes
            if each.host == self.node and each.role != ROLE
        }
        return [
            pid
            for pid in self.lab.inhabitants(self.node)
            if pid not in helpers and processes.start_time(pid)
        ]

    def kill(self) -> int:
        """Send SIGKILL to all of it at once and return the instant just before."""
        pids = self.pids()
        began = realtime_ns()
        processes.send(pids, signal.SIGKILL)
        self._stopped_by_us = False
        wait_for(lambda: processes.gone(pids), STOP_S, f"the end of carpoold on {self.node}")
        self.lab.forget_dead()
        return began

    def kill_elect(self) -> int:
        """Send SIGKILL to the `elect` process alone and return the instant just before."""
        pid = int((self.runtime / "elect.pid").read_text())
        if pid not in self.pids():
            raise LabError(f"elect.pid on {self.node} names {pid}, which is not the daemon's")
        began = realtime_ns()
        processes.send([pid], signal.SIGKILL)
        return began

    def freeze(self) -> int:
        """Stop all of it by SIGSTOP and return the instant just before."""
        pids = self.pids()
        self._stopped_by_us = True
        began = realtime_ns()
        processes.send(pids, signal.SIGSTOP)
        return began

    def thaw(self) -> int:
        """Let all of it go on and return the instant just before."""
        pids = self.pids()
        began = realtime_ns()
        processes.send(pids, signal.SIGCONT)
        self._stopped_by_us = False
        return began

    @property
    def frozen(self) -> bool:
        """Whether any of it is stopped."""
        return any(processes.state(pid) == "T" for pid in self.pids())

    def stop(self) -> int:
        """Stop it as an operator does (SIGTERM), wait; return when the order was given."""
        pids = self.pids()
        began = realtime_ns()
        processes.send(pids[:1], signal.SIGTERM)
        wait_for(lambda: processes.gone(pids), STOP_S, f"carpoold on {self.node} to stop")
        self.lab.forget_dead()
        return began

    def status(self) -> Mapping[str, Any]:
        """Return what `carpool status --json` knows, empty if nobody answers."""
        if self._stopped_by_us:
            return {}
        try:
            return dict(ask(str(self.socket), "status").data)
        except CarpoolError:
            return {}

    def group(self, group: str) -> Mapping[str, Any]:
        """Return the status of one group, empty if nobody answers."""
        groups = self.status().get("groups", ())
        return next((each for each in groups if each["group"] == group), {})

    def role(self, group: str) -> str:
        """Return INIT, BACKUP or MASTER; "" if nobody answers."""
        return str(self.group(group).get("state", ""))

    def order(self, verb: str, **arguments: object) -> Mapping[str, Any]:
        """Give the daemon an order. Raises LabError with its refusal."""
        try:
            answer = ask(str(self.socket), verb, arguments)
        except ControlError as refused:
            raise LabError(f"{self.node}: {verb}: {refused}") from refused
        return dict(answer.data or {})
