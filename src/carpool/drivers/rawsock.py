"""Raw sockets: frames from the wire with the time they arrived, and frames and packets to it.

`PacketSocket` receives and sends whole Ethernet frames of one interface (packet(7)); it sees them
before netfilter does. `IpSocket` sends whole IP packets to unicast peers, for which the kernel
finds the next hop (raw(7), ipv6(7)), and is a member of CARP's groups, so that switches which snoop
on IGMP and MLD forward them. The interface may go and come back: that is told, never raised.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from carpool.base.errors import DriverError
from carpool.base.names import InterfaceName
from carpool.base.time import NS_PER_S, Instant
from carpool.drivers.clock import boottime_ns, realtime_offset_ns
from carpool.drivers.packet_filter import ETH_P_ALL, SNAP_BYTES, Match, build_filter

RECEIVE_BUFFER_BYTES: Final = 4 << 20  # some five thousand advertisements
SEND_BUFFER_BYTES: Final = 4 << 20  # a thousand announcements before the driver took the first
DRAIN_MAX: Final = 512  # frames a drain unless told otherwise: 5 ms of work
PROTOCOL_CARP: Final = 112

_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_DROP_MEMBERSHIP: Final = 2
_PACKET_STATISTICS: Final = 6
_PACKET_IGNORE_OUTGOING: Final = 23
_PACKET_MR_MULTICAST: Final = 0
_PACKET_MR_UNICAST: Final = 3
_SO_ATTACH_FILTER: Final = 26
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS_NEW: Final = 64  # 64-bit seconds on every machine
_IPV6_HDRINCL: Final = 36
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(16)
_MEMBERSHIP: Final = struct.Struct("=iHH8s")
_TIMESTAMP: Final = struct.Struct("=qq")
_CARP_GROUP_V4: Final = IPv4Address("224.0.0.18")
_CARP_GROUP_V6: Final = IPv6Address("ff02::12")
_REFUSE_ALL: Final = struct.pack("=HBBI", 0x06, 0, 0, 0)  # return 0
# The interface is down, gone or not there any more.
_GONE: Final = frozenset({errno.ENETDOWN, errno.ENODEV, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A frame and when the kernel got it."""

    interface: InterfaceName
    frame: bytes
    received_at: Instant


def errno_name(code: int | None) -> str:
    """Return the errno's name, such as "ENOBUFS"."""
    return errno.errorcode.get(code or 0, str(code))


def attach_filter(target: socket.socket, program: bytes) -> None:
    """Put a classic BPF program (array of struct sock_filter) on a socket; OSError passes."""
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: count, padding, pointer.
    description = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)


def _enlarge(target: socket.socket, forced: int, plain: int, size: int) -> None:
    """Set a buffer size beyond the system's limit, or up to it without CAP_NET_ADMIN."""
    try:
        target.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:
        target.setsockopt(socket.SOL_SOCKET, plain, size)


def _open_error(attempted: str, exc: OSError) -> DriverError:
    """Return the error for a socket that could not be had."""
    capability = "CAP_NET_RAW" if isinstance(exc, PermissionError) else None
    return DriverError(attempted, os.strerror(exc.errno or 0), capability=capability)


class PacketSocket:
    """Whole frames of one interface, filtered in the kernel. Non-blocking.

    trouble: why the last receive failed ("ENETDOWN"), "" while all is well.
    more: the last drain ended at its limit; frames may be waiting.
    behind: and some of these may have arrived before the instant that the drain was to reach.
    """

    def __init__(
        self,
        interface: InterfaceName,
        ifindex: int,
        matches: Sequence[Match],
        *,
        ethertype: int = ETH_P_ALL,
        receive_buffer: int = RECEIVE_BUFFER_BYTES,
    ) -> None:
        """Open the socket on the interface. Raises DriverError.

        ethertype: ETH_P_ALL hears before traffic control and thus before our own gate; a single
        type is cheaper for the machine and hears only what traffic control lets through.
        """
        self.interface = interface
        self.ifindex = ifindex
        self.trouble = ""
        self.more = False
        self.behind = False
        self._ethertype = ethertype
        self._drops = 0
        self._emptied_at = boottime_ns()
        self._members: list[tuple[int, bytes]] = []
        try:
            # Protocol 0 hears nothing until the filter stands and bind sets the real one.
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_PACKET, kind, 0)
            self._configure(matches, receive_buffer)
        except OSError as exc:
            raise _open_error(f"listen on {interface}", exc) from exc

    def _configure(self, matches: Sequence[Match], receive_buffer: int) -> None:
        """Filter, buffers, time stamps, then bind."""
        own = self._socket
        attach_filter(own, build_filter(matches))
        _enlarge(own, _SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
        _enlarge(own, _SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        own.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS_NEW, 1)
        with suppress(OSError):  # a saving only: the filter refuses outgoing frames too
            own.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        own.bind((self.interface, self._ethertype))

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; its memberships end with it."""
        self._socket.close()

    def rebind(self, ifindex: int) -> bool:
        """Listen again on an interface that came back; return whether that worked."""
        try:
            self._socket.bind((self.interface, self._ethertype))
        except OSError as exc:
            self.trouble = errno_name(exc.errno)
            return False
        self.ifindex = ifindex
        self.trouble = ""
        members, self._members = self._members, []
        for kind, mac in members:
            self._member(kind, mac)
        return True

    def change_filter(self, matches: Sequence[Match]) -> None:
        """Replace the filter at once; what waits already was let in by the old one.

        Raises DriverError.
        """
        try:
            attach_filter(self._socket, build_filter(matches))
        except OSError as exc:
            raise _open_error(f"filter frames on {self.interface}", exc) from exc

    def join(self, macs: Collection[bytes]) -> list[str]:
        """Have the interface accept these MAC addresses too; return the errno name of failures."""
        failures: list[str] = []
        for mac in macs:
            kind = _PACKET_MR_MULTICAST if mac[0] & 1 else _PACKET_MR_UNICAST
            if (kind, mac) not in self._members:
                failures += self._member(kind, mac)
        return failures

    def leave(self, macs: Collection[bytes]) -> None:
        """Have the interface no longer accept these MAC addresses for our sake."""
        for member in [member for member in self._members if member[1] in macs]:
            self._members.remove(member)
            kind, mac = member
            request = _MEMBERSHIP.pack(self.ifindex, kind, len(mac), mac)
            with suppress(OSError):  # the membership went with the interface
                self._socket.setsockopt(_SOL_PACKET, _PACKET_DROP_MEMBERSHIP, request)

    def _member(self, kind: int, mac: bytes) -> list[str]:
        """Add one membership and remember it for `rebind`."""
        self._members.append((kind, mac))
        request = _MEMBERSHIP.pack(self.ifindex, kind, len(mac), mac)
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        except OSError as exc:
            return [errno_name(exc.errno)]
        return []

    def drain(self, limit: int = DRAIN_MAX, until: Instant | None = None) -> list[ReceivedFrame]:
        """Return the frames that wait, oldest first, at most `limit`.

        until: stop after the first frame that arrived later, so that a flood cannot hold the loop;
        None = now. A failed interface shows in `trouble`.

        The kernel stamps by the wall clock, which the administrator may set at any moment; the
        stamp is therefore held between the last time the queue was empty and now. Frames of the
        first milliseconds after the machine's first such socket was opened are not stamped, and
        count as arrived when they are read.
        """
        entered = boottime_ns()
        end = entered if until is None else until
        offset = realtime_offset_ns()
        frames: list[ReceivedFrame] = []
        self.more = self.behind = True
        try:
            while len(frames) < limit:
                frames.append(self._receive(offset))
                if frames[-1].received_at > end:
                    self.behind = False
                    break
        except BlockingIOError:
            self._emptied_at = entered
            self.more = self.behind = False
        except OSError as exc:  # frames may wait behind the error
            self.trouble = errno_name(exc.errno)
        return frames

    def _receive(self, offset: int) -> ReceivedFrame:
        """Take one frame; OSError passes."""
        frame, ancillary, _, _ = self._socket.recvmsg(SNAP_BYTES, _ANCILLARY_BYTES)
        now = boottime_ns()
        stamp = now
        for _level, kind, data in ancillary:
            if kind == _SO_TIMESTAMPNS_NEW and len(data) == _TIMESTAMP.size:
                seconds, nanoseconds = _TIMESTAMP.unpack(data)
                stamp = Instant(seconds * NS_PER_S + nanoseconds - offset)
        self.trouble = ""
        received_at = max(self._emptied_at, min(stamp, now))
        return ReceivedFrame(self.interface, frame, received_at)

    def send(self, frame: bytes) -> str:
        """Send one whole frame; return "" or why not, such as "ENOBUFS" or "ENETDOWN"."""
        try:
            self._socket.send(frame)
        except OSError as exc:
            return errno_name(exc.errno)
        return ""

    def drops(self) -> int:
        """Return how many frames the kernel dropped, since the start, for want of buffer space."""
        with suppress(OSError):
            counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self._drops += struct.unpack("=II", counted)[1]  # reading sets it back to zero
        return self._drops


class IpSocket:
    """Sends IP packets with our own header through one interface; receives nothing.

    It holds protocol 112, so that the kernel does not answer a peer's unicast advertisement with
    "protocol unreachable", and is a member of CARP's group.
    """

    def __init__(self, interface: InterfaceName, ifindex: int, *, version: int) -> None:
        """Open the socket. version: 4 or 6. Raises DriverError.

        membership: "" or why the group could not be joined (IPv6 is switched off there).
        """
        self.version = version
        self.ifindex = ifindex
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(family, kind, PROTOCOL_CARP)
            attach_filter(self._socket, _REFUSE_ALL)
            if version == 4:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(interface) + b"\0"
            )
        except OSError as exc:
            raise _open_error(f"send IPv{version} on {interface}", exc) from exc
        self.membership = self._join()

    def _join(self) -> str:
        """Join CARP's group on the interface, whatever the routes say."""
        try:
            if self.version == 4:
                # struct ip_mreqn: group, local address, interface index.
                request = struct.pack("@4s4si", _CARP_GROUP_V4.packed, bytes(4), self.ifindex)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            else:
                request = struct.pack("@16si", _CARP_GROUP_V6.packed, self.ifindex)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        except OSError as exc:
            return errno_name(exc.errno)
        return ""

    def send_ip(self, packet: bytes, destination: IPv4Address | IPv6Address) -> str:
        """Send one whole IP packet; return "" or why not, such as "EHOSTUNREACH"."""
        try:
            if self.version == 4:
                self._socket.sendto(packet, (str(destination), 0))
            else:
                scope = self.ifindex if destination.is_link_local else 0
                self._socket.sendto(packet, (str(destination), 0, 0, scope))
        except OSError as exc:
            return errno_name(exc.errno)
        return ""

    def close(self) -> None:
        """Close the socket; the membership ends with it."""
        self._socket.close()


def interface_failed(reason: str) -> bool:
    """Whether an errno name of `send` or `trouble` means that the interface is down or gone."""
    return reason in {errno_name(code) for code in _GONE}
