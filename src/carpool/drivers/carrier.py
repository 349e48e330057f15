"""Does the cable carry? Asked of sysfs through a file that is kept open: 3 us a question.

The kernel's own events about carrier loss can be a second late (it limits their rate), so tracked
interfaces are polled. sysfs shows the network namespace in which it was mounted; where that is not
ours, netlink is asked instead (some 20 us). Follows the kernel's
Documentation/ABI/testing/sysfs-class-net.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from carpool.drivers.links import link_by_name
from carpool.drivers.netlink_socket import NetlinkSocket

SYSFS: Final = Path("/sys/class/net")


class Carrier:
    """Carrier of one interface, by name; an interface that goes and comes back is followed.

    After a rename the name means another device: `reopen` then.
    """

    def __init__(self, interface: str, netlink: NetlinkSocket, sysfs: Path = SYSFS) -> None:
        """Nothing is opened before the first question."""
        self.interface = interface
        self.ifindex = 0  # of the device that answers; 0 = none
        self._netlink = netlink
        self._path = sysfs / interface
        self._fd = -1
        self._found = False

    def read(self) -> bool | None:
        """Return whether the interface carries; None when there is no such interface.

        An interface that is switched off does not carry. Raises DriverError when netlink is asked
        and fails.
        """
        if not self._found and not self.reopen():
            return None
        answer = self._ask()
        if answer is None and self.reopen():  # deleted, and perhaps there again
            answer = self._ask()
        return answer

    def operstate(self) -> str:
        """Return RFC 2863's word for the interface, "notpresent" when there is none."""
        link = link_by_name(self._netlink, self.interface)
        return link.operstate if link else "notpresent"

    def reopen(self) -> bool:
        """Find the interface anew; return whether there is one. Raises DriverError."""
        self.close()
        link = link_by_name(self._netlink, self.interface)
        if link is None:
            return False
        self.ifindex = link.index
        self._found = True
        if self._sysfs_shows(link.index, link.mac):
            with contextlib.suppress(OSError):  # gone in between; netlink will say so
                self._fd = os.open(self._path / "carrier", os.O_RDONLY | os.O_CLOEXEC)
        return True

    def close(self) -> None:
        """Let go of the file; the next question opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._found = False
        self.ifindex = 0

    def _ask(self) -> bool | None:
        """Read the open file, or ask netlink where there is none; None when the device is gone."""
        if self._fd < 0:
            link = link_by_name(self._netlink, self.interface)
            return link.up and link.carrier if link and link.index == self.ifindex else None
        try:
            return os.pread(self._fd, 4, 0).startswith(b"1")
        except OSError as exc:
            # EINVAL: the interface is there but switched off.
            return False if exc.errno == errno.EINVAL else None

    def _sysfs_shows(self, ifindex: int, mac: bytes) -> bool:
        """Whether sysfs shows the same device as netlink: same index and same hardware address."""
        try:
            shown_index = int((self._path / "ifindex").read_text())
            shown_mac = (self._path / "address").read_text().strip()
        except (OSError, ValueError):
            return False
        return shown_index == ifindex and shown_mac.replace(":", "") == mac.hex()
