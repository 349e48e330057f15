"""Tell systemd how the daemon is: ready, reloading, stopping, alive, and one line of status.

Follows sd_notify(3) and systemd.service(5) (Type=notify, WatchdogSec). Outside systemd nothing is
sent. A message that cannot be delivered is given up: systemd must never hold the daemon.
"""

import os
import socket
from collections.abc import Mapping

from carpool.base.time import NS_PER_US
from carpool.drivers.clock import monotonic_us


class Notifier:
    """The way to systemd, from the environment that systemd gave."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Remember where systemd listens; None = this process's environment."""
        found = os.environ if environment is None else environment
        path = found.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract namespace's zero byte.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_us = found.get("WATCHDOG_USEC", "")
        self._watchdog_pid = found.get("WATCHDOG_PID", "")

    @property
    def watchdog_interval_ns(self) -> int | None:
        """How often `alive` must be called: half of what systemd waits; None if it does not."""
        if not self._watchdog_us.isdecimal() or int(self._watchdog_us) == 0:
            return None
        if self._watchdog_pid and self._watchdog_pid != str(os.getpid()):
            return None
        return int(self._watchdog_us) * NS_PER_US // 2

    def ready(self, status: str = "") -> bool:
        """Say that start or reload is complete; return whether the message was delivered."""
        return self._send("READY=1", status)

    def status(self, status: str) -> bool:
        """Show one line in `systemctl status`."""
        return self._send("", status)

    def alive(self) -> bool:
        """Feed the watchdog."""
        return self._send("WATCHDOG=1", "")

    def reloading(self) -> bool:
        """Say that a reload begins; `ready` ends it."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us()}", "")

    def stopping(self, status: str = "") -> bool:
        """Say that the end begins."""
        return self._send("STOPPING=1", status)

    def _send(self, state: str, status: str) -> bool:
        """Send one message without waiting."""
        if not self._address:
            return False
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + status.replace("\n", " "))
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as way:
                way.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True
