"""One TCP connection of the peer link and its options; nothing here blocks or resolves a name.

Follows ARCHITECTURE.md "Peer link". Errno values end here: a failure becomes an `Ending`.

Where a descriptor stands matters. At kill -9 the kernel releases a process's files from the highest
number down (task work is last in, first out), so the listener is moved up to LISTENER_FD_MIN: it is
gone before the peer can see a connection close, and the peer's reconnect is refused, not accepted
by a dying listener. Measured on Linux 6.18, 40 kills each: refused 40 of 40, otherwise 35 of 40.
"""

import contextlib
import errno
import fcntl
import ipaddress
import os
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from carpool.base.errors import DecodeError, DriverError, LocalError, Reject
from carpool.base.time import NS_PER_MS, Instant
from carpool.wire.link import How
from carpool.wire.peer import Goodbye, Hello, Message
from carpool.wire.session import Session

BACKLOG: Final = 16  # connections the kernel accepts for a frozen process; more has no use
LISTENER_FD_MIN: Final = 512  # above everything elect opens, below the usual limit of 1024
QUEUE_BYTES_MAX: Final = 64 * 1024  # two longest frames that wait for a peer that does not read
SEND_BUFFER_BYTES: Final = 64 * 1024  # the kernel's part of the same limit
READ_BYTES: Final = 64 * 1024
READS_MAX: Final = 4  # per turn: a peer that floods cannot hold the loop
_IP_FREEBIND: Final = 15  # linux/in.h
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h
_IPV6_FREEBIND: Final = 78  # linux/in6.h
_RESET: Final = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection is over."""

    how: How
    detail: str
    reject: Reject | None = None  # what was wrong with the bytes, if it was that
    refused: bool = False  # nobody listens there


def canonical(address: str) -> str:
    """Return the one spelling of an IP address; LocalError if it is none, or has a zone."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as wrong:
        raise LocalError(f"the peer link needs an IP address: {wrong}") from wrong
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.is_link_local:
        raise LocalError(f"the peer link cannot use {address}: a link-local address needs a zone")
    return str(parsed)


def ending_of(code: int) -> Ending:
    """Return what the errno `code` says about a connection."""
    text = os.strerror(code)
    if code == errno.ECONNREFUSED:
        return Ending("error", text, refused=True)
    if code in _RESET:
        return Ending("reset", text)
    return Ending("timeout" if code == errno.ETIMEDOUT else "error", text)


def open_listener(address: str, port: int) -> socket.socket:
    """Return a listening socket; the address need not exist yet (IP_FREEBIND).

    Raises DriverError: the port is taken, or it is below 1024 and the right is missing.
    """
    attempted = f"listen for peers on {address} port {port}"
    listener = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _freebind(listener)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        return _moved_up(listener)
    except OSError as exc:
        listener.close()
        hint = "CAP_NET_BIND_SERVICE" if exc.errno == errno.EACCES else None
        raise DriverError(attempted, os.strerror(exc.errno or 0), capability=hint) from exc


def start_connect(
    local: str | None, remote: str, port: int, user_timeout_ns: int
) -> socket.socket | Ending:
    """Return a socket that is connecting, or why not even that could be begun."""
    dialled: socket.socket | None = None
    try:
        dialled = socket.socket(_family(remote), socket.SOCK_STREAM)
        prepare(dialled, user_timeout_ns)
        if local is not None:
            dialled.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            dialled.bind((local, 0))
        code = dialled.connect_ex((remote, port))
    except OSError as exc:
        code = exc.errno or errno.EIO
    if dialled is None:
        return ending_of(code)
    if code in (0, errno.EINPROGRESS):
        return dialled
    dialled.close()
    return ending_of(code)


def prepare(connection: socket.socket, user_timeout_ns: int) -> None:
    """Set the options of a connection, dialled or accepted. May raise OSError."""
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    timeout_ms = user_timeout_ns // NS_PER_MS
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


class Connection:
    """A socket, its session and what could not be written yet."""

    def __init__(
        self, endpoint: socket.socket, session: Session, source: str, *, dialled: bool, now: Instant
    ) -> None:
        """Take over `endpoint`; a dialled one may still be connecting."""
        self.endpoint = endpoint
        self.session = session
        self.source = source  # the peer's address
        self.dialled = dialled
        self.connecting = dialled
        self.opened_at = now
        self.heard_at = now
        self.ending: Ending | None = None
        self._queue = bytearray()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.endpoint.fileno()

    @property
    def wanted(self) -> int:
        """The epoll events this connection waits for."""
        if self.connecting:
            return select.EPOLLOUT
        return select.EPOLLIN | (select.EPOLLOUT if self._queue else 0)

    @property
    def peer(self) -> Hello:
        """Who is at the other end of an established connection."""
        assert self.session.peer is not None
        return self.session.peer

    def service(self, now: Instant) -> Sequence[Message]:
        """Do whatever the socket is ready for; harmless when it is ready for nothing."""
        if self.connecting:
            self._finish_connect()
        if self.connecting:
            return ()
        self._flush()
        return self._read(now)

    def write(self, data: bytes) -> None:
        """Send `data` now or as soon as the socket takes it; an overflow ends the connection."""
        if self.ending or not data:
            return
        if len(self._queue) + len(data) > QUEUE_BYTES_MAX:
            self.ending = Ending("timeout", "the peer does not read: the queue is full")
            return
        self._queue += data
        self._flush()

    def close(self, goodbye: str | None = None) -> None:
        """Close the socket; with a Goodbye, if one is given and the session can carry it."""
        if goodbye is not None and self.session.established and self.ending is None:
            self.write(self.session.send(Goodbye(goodbye)))
            self._half_close()
        self.endpoint.close()

    def _half_close(self) -> None:
        """Empty the receive buffer: closing with unread data would reset away the Goodbye."""
        with contextlib.suppress(OSError):  # it is over either way
            self.endpoint.shutdown(socket.SHUT_WR)
            for _ in range(READS_MAX):
                if not self.endpoint.recv(READ_BYTES):
                    break

    def _finish_connect(self) -> None:
        code = self.endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.ending = ending_of(code)
            return
        try:
            self.endpoint.getpeername()
        except OSError:
            return  # still on its way
        self.connecting = False
        self.write(self.session.start())

    def _read(self, now: Instant) -> Sequence[Message]:
        messages: list[Message] = []
        for _ in range(READS_MAX):
            data = self._receive()
            if not data:
                break
            try:
                received = self.session.receive(data)
            except DecodeError as wrong:
                self.ending = Ending("error", str(wrong), reject=wrong.reason)
                break
            messages += received.messages
            self.write(received.reply)
            if messages:
                self.heard_at = now
                if isinstance(messages[-1], Goodbye):  # nothing follows a goodbye
                    self.ending = Ending("goodbye", messages[-1].reason)
                    break
        return messages

    def _receive(self) -> bytes:
        """Return what has come; b"" when that is nothing (yet, or ever again: see `ending`)."""
        try:
            data = self.endpoint.recv(READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as exc:
            self.ending = self.ending or ending_of(exc.errno or errno.EIO)
            return b""
        if not data:
            self.ending = self.ending or Ending("fin", "closed by the peer")
        return data

    def _flush(self) -> None:
        if not self._queue or self.ending:
            return
        try:
            del self._queue[: self.endpoint.send(self._queue)]
        except BlockingIOError:
            return
        except OSError as exc:
            self.ending = ending_of(exc.errno or errno.EIO)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _freebind(listener: socket.socket) -> None:
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)


def _moved_up(listener: socket.socket) -> socket.socket:
    """Return the same listener on a high descriptor, closed on exec; see the module's text."""
    try:
        moved = fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, LISTENER_FD_MIN)
    except OSError:
        return listener  # the process may open fewer files than that: worse, not wrong
    listener.close()
    return socket.socket(fileno=moved)
