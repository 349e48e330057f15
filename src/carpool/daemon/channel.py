"""Messages between our own processes: JSON over a SOCK_SEQPACKET pair, never blocking, bounded.

A message that does not fit into the kernel's buffer waits in a queue of QUEUE_MAX, in order; what
comes after is dropped and counted. Bulk (a whole setup) goes as a file descriptor of anonymous
memory, so that no message is larger than the kernel allows.
"""

import json
import os
import pickle
import socket
from collections import deque
from typing import Any, Final

from carpool.engine.setup import NodeSetup

QUEUE_MAX: Final = 256  # messages; a process that is that far behind is being restarted
MESSAGE_BYTES_MAX: Final = 4 << 20
_SO_SNDBUFFORCE: Final = 32


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a channel, with large buffers where we may have them."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        try:
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, MESSAGE_BYTES_MAX)
        except PermissionError:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES_MAX)
    return ends


class Channel:
    """One end of a channel."""

    def __init__(self, end: socket.socket) -> None:
        """Take over `end`, which must not block."""
        self.socket = end
        self.closed = False
        self.dropped = 0
        self._queue: deque[tuple[bytes, int | None]] = deque()  # with a descriptor to send along

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self.closed = True
        self.socket.close()
        for _, descriptor in self._queue:
            _close(descriptor)
        self._queue.clear()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message now or, when the other side is behind, later."""
        self._enqueue(json.dumps(message, separators=(",", ":")).encode(), None)

    def send_setup(self, setup: NodeSetup, extra: dict[str, Any]) -> None:
        """Send a whole setup as anonymous memory, with a small message."""
        descriptor = os.memfd_create("carpool-setup", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            pickle.dump(setup, file)
        self._enqueue(json.dumps({"type": "setup", **extra}).encode(), descriptor)

    def _enqueue(self, body: bytes, descriptor: int | None) -> None:
        if self.closed or len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            _close(descriptor)
            return
        self._queue.append((body, descriptor))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        while self._queue and not self.closed:
            body, descriptor = self._queue[0]
            try:
                if descriptor is None:
                    self.socket.send(body)
                else:
                    socket.send_fds(self.socket, [body], [descriptor])
            except BlockingIOError:
                return
            except OSError:
                self.closed = True
                return
            self._queue.popleft()
            _close(descriptor)

    def receive(self) -> list[tuple[dict[str, Any], NodeSetup | None]]:
        """Return the messages that wait; sets `closed` at the other side's end."""
        found: list[tuple[dict[str, Any], NodeSetup | None]] = []
        while not self.closed and len(found) < QUEUE_MAX:
            try:
                body, descriptors, _, _ = socket.recv_fds(self.socket, MESSAGE_BYTES_MAX, 1)
            except BlockingIOError:
                break
            except OSError:
                self.closed = True
                break
            if not body:
                self.closed = True
                break
            found.append((json.loads(body), _read_setup(descriptors)))
        return found


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _read_setup(descriptors: list[int]) -> NodeSetup | None:
    """Return the setup behind the first descriptor."""
    setup: NodeSetup | None = None
    for descriptor in descriptors:
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            # From our own parent over an inherited socket pair, from nobody else.
            setup = pickle.load(file)  # noqa: S301  not bytes of an outsider
    return setup
