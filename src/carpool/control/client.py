"""The asking side of the control socket: connect, ask, read answers.

Everything that can go wrong is a ControlError with a sentence and the exit code of DESIGN 8:
no daemon (5), no permission (77), refused (what the daemon said).
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from carpool.control.framing import FramingError, LineReader, encode
from carpool.control.messages import (
    ANSWER_BYTES_MAX,
    ORDERS,
    REQUEST_BYTES_MAX,
    Answer,
    ControlError,
    ExitCode,
    Json,
    parse_answer,
    request,
)

CONNECT_S_MAX: Final = 3.0  # a unix socket connects at once or its daemon is stuck
READ_S_MAX: Final = 3.0  # what only looks is answered from memory, within milliseconds
ORDER_S_MAX: Final = 20.0  # an order may take 15 s in the daemon; this is that and some air
_READ_BYTES: Final = 256 * 1024


class Client:
    """One connection to a daemon's control socket."""

    def __init__(self, path: str) -> None:
        """Connect to the daemon that listens at `path`.

        Raises ControlError: NO_DAEMON, PERMISSION, USAGE (the path cannot be a socket's).
        """
        self._path = path
        self._reader = LineReader(ANSWER_BYTES_MAX)
        self._lines: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_S_MAX)
        try:
            self._socket.connect(path)
        except PermissionError as refused:
            self._socket.close()
            raise ControlError(f"{path}: no permission to speak to the daemon", 77) from refused
        except TimeoutError as late:  # its queue is full and nobody takes from it
            self._socket.close()
            raise _silent(path, CONNECT_S_MAX) from late
        except OSError as refused:
            self._socket.close()
            raise _unreachable(path, refused) from refused

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def ask(self, verb: str, args: Json | None = None) -> Answer:
        """Send one request and return its answer.

        Raises ControlError: the daemon refused, went away, or did not answer in time.
        """
        self._send(verb, args)
        return parse_answer(self._line(ORDER_S_MAX if verb in ORDERS else READ_S_MAX))

    def watch(self, of: str, silence_s_max: float | None = None) -> Iterator[Answer]:
        """Give one answer now and one for each change, until the daemon goes away.

        of: "status" or "history". silence_s_max: how long no news is still good news.
        Raises ControlError as `ask` does.
        """
        self._send("watch", {"of": of})
        yield parse_answer(self._line(READ_S_MAX))
        while True:
            yield parse_answer(self._line(silence_s_max))

    def _send(self, verb: str, args: Json | None) -> None:
        """Write a request."""
        line = encode(request(verb, args), REQUEST_BYTES_MAX)
        self._socket.settimeout(READ_S_MAX)
        with suppress(OSError):  # what waits to be read, or its absence, says why it hung up
            self._socket.sendall(line)

    def _line(self, timeout_s: float | None) -> bytes:
        """Return the next line the daemon sends."""
        self._socket.settimeout(timeout_s)
        while not self._lines:
            try:
                data = self._socket.recv(_READ_BYTES)
                self._lines = self._reader.feed(data)
            except TimeoutError as late:
                raise _silent(self._path, timeout_s or 0.0) from late
            except FramingError as wrong:
                raise ControlError(f"the daemon's answer: {wrong}") from wrong
            except OSError:  # reset: it went away with our request unread
                data = b""
            if not data:
                raise ControlError("the daemon hung up", ExitCode.NO_DAEMON)
        return self._lines.pop(0)


def ask(path: str, verb: str, args: Json | None = None) -> Answer:
    """Ask the daemon at `path` one thing over a connection of its own."""
    with Client(path) as client:
        return client.ask(verb, args)


def _silent(path: str, waited_s: float) -> ControlError:
    """Return the sentence for a daemon that takes connections and says nothing."""
    text = f"{path}: the daemon does not answer: nothing within {waited_s:.0f} s (is it frozen?)"
    return ControlError(text, ExitCode.NO_DAEMON)


def _unreachable(path: str, failed: OSError) -> ControlError:
    """Return the sentence for a connect that failed."""
    if failed.errno is None:  # "AF_UNIX path too long": Python's own, it never reached the kernel
        return ControlError(f"{path}: not a socket's path: {failed}", ExitCode.USAGE)
    return ControlError(f"{path}: no daemon answers: {failed.strerror}", ExitCode.NO_DAEMON)
