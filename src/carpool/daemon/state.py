"""What the daemon keeps on disk: the operator's standing orders and the history.

`state.json` is replaced atomically (write, fsync, rename): it survives kill -9 at any instant.
`history.jsonl` gets one line for each journal entry; a torn last line is skipped when it is read.
A full disk stops nothing: a write that fails is counted and shown.
"""

import json
import os
from collections import deque
from pathlib import Path
from typing import Any, Final

from carpool.election.parameters import DEMOTION_MAX

HISTORY_BYTES_MAX: Final = 4 << 20  # then the file becomes history.jsonl.1 and a new one begins
HISTORY_KEPT: Final = 10_000  # entries read back at start
# What the text in a torn or foreign file can do to the reader; deep nesting is a RecursionError.
_UNREADABLE: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class State:
    """The daemon's directory of state."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`; it is made when it is not there."""
        self.directory = directory
        self.write_errors = 0
        self.last_error = ""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        except OSError as exc:
            self._failed(exc)

    def orders(self) -> tuple[bool, dict[str, int]]:
        """Return what the operator ordered before the restart: paused, demotions."""
        try:
            value = json.loads((self.directory / "state.json").read_text())
            demotions = {str(k): int(v) for k, v in dict(value["demotions"]).items()}
            if not all(0 <= demotion <= DEMOTION_MAX for demotion in demotions.values()):
                return False, {}
            return bool(value["paused"]), demotions
        except (OSError, *_UNREADABLE):
            return False, {}

    def remember(self, *, paused: bool, demotions: dict[str, int]) -> None:
        """Keep the operator's standing orders."""
        body = json.dumps({"version": 1, "paused": paused, "demotions": demotions})
        self._replace(self.directory / "state.json", body)

    def _replace(self, path: Path, body: str) -> None:
        fresh = path.with_suffix(".new")
        try:
            with fresh.open("w") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as exc:
            self._failed(exc)

    def history(self) -> list[dict[str, Any]]:
        """Return the kept entries, oldest first."""
        found: deque[dict[str, Any]] = deque(maxlen=HISTORY_KEPT)
        for name in ("history.jsonl.1", "history.jsonl"):
            try:
                lines = (self.directory / name).read_text(errors="replace").splitlines()
            except OSError:
                continue
            for line in lines:
                try:
                    value = json.loads(line)
                    found.append({"at": int(value["at"]), "entry": {**value["entry"]}})
                except _UNREADABLE:
                    continue  # torn by a crash
        return list(found)

    def append(self, entries: list[dict[str, Any]]) -> None:
        """Add entries to the history."""
        path = self.directory / "history.jsonl"
        try:
            if path.exists() and path.stat().st_size > HISTORY_BYTES_MAX:
                path.replace(path.with_name("history.jsonl.1"))
            with path.open("a") as file:
                file.writelines(f"{json.dumps(entry)}\n" for entry in entries)
        except OSError as exc:
            self._failed(exc)

    def _failed(self, exc: OSError) -> None:
        self.write_errors += 1
        self.last_error = f"{self.directory}: {exc.strerror or exc}"
