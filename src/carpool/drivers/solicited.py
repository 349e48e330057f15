"""Hear neighbour solicitations for an address before the address is there.

Linux joins an address's solicited-node multicast group (RFC 4861, RFC 4291 2.7.1) in a work queue,
one address after the other under its big network lock: of 250 addresses that are added at once the
last one hears its solicitations 60 to 200 ms later (measured; net/ipv6/addrconf.c,
addrconf_dad_work). A standby therefore is a member of all groups already; the gate drops what is
not its to answer. Membership tells snooping switches the way ahead of time as well.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

from carpool.base.errors import DriverError
from carpool.wire.ndp import solicited_node

SOCKETS_MAX: Final = 64  # a socket's option memory holds some hundred memberships
_FULL: Final = frozenset({errno.ENOMEM, errno.ENOBUFS})


class SolicitedNodes:
    """Memberships in the solicited-node groups of some addresses on one interface."""

    def __init__(self, ifindex: int) -> None:
        """Join nothing yet."""
        self.ifindex = ifindex
        self.addresses: frozenset[IPv6Address] = frozenset()
        self._sockets: list[socket.socket] = []

    def join(self, addresses: Iterable[IPv6Address]) -> str:
        """Be a member for exactly these addresses; return why some could not be joined, or ""."""
        wanted = frozenset(addresses)
        if wanted == self.addresses:
            return ""
        self.close()
        self.addresses = wanted
        for group in sorted({solicited_node(address) for address in wanted}):
            failed = self._join_one(group)
            if failed:
                return failed
        return ""

    def close(self) -> None:
        """Leave all groups; those of addresses that stand are the kernel's own as well."""
        for held in self._sockets:
            held.close()
        self._sockets = []
        self.addresses = frozenset()

    def _join_one(self, group: IPv6Address) -> str:
        """Join with the last socket, or with a fresh one when that is full."""
        request = struct.pack("@16si", group.packed, self.ifindex)
        for attempt in (self._sockets[-1:], []):
            try:
                held = attempt[0] if attempt else self._open()
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
            except OSError as exc:
                if exc.errno not in _FULL or not attempt:
                    return os.strerror(exc.errno or 0)
            except DriverError as refused:
                return str(refused)
            else:
                return ""
        return ""

    def _open(self) -> socket.socket:
        if len(self._sockets) >= SOCKETS_MAX:
            raise DriverError("join solicited-node groups", f"more than {SOCKETS_MAX} sockets full")
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._sockets.append(socket.socket(socket.AF_INET6, kind))
        return self._sockets[-1]
