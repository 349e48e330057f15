"""Network interfaces: look them up, switch them on and off, and hear what the kernel changes.

`KernelEvents` tells of links, addresses and traffic control. Events can be lost (the kernel says
so: `Overflowed`) and carrier loss can come a second late (the kernel limits the rate), so events
are a hint to look again; carrier is polled through `carrier`. Follows rtnetlink(7).
"""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from carpool.base.errors import DriverError
from carpool.drivers.netlink import (
    IFF_UP,
    IFLA_EXT_MASK,
    IFLA_IFNAME,
    RTEXT_FILTER_SKIP_STATS,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_LINK,
    RTNLGRP_TC,
    TC_HEADER,
    InterfaceAddress,
    Link,
    decode_address,
    decode_link,
    link_header,
)
from carpool.drivers.netlink_socket import (
    NETLINK_ROUTE,
    NLM_F_DUMP,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
    NetlinkError,
    NetlinkSocket,
    attribute,
    iterate_messages,
)

EVENT_BUFFER_BYTES: Final = 4 << 20  # some thousand address events while the loop is elsewhere
EVENT_DATAGRAMS_MAX: Final = 256  # a read, so that a storm of events cannot hold the loop
EVENT_BYTES: Final = 65_536
NAME_BYTES_MAX: Final = 15  # IFNAMSIZ less its zero

_NETLINK_ADD_MEMBERSHIP: Final = 1
_NO_STATISTICS: Final = attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.to_bytes(4, sys.byteorder))
_TC_MESSAGES: Final = {RTM_NEWQDISC, RTM_DELQDISC, RTM_NEWTFILTER, RTM_DELTFILTER}

__all__ = [
    "AddressAdded",
    "AddressGone",
    "KernelEvent",
    "KernelEvents",
    "Link",
    "LinkChanged",
    "LinkGone",
    "Overflowed",
    "TcChanged",
    "link_by_index",
    "link_by_name",
    "links",
    "remove_link",
    "set_link_up",
]


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """An interface is new or changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkGone:
    """An interface was removed (or moved to another namespace)."""

    ifindex: int
    name: str


@dataclass(frozen=True, slots=True)
class AddressAdded:
    """An address was added or changed, by anybody."""

    address: InterfaceAddress


@dataclass(frozen=True, slots=True)
class AddressGone:
    """An address was removed, by anybody."""

    address: InterfaceAddress


@dataclass(frozen=True, slots=True)
class TcChanged:
    """A queue discipline or filter of an interface came or went."""

    ifindex: int
    removed: bool


@dataclass(frozen=True, slots=True)
class Overflowed:
    """Events were lost: read everything again."""


KernelEvent: TypeAlias = (
    LinkChanged | LinkGone | AddressAdded | AddressGone | TcChanged | Overflowed
)


def links(netlink: NetlinkSocket) -> list[Link]:
    """Return every interface of the socket's network namespace. Raises DriverError."""
    body = link_header() + _NO_STATISTICS
    answers = netlink.request(RTM_GETLINK, NLM_F_DUMP, body, attempted="list the interfaces")
    return [decode_link(body) for kind, body in answers if kind == RTM_NEWLINK]


def _one_link(netlink: NetlinkSocket, body: bytes, attempted: str) -> Link | None:
    """Ask for one interface."""
    try:
        answers = netlink.request(RTM_GETLINK, 0, body + _NO_STATISTICS, attempted=attempted)
    except NetlinkError as exc:
        if exc.code == errno.ENODEV:
            return None
        raise
    return next((decode_link(found) for kind, found in answers if kind == RTM_NEWLINK), None)


def link_by_name(netlink: NetlinkSocket, name: str) -> Link | None:
    """Return the interface called `name`, None when there is none. Raises DriverError."""
    encoded = os.fsencode(name)
    if not 1 <= len(encoded) <= NAME_BYTES_MAX:
        return None  # no interface can have this name
    body = link_header() + attribute(IFLA_IFNAME, encoded + b"\0")
    return _one_link(netlink, body, f"look up interface {name}")


def link_by_index(netlink: NetlinkSocket, ifindex: int) -> Link | None:
    """Return the interface with this index, None when there is none. Raises DriverError."""
    if ifindex <= 0:
        return None
    return _one_link(netlink, link_header(ifindex), f"look up interface {ifindex}")


def set_link_up(netlink: NetlinkSocket, ifindex: int, *, up: bool) -> None:
    """Switch an interface on or off. Raises DriverError."""
    body = link_header(ifindex, flags=IFF_UP if up else 0, change=IFF_UP)
    attempted = f"switch interface {ifindex} {'on' if up else 'off'}"
    netlink.request(RTM_NEWLINK, 0, body, attempted=attempted)


def remove_link(netlink: NetlinkSocket, ifindex: int) -> None:
    """Remove a virtual interface; one that is gone already is no error. Raises DriverError."""
    try:
        attempted = f"remove interface {ifindex}"
        netlink.request(RTM_DELLINK, 0, link_header(ifindex), attempted=attempted)
    except NetlinkError as exc:
        if exc.code != errno.ENODEV:
            raise


class KernelEvents:
    """A non-blocking socket that hears what anybody changes in this network namespace."""

    def __init__(self) -> None:
        """Subscribe. Raises DriverError."""
        try:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
            self._socket.bind((0, 0))
            self._enlarge()
            for group in (RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR):
                self._socket.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError as exc:
            raise DriverError("hear the kernel's events", os.strerror(exc.errno or 0)) from exc
        self._buffer = bytearray(EVENT_BYTES)

    def _enlarge(self) -> None:
        """Ask for a large receive buffer; without CAP_NET_ADMIN take what is allowed."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, EVENT_BUFFER_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, EVENT_BUFFER_BYTES)

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self._socket.close()

    def read(self) -> list[KernelEvent]:
        """Return what happened since the last call, in order; at most EVENT_DATAGRAMS_MAX reads.

        Lost events show as one `Overflowed`. Raises DriverError when the socket itself fails.
        """
        events: list[KernelEvent] = []
        for _ in range(EVENT_DATAGRAMS_MAX):
            try:
                size, sender = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    reason = os.strerror(exc.errno or 0)
                    raise DriverError("hear the kernel's events", reason) from exc
                events.append(Overflowed())
                continue
            if sender[0] == 0:  # only the kernel is believed
                events.extend(_decode_events(memoryview(self._buffer)[:size]))
        return events


def _decode_events(data: memoryview) -> Iterator[KernelEvent]:
    """Yield the events in one datagram; message types we did not ask for are passed over."""
    for kind, _flags, _sequence, body in iterate_messages(data):
        if kind == RTM_NEWLINK:
            yield LinkChanged(decode_link(body))
        elif kind == RTM_DELLINK:
            gone = decode_link(body)
            yield LinkGone(gone.index, gone.name)
        elif kind in {RTM_NEWADDR, RTM_DELADDR}:
            address = decode_address(body)
            if address is not None:
                yield AddressAdded(address) if kind == RTM_NEWADDR else AddressGone(address)
        elif kind in _TC_MESSAGES:
            ifindex = TC_HEADER.unpack_from(body)[1]
            yield TcChanged(ifindex, removed=kind in {RTM_DELQDISC, RTM_DELTFILTER})
