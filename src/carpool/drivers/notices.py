"""Hear that someone else changed the kernel's tables: a netlink socket that only says "look again".

What changed is not read from the notices: the gate compares the whole with what it wants (`audit`),
which also covers notices that were lost. Notices of our own changes are left out by a socket filter
on the sender's port, so that a renewal each 30 ms does not wake us up. (The kernel signs those of a
tc chain that comes or goes with nobody's port: one look too many after an install.)
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Final

from carpool.base.errors import DriverError

RECEIVE_BYTES: Final = 65_536
DRAIN_MAX: Final = 256  # notices read in one go; what is left makes the socket readable again

_SO_ATTACH_FILTER: Final = 26
_PORT_OFFSET: Final = 12  # of nlmsghdr.nlmsg_pid
_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06


def netlink_port(descriptor: int) -> int:
    """Return the port by which the kernel knows the netlink socket. Raises DriverError."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            return int(copy.getsockname()[0])
    except OSError as exc:
        raise DriverError("read a netlink port", os.strerror(exc.errno or 0)) from exc


class NoticeSocket:
    """Becomes readable when a table of `groups` was changed by anyone but `own_port`."""

    def __init__(self, family: int, groups: int, own_port: int) -> None:
        """Listen. groups: bit mask of the old kind (group n is bit n - 1). Raises DriverError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, family)
            self._ignore(own_port)
            self._socket.bind((0, groups))
        except OSError as exc:
            raise DriverError("listen for changes", os.strerror(exc.errno or 0)) from exc

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def drain(self) -> bool:
        """Read what is waiting; say whether there was anything (lost notices count)."""
        heard = False
        for _ in range(DRAIN_MAX):
            try:
                self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise DriverError("hear of changes", os.strerror(exc.errno or 0)) from exc
            heard = True
        return heard

    def _ignore(self, port: int) -> None:
        """Attach the filter: a message whose sender is `port` is not delivered."""
        # Classic BPF loads in network order, netlink headers are in the machine's.
        seen = int.from_bytes(port.to_bytes(4, sys.byteorder), "big")
        code = b"".join(
            (
                _INSTRUCTION.pack(_LOAD_WORD, 0, 0, _PORT_OFFSET),
                _INSTRUCTION.pack(_JUMP_EQUAL, 0, 1, seen),
                _INSTRUCTION.pack(_RETURN, 0, 0, 0),
                _INSTRUCTION.pack(_RETURN, 0, 0, 0xFFFF_FFFF),
            )
        )
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
