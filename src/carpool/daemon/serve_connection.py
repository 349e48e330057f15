"""One client of the control socket: its bytes, its rights, and what it waits for.

The connection knows nothing of verbs; daemon/serve.py takes requests from `requests` and gives
lines to `send`. Limits: one unfinished request of 64 KiB, 64 requests waiting, one answer unsent.
"""

import selectors
import socket
import struct
from collections import deque
from typing import Final, NamedTuple

from carpool.base.time import Instant
from carpool.control.framing import FramingError, LineReader, encode
from carpool.control.messages import ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, refusal

REQUESTS_WAITING_MAX: Final = 64  # nobody who waits for answers has more than one
_READ_BYTES: Final = 64 * 1024
_SO_PEERGROUPS: Final = 59  # socket(7); Python has no name for it
_GROUPS_BYTES: Final = 4 * 1024  # 1,024 groups; who has more is not looked at


class Credentials(NamedTuple):
    """Who is at the other end."""

    pid: int
    uid: int
    groups: frozenset[int]  # its gid and its further groups

    def __str__(self) -> str:
        return f"uid {self.uid} pid {self.pid}"


class Rights(NamedTuple):
    """Who may give orders: root, the daemon's own user, the members of one group."""

    owner_uid: int
    order_gid: int | None

    def allow(self, who: Credentials) -> bool:
        """Tell whether `who` may give orders."""
        return who.uid in {0, self.owner_uid} or self.order_gid in who.groups


def credentials_of(connection: socket.socket) -> Credentials:
    """Return who connected, as the kernel says (SO_PEERCRED, SO_PEERGROUPS; unix(7))."""
    size = struct.calcsize("3i")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, gid = struct.unpack("3i", raw)
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # more groups than fit: then its own gid alone counts
        raw = b""
    return Credentials(pid, uid, frozenset({gid, *struct.unpack(f"{len(raw) // 4}i", raw)}))


class Watching:
    """What a watcher was sent last."""

    def __init__(self, of: str, now: Instant) -> None:
        self.of = of
        self.sent_at = now
        self.changes = 0  # status: ServeState.changes then
        self.snapshots = 0
        self.number = 0  # history: the last entry's number


class Connection:
    """One accepted socket."""

    def __init__(self, accepted: socket.socket, *, privileged: bool, who: str, now: Instant):
        accepted.setblocking(False)
        self.socket = accepted
        self.privileged = privileged
        self.who = who
        self.active_at = now  # when it last asked, or took bytes of an answer
        self.requests: deque[bytes] = deque()
        self.order: int | None = None  # the id of the order it waits for
        self.watching: Watching | None = None
        self.closed = False
        self._ended = False  # the other side will not send any more
        self._last = False  # close as soon as everything is sent
        self._reader = LineReader(REQUEST_BYTES_MAX)
        self._unsent = bytearray()

    def events(self) -> int:
        """Return what to wait for: EVENT_READ, EVENT_WRITE, both or 0."""
        read = 0 if self._ended or self._last else selectors.EVENT_READ
        return read | (selectors.EVENT_WRITE if self._unsent else 0)

    @property
    def idle(self) -> bool:
        """Nothing is under way: the next request may be answered."""
        return not (self._unsent or self.order is not None or self.closed or self._last)

    def receive(self, now: Instant) -> None:
        """Read what is there; whole lines go to `requests`."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.closed = True
            return
        if not data:
            self._end()
            return
        try:
            lines = self._reader.feed(data)
        except FramingError as wrong:
            self.refuse_and_close(str(wrong), now)
            return
        self.requests.extend(lines)
        if lines:
            self.active_at = now
        if len(self.requests) > REQUESTS_WAITING_MAX:
            self.refuse_and_close("too many requests without waiting for an answer", now)

    def _end(self) -> None:
        """The other side shut its half: what it asked before is still answered."""
        self._ended = True
        self.closed |= self.watching is not None
        self.close_if_done()

    def close_if_done(self) -> None:
        """Close when the other side has ended and nothing is left to do for it."""
        if self._ended and self.idle and not self.requests:
            self.closed = True

    def send(self, message: dict[str, object], now: Instant) -> None:
        """Send an answer, at once as far as the socket takes it."""
        try:
            self._unsent += encode(message, ANSWER_BYTES_MAX)
        except (FramingError, ValueError) as wrong:  # ours: larger than we allow ourselves
            self._unsent += encode(refusal(f"no answer: {wrong}"), ANSWER_BYTES_MAX)
        self.flush(now)

    def flush(self, now: Instant) -> None:
        """Send what is left of the answer."""
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.closed = True
            return
        del self._unsent[:sent]
        self.active_at = now
        if not self._unsent:
            self.closed |= self._last
            self.close_if_done()

    def refuse_and_close(self, sentence: str, now: Instant) -> None:
        """Say why, then close."""
        self.requests.clear()
        self.watching = None
        self.order = None
        self._last = True
        self.send(refusal(sentence), now)
