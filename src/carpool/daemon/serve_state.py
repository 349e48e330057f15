"""What `serve` knows: the latest snapshot and the last journal entries, and its answers from them.

Pure: no socket, no clock. Everything comes from the daemon's parent (daemon/serve.py has the
messages); a reader's verb is answered from here without asking anybody.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from carpool.base.journal import from_json, render
from carpool.control.explanation import explain
from carpool.control.messages import (
    ANSWER_BYTES_MAX,
    DEMOTION_MAX,
    HISTORY_ENTRIES_DEFAULT,
    HISTORY_ENTRIES_MAX,
    ControlError,
    ExitCode,
    Json,
    Request,
)
from carpool.control.metrics import render_metrics

# An entry as JSON is about 300 bytes; an answer is filled to here and the rest is left off.
_HISTORY_BYTES_MAX: Final = ANSWER_BYTES_MAX - 64 * 1024

# Members that change with every packet: not a change worth telling a watcher at once.
_RESTLESS: Final = frozenset({"at", "counters", "lease_until", "master_heard_at", "heard_at"})


class Kept(NamedTuple):
    """A journal entry of the ring, its number since start and its wall-clock time."""

    number: int
    at: int
    entry: Mapping[str, Any]


class ServeState:
    """The latest snapshot and the ring of journal entries."""

    def __init__(self) -> None:
        self.snapshot: Json | None = None
        self.changes = 0  # snapshots that differed in more than restless members
        self.snapshots = 0
        self.entries_total = 0
        self._calm: object = None
        self._entries: deque[Kept] = deque(maxlen=HISTORY_ENTRIES_MAX)

    def take_snapshot(self, snapshot: Json) -> None:
        """Replace the snapshot, and notice whether anything but the clockwork moved."""
        calm = _calm(snapshot)
        self.snapshot = snapshot
        self.snapshots += 1
        if calm != self._calm:
            self.changes += 1
            self._calm = calm

    def take_entries(self, entries: Sequence[Json]) -> None:
        """Append journal entries, {"at": wall-clock ns, "entry": {...}}, oldest first."""
        for value in entries:
            self.entries_total += 1
            kept = Kept(self.entries_total, int(value["at"]), dict(value["entry"]))
            self._entries.append(kept)

    def status(self) -> Json:
        """Return the latest snapshot. Raises ControlError while there is none."""
        if self.snapshot is None:
            raise ControlError(
                "the daemon has just started and knows nothing yet", ExitCode.NO_DAEMON
            )
        return self.snapshot

    def history(self, limit: int, after: int = 0) -> dict[str, object]:
        """Return at most `limit` of the newest entries numbered above `after`, oldest first."""
        chosen: list[dict[str, object]] = []
        size, newest_first = 0, reversed(self._entries)
        for kept in islice(newest_first, limit):
            if kept.number <= after:
                break
            shown = _shown(kept)
            size += len(json.dumps(shown)) + 1
            if size > _HISTORY_BYTES_MAX:
                break
            chosen.append(shown)
        chosen.reverse()
        return {"entries": chosen, "total": self.entries_total}

    def answer(self, request: Request, now: int) -> Json:
        """Return the data that answers a reader's verb. Raises ControlError."""
        if request.verb == "history":
            return self.history(request.args.get("limit", HISTORY_ENTRIES_DEFAULT))
        if request.verb == "explain":
            return explain(self.status(), request.args["group"], now)
        if request.verb == "metrics":
            return {"text": render_metrics(self.status(), now)}
        return self.status()

    def order(self, request: Request) -> dict[str, object]:
        """Return the arguments of an order as the parent gets them.

        A demotion "n" that counts from the present one becomes a text with its sign ("+1"), as
        engine/orders.py reads it. Raises ControlError when there is no such group, or "n" is less
        than nothing.
        """
        args = dict(request.args)
        if "group" in args and self.snapshot is not None:
            _known_group(self.snapshot, str(args["group"]))
        if args.pop("relative", False):
            args["n"] = f"{args['n']:+d}"
        elif args.get("n", 0) < 0:
            raise ControlError(f"a demotion is 0 to {DEMOTION_MAX}", ExitCode.USAGE)
        return args


def _known_group(status: Json, name: str) -> None:
    """Raise ControlError unless there is a group of that name."""
    names = [group["group"] for group in status["groups"]]
    if name not in names:
        raise ControlError(f"no group {name} (groups: {', '.join(names) or 'none'})")


def _shown(kept: Kept) -> dict[str, object]:
    """Return an entry as an answer has it, with the sentence every surface shows."""
    try:
        text = render(from_json(kept.entry))
    except ValueError:  # written by another version of this program: show what is there
        members = (f"{name}={value}" for name, value in kept.entry.items())
        text = " ".join(members)
    return {"seq": kept.number, "at": kept.at, "text": text, "entry": kept.entry}


def _calm(value: object) -> object:
    """Return `value` without the members that change with every packet."""
    if isinstance(value, Mapping):
        return {name: _calm(inner) for name, inner in value.items() if name not in _RESTLESS}
    if isinstance(value, list | tuple):
        return [_calm(inner) for inner in value]
    return value
