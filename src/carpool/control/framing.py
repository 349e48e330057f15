r"""Bytes to lines and back: where a message of the control socket begins and ends.

A message is one line of JSON ended by "\n" (control/messages.py). The reader keeps at most one
unfinished line, and that is never longer than its limit, so whoever sends bytes without an end
cannot make us grow.
"""

import json
from collections.abc import Mapping

from carpool.base.errors import CarpoolError


class FramingError(CarpoolError):
    """The other side sent a line longer than it may, or we were about to."""


class LineReader:
    """Collects bytes and gives back whole lines."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their ends.

        Raises FramingError when a line is longer than the limit; the reader is useless afterwards.
        """
        *ended, rest = data.split(b"\n")
        lines = []
        for piece in ended:
            self._append(piece)
            lines.append(bytes(self._rest))
            self._rest.clear()
        self._append(rest)
        return lines

    def _append(self, piece: bytes) -> None:
        """Make the unfinished line longer by `piece`, within the limit."""
        if len(self._rest) + len(piece) > self._line_bytes_max:
            raise FramingError(f"a line is longer than {self._line_bytes_max} bytes")
        self._rest += piece

    @property
    def unfinished(self) -> int:
        """Bytes of a line whose end has not come yet."""
        return len(self._rest)


def encode(message: Mapping[str, object], line_bytes_max: int) -> bytes:
    """Return `message` as a line with its end.

    Raises FramingError when it would be longer than the reader on the other side accepts.
    """
    line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(line) > line_bytes_max:
        raise FramingError(f"a message of {len(line)} bytes, {line_bytes_max} are allowed")
    return line + b"\n"
