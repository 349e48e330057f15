"""What is wrong with a file, where, and what to write instead; how it is printed.

Follows DESIGN 3 and STYLE 22: all problems at once, each as
`file:line:col: error: path: reason (hint)`, and a last line that says that nothing was changed.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from carpool.base.errors import LocalError

Path: TypeAlias = tuple[str | int, ...]
"""A place in the document: keys and, in arrays, indices counted from 0."""

SUGGESTION_CUTOFF: Final = 0.6  # difflib's own default: "adresses" is near "addresses"
PROBLEMS_SHOWN_MAX: Final = 1000  # more than a person reads; a log must not be filled by one file
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


class Severity(StrEnum):
    """Whether the file is refused."""

    ERROR = "error"
    WARNING = "warning"


class At(StrEnum):
    """Which part of the text a finding points to."""

    KEY = "key"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a rule found, before it is known on which line that is."""

    path: Path
    reason: str
    hint: str = ""
    severity: Severity = Severity.ERROR
    at: At = At.VALUE


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A finding with its place in the text; line and column count from 1."""

    line: int
    col: int
    path: str
    reason: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    def text(self, file: str) -> str:
        """Return the line that is printed."""
        where = f"{file}:{self.line}:{self.col}"
        subject = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}: {self.severity}: {subject}{self.reason}{hint}"


class ConfigErrors(LocalError):  # noqa: N818  several errors in one, hence the plural
    """A file that is refused, with everything that is wrong with it."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        """Keep the problems in the order of the text."""
        self.file = file
        self.problems = tuple(sorted(problems))
        super().__init__(self.report())

    def report(self) -> str:
        """Return every line and the last one, without the closing newline."""
        errors = sum(problem.severity is Severity.ERROR for problem in self.problems)
        counts = [counted(errors, "error")]
        if errors < len(self.problems):
            counts.append(counted(len(self.problems) - errors, "warning"))
        lines = [problem.text(self.file) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        if len(self.problems) > PROBLEMS_SHOWN_MAX:
            lines.append(f"{self.file}: ... and {len(self.problems) - PROBLEMS_SHOWN_MAX} more")
        lines.append(f"{self.file}: {', '.join(counts)}, nothing was changed")
        return "\n".join(lines)


def warning(path: Path, reason: str, hint: str = "") -> Finding:
    """Return a finding that does not refuse the file."""
    return Finding(path, reason, hint, Severity.WARNING)


def counted(number: int, noun: str) -> str:
    """Return "1 error", "2 errors"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_key(key: str) -> str:
    """Return a key as TOML writes it."""
    return key if _BARE.fullmatch(key) else json.dumps(key)


def format_path(path: Path) -> str:
    """Return a path as a person reads it: `hot.edge.peers[0].kind`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + format_key(part)
    return text


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return "did you mean `x`?" or nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=SUGGESTION_CUTOFF)
    return f"did you mean `{near[0]}`?" if near else ""
