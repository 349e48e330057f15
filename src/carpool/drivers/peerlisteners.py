"""The listening sockets of the peer link, in the link's own epoll; nothing here blocks.

Follows ARCHITECTURE.md "Peer link". A connection is taken from the kernel here and judged in
`peerlink`. When the process has no descriptor left, accepting pauses for MUTE_NS: the listener
would otherwise be ready without end.
"""

import errno
import select
import socket
from collections.abc import Sequence
from typing import Final

from carpool.base.time import NS_PER_MS, Instant, after
from carpool.drivers.peersocket import BACKLOG, open_listener

MUTE_NS: Final = 100 * NS_PER_MS
_NO_MORE_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listeners:
    """Every address this node listens on for its peers."""

    def __init__(self, epoll: select.epoll) -> None:
        """Listen nowhere yet."""
        self.muted_until: Instant | None = None
        self._epoll = epoll
        self._by_endpoint: dict[tuple[str, int], socket.socket] = {}
        self._by_fileno: dict[int, socket.socket] = {}

    def __contains__(self, fileno: int) -> bool:
        return fileno in self._by_fileno

    def replace(self, wanted: Sequence[tuple[str, int]]) -> None:
        """Listen on exactly these addresses and ports; those that stay are not touched.

        Raises DriverError before anything is changed.
        """
        opened: dict[tuple[str, int], socket.socket] = {}
        try:
            for endpoint in dict.fromkeys(wanted):
                if endpoint not in self._by_endpoint:
                    opened[endpoint] = open_listener(*endpoint)
        except Exception:
            for listener in opened.values():
                listener.close()
            raise
        for endpoint in self._by_endpoint.keys() - set(wanted):
            gone = self._by_endpoint.pop(endpoint)
            del self._by_fileno[gone.fileno()]
            gone.close()
        for endpoint, listener in opened.items():
            self._by_endpoint[endpoint] = listener
            self._by_fileno[listener.fileno()] = listener
            self._epoll.register(listener.fileno(), self._wanted)

    def accept(self, fileno: int, now: Instant) -> list[tuple[socket.socket, str]]:
        """Return the connections that wait, each with its source address; at most one backlog."""
        accepted: list[tuple[socket.socket, str]] = []
        for _ in range(BACKLOG):
            try:
                endpoint, address = self._by_fileno[fileno].accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in _NO_MORE_FILES:
                    self.muted_until = after(now, MUTE_NS)
                    self._watch()
                    break
                continue  # the connection ended before it was accepted
            accepted.append((endpoint, str(address[0])))
        return accepted

    def unmute(self, now: Instant) -> None:
        """Accept again, if the pause is over."""
        if self.muted_until is not None and now >= self.muted_until:
            self.muted_until = None
            self._watch()

    def close(self) -> None:
        """Listen nowhere any more."""
        for listener in self._by_fileno.values():
            listener.close()
        self._by_endpoint.clear()
        self._by_fileno.clear()
        self.muted_until = None

    @property
    def _wanted(self) -> int:
        return select.EPOLLIN if self.muted_until is None else 0

    def _watch(self) -> None:
        for fileno in self._by_fileno:
            self._epoll.modify(fileno, self._wanted)
