"""How things look on a terminal: tables, colours, times; what every verb prints with.

Colour only on a terminal that wants it (https://no-color.org). Nothing from the socket reaches the
terminal with control characters in it.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, TextIO

from carpool.base.time import NS_PER_MS, NS_PER_S

GAP: Final = "   "

_STYLES: Final = {
    "bold": "1",
    "dim": "2",
    "good": "32",
    "warn": "33",
    "bad": "1;31",
}


class Cell(NamedTuple):
    """A text and how it shall look."""

    text: str
    style: str = ""


class Paint:
    """Colours a text, or leaves it alone."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, text: str, style: str) -> str:
        """Return `text` in `style`: bold, dim, good, warn, bad, or "" for plain."""
        if not (self.enabled and style and text):
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def paint_for(stream: TextIO) -> Paint:
    """Return the paint for `stream`: colours on a terminal only, and never with NO_COLOR."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Paint(enabled=wanted and stream.isatty())


def table(rows: Sequence[Sequence[Cell]], paint: Paint) -> list[str]:
    """Return the lines of a table, columns padded to their widest cell; the last is not padded."""
    columns = max((len(row) for row in rows), default=0)
    widths = [
        max((len(row[column].text) for row in rows if column < len(row)), default=0)
        for column in range(columns)
    ]
    return [_row(row, widths, paint) for row in rows]


def _row(row: Sequence[Cell], widths: Sequence[int], paint: Paint) -> str:
    """Return one line of a table, without blanks at its end."""
    parts = []
    for cell, width in zip(row, widths, strict=False):
        parts.append(paint(cell.text, cell.style) + " " * (width - len(cell.text)))
    return GAP.join(parts).rstrip()


def plain(text: object) -> str:
    """Return `text` with anything a terminal would obey replaced."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def clock_time(realtime_ns: int) -> str:
    """Return a wall-clock instant in local time: "2026-03-01 10:02:33.123"."""
    seconds, rest_ns = divmod(realtime_ns, NS_PER_S)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{stamp}.{rest_ns // NS_PER_MS:03d}"


def plain_lines(text: object) -> str:
    """Return `text` with its lines kept and each of them plain."""
    return "\n".join(plain(line) for line in str(text).strip("\n").split("\n"))


def complain(text: str) -> None:
    """Write an error: one line with our name before it, a report of several lines as it is."""
    shown = plain_lines(text)
    sys.stderr.write(f"{shown}\n" if "\n" in shown else f"carpool: {shown}\n")
