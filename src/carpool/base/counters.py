"""Named counters with a limit on how many names there can be.

A name is fixed by the program (an enum, a constant), never by an outsider's bytes, so a process
cannot be grown by what is sent to it.
"""

from collections.abc import Mapping
from typing import Final

COUNTERS_MAX: Final = 512  # far more than the program has names for; a guard against a mistake


class Counters:
    """Monotone counters by name."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Add `amount` to the counter `name`, made on first use."""
        if name not in self._values and len(self._values) >= COUNTERS_MAX:
            name = "overflow"
        self._values[name] = self._values.get(name, 0) + amount

    def get(self, name: str) -> int:
        """Return the counter's value, 0 if it was never used."""
        return self._values.get(name, 0)

    def snapshot(self) -> Mapping[str, int]:
        """Return a copy, sorted by name."""
        return dict(sorted(self._values.items()))
