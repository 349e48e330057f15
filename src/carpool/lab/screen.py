"""What a person reads while the lab plays: lines with a time in front, one table at the end.

Colour only on a terminal and without NO_COLOR (https://no-color.org).
"""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from carpool.base.time import NS_PER_S
from carpool.lab.waiting import realtime_ns


class Colour(StrEnum):
    """The few colours there are."""

    BOLD = "1"
    GREEN = "32"
    RED = "31"
    YELLOW = "33"
    GREY = "90"


_RIGHT: Final = "0123456789+-<"  # cells that begin like this are numbers


def colourful() -> bool:
    """Tell whether whoever reads us sees colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(text: str, colour: Colour) -> str:
    """Return `text` in `colour` where that can be seen."""
    return f"\033[{colour}m{text}\033[0m" if colourful() else text


class Screen:
    """Lines with the seconds since the beginning."""

    def __init__(self) -> None:
        self.began = realtime_ns()

    def plain(self, text: str = "") -> None:
        """Print a line as it is."""
        print(text, flush=True)

    def line(self, text: str, *, at: int = 0, colour: Colour | None = None) -> None:
        """Print a line with the time of `at` (now if 0) in front."""
        seconds = ((at or realtime_ns()) - self.began) / NS_PER_S
        stamp = paint(f"{seconds:6.2f} s", Colour.GREY)
        print(f"{stamp}  {paint(text, colour) if colour else text}", flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: numbers to the right, words to the left."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = ["  ".join(name.ljust(width) for name, width in zip(head, widths, strict=True))]
    lines += [
        "  ".join(_cell(cell, width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(text: str, width: int) -> str:
    return text.rjust(width) if text[:1] in _RIGHT and text else text.ljust(width)
