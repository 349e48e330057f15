"""Kernel settings of interfaces, changed for a while and put back.

Settings are files below /proc/sys/net, which always show the network namespace of the reader. What
a setting was before is remembered in this process only: after kill -9 it stays changed.
Follows the kernel's Documentation/networking/ip-sysctl.rst.
"""

import os
from pathlib import Path
from typing import Final

from carpool.base.errors import DriverError

ROOT: Final = Path("/proc/sys/net")


def interface_setting(family: str, interface: str, name: str) -> str:
    """Return the key of an interface's setting, such as "ipv4/conf/eth0/arp_ignore"."""
    return f"{family}/conf/{interface}/{name}"


class Sysctls:
    """Settings that this process changed: who wants each, and what it was before."""

    def __init__(self, root: Path = ROOT) -> None:
        """Start with nothing changed."""
        self._root = root
        self._before: dict[str, str] = {}
        self._holders: dict[str, set[str]] = {}

    def get(self, key: str) -> str | None:
        """Return a setting's value, None when it does not exist."""
        try:
            return (self._root / key).read_text().strip()
        except OSError:
            return None

    def hold(self, key: str, value: int, holder: str) -> None:
        """Set a setting for as long as `holder` wants it; again is harmless, and sets it again.

        All holders of one key must want the same value. Raises DriverError.
        """
        before = self.get(key)
        if before != str(value):
            self._write(key, str(value))
            if before is not None:
                self._before.setdefault(key, before)
        self._holders.setdefault(key, set()).add(holder)

    def release(self, holder: str) -> list[str]:
        """Put back what nobody but `holder` wanted; return what could not be put back.

        A setting that is gone, with its interface, needs nothing.
        """
        failures: list[str] = []
        for key in [key for key, holders in self._holders.items() if holder in holders]:
            self._holders[key].discard(holder)
            if self._holders[key]:
                continue
            del self._holders[key]
            before = self._before.pop(key, None)
            if before is None or self.get(key) is None:
                continue
            try:
                self._write(key, before)
            except DriverError as exc:
                failures.append(str(exc))
        return failures

    def _write(self, key: str, value: str) -> None:
        """Write one file."""
        try:
            (self._root / key).write_text(value)
        except OSError as exc:
            capability = "CAP_NET_ADMIN" if isinstance(exc, PermissionError) else None
            reason = os.strerror(exc.errno or 0)
            raise DriverError(f"set {key} to {value}", reason, capability=capability) from exc
