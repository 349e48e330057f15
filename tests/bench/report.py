"""The bench's results: rows of the table that is promised, as JSON and as lines on the screen."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Row:
    """One row: what was measured, of us and of others, and the bound that it is held against."""

    name: str
    unit: str
    samples: list[float]
    bound: str  # in words, as promised; "" if the number is only printed
    limit: float | None = None  # the bound as a number in `unit`; None if there is none
    by: str = "median"  # which of min, median, max the limit is for
    peers: Mapping[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    needed: int = 1  # so many samples, or the row proves nothing

    @property
    def holds(self) -> bool | None:
        """Whether the bound holds; None if there is none."""
        if self.limit is None:
            return None
        if len(self.samples) < self.needed:
            return False
        return bool(summary(self.samples)[self.by] <= self.limit)

    def as_json(self) -> dict[str, Any]:
        """Return the row as the report's reader expects it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": summary(self.samples),
            "peers": {name: summary(samples) for name, samples in self.peers.items()},
            "bound": self.bound,
            "holds": self.holds,
        }

    def line(self) -> str:
        """Return the row as a line for the screen."""
        verdict = {True: "holds", False: "BROKEN", None: "printed"}[self.holds]
        if len(self.samples) < self.needed:
            verdict = "too few"
        return f"{verdict:8} {self.name}: {_words(self.samples, self.unit)}{self._others()}"

    def _others(self) -> str:
        others = "".join(
            f"; {name} {_words(samples, self.unit)}" for name, samples in self.peers.items()
        )
        return f"{others} ({self.bound})" if self.bound else others


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Return min, median, max and the number of samples."""
    if not samples:
        return {"n": 0}
    return {
        "min": round(min(samples), 3),
        "median": round(statistics.median(samples), 3),
        "max": round(max(samples), 3),
        "n": len(samples),
    }


def _words(samples: Sequence[float], unit: str) -> str:
    found = summary(samples)
    if found["n"] == 0:
        return "not measured"
    return f"{found['min']:g} / {found['median']:g} / {found['max']:g} {unit} (n={found['n']:g})"


def write(rows: Sequence[Row], directory: Path) -> None:
    """Write the report and, beside it, every sample.

    Rows of an earlier run that were not measured now stay, so that a part can be repeated.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _merge(directory / "hot.json", [row.as_json() for row in rows])
    raw = [
        {
            "name": row.name,
            "unit": row.unit,
            "ours": row.samples,
            "peers": dict(row.peers),
            "notes": row.notes,
        }
        for row in rows
    ]
    _merge(directory / "hot-raw.json", raw)


def _merge(path: Path, fresh: list[dict[str, Any]]) -> None:
    kept = json.loads(path.read_text()) if path.exists() else []
    merged = {row["name"]: row for row in kept} | {row["name"]: row for row in fresh}
    path.write_text(json.dumps(list(merged.values()), indent=1) + "\n")
