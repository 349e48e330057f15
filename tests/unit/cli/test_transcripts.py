"""What `status`, `explain` and `history` print, word for word (transcripts/*.txt).

A transcript is blocks of comment lines (#), commands, `----` and the answer, with `====` between.
`set PATH JSON` changes the healthy site's status, `drop PATH` takes a member away; then one of
`status`, `explain GROUP`, `history`, `colour status` prints. Run with REWRITE=1 to write the
answers down anew, then read the difference.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carpool.base import journal
from carpool.cli.history import render_entry
from carpool.cli.render import Paint
from carpool.cli.status import render_status
from carpool.control.explanation import explain
from carpool.control.verdict import judge

_TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
_NOW = 275_400_100_000_000  # 100 ms after the snapshot in status.json
_SEPARATOR = "\n====\n"


def _change(status: Any, path: str, text: str | None) -> None:
    """Set the member at `path` (a.0.b) to the JSON `text`, or take it away."""
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        status = status[step]
    if text is None:
        del status[last]
    elif isinstance(status, list) and last == len(status):
        status.append(json.loads(text))
    else:
        status[last] = json.loads(text)


def _entries() -> Iterator[dict[str, Any]]:
    """Give one entry of each loudness as the socket does."""
    made = (
        journal.RoleChanged("edge", "BACKUP", "MASTER", "master-down", "bravo silent for 3.0 s"),
        journal.Noted("", "disk", "the history on disk is full"),
        journal.ConflictSeen("edge", "192.0.2.10", "02:00:00:00:00:09\x1b[2J"),
    )
    for number, entry in enumerate(made):
        at = 1_700_000_000_123_456_789 + number * 1_000_000_000
        yield {"at": at, "text": journal.render(entry), "entry": journal.to_json(entry)}


def _answer(command: str, status: dict[str, Any]) -> str:
    """Return what `command` prints."""
    match command.split():
        case ["status"] | ["colour", "status"]:
            verdict, paint = judge(status, _NOW), Paint(enabled=command.startswith("colour"))
            lines = render_status(status, _NOW, verdict, paint)
            return "\n".join([*lines, f"[exit {int(verdict.code)}]"]).replace("\x1b", "^")
        case ["explain", group]:
            explained: Any = explain(status, group, _NOW)["sentences"]
            return "\n".join(explained)
        case ["history"]:
            return "\n".join(render_entry(entry, Paint(enabled=False)) for entry in _entries())
    raise ValueError(command)


def _play(block: str, status: dict[str, Any]) -> str:
    """Return `block` with the answer that its commands give."""
    head = re.split(r"^----$", block, flags=re.MULTILINE)[0].rstrip("\n")
    answer = ""
    for line in head.splitlines():
        if line.startswith("set "):
            _, path, text = line.split(" ", 2)
            _change(status, path, text)
        elif line.startswith("drop "):
            _change(status, line.removeprefix("drop "), None)
        elif line and not line.startswith("#"):
            answer = _answer(line, status)
    return f"{head}\n----\n{answer}"


@pytest.mark.parametrize("file", _TRANSCRIPTS, ids=lambda file: file.stem)
def test_transcript(file: Path, status: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer of the transcript is what is printed today."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    written = file.read_text()
    pristine = json.dumps(status)
    blocks = written.removesuffix("\n").split(_SEPARATOR)
    played = _SEPARATOR.join(_play(block, json.loads(pristine)) for block in blocks) + "\n"
    if os.environ.get("REWRITE"):
        file.write_text(played)
    else:
        assert played == written


def test_there_are_transcripts() -> None:
    """The transcripts are found, and none of them is empty."""
    assert {file.stem for file in _TRANSCRIPTS} == {"explain", "history", "status"}
    for file in _TRANSCRIPTS:
        assert re.search(r"^----$\n.+", file.read_text(), re.MULTILINE)
