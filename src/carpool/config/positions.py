"""Where in the text each key and each value of a TOML document stands.

tomllib keeps no positions, so a second, small scanner walks over the text and notes offsets by
path. It judges nothing: in text that is not TOML it stops somewhere, and tomllib says why. It
covers TOML 1.0: dotted and quoted keys, tables, arrays of tables, inline tables, strings of one and
of several lines.
Source: TOML v1.0.0, sections Keys, Table, Array of Tables.
"""

import re
import tomllib
from bisect import bisect_right
from contextlib import suppress
from typing import Final

from carpool.config.problems import At, Path

KEY_PARTS_MAX: Final = 16  # ours have 4; tomllib's time grows with the square of the parts
# One character a turn: a repeat inside a repeat could be tried in exponentially many ways, and the
# possessive forms that forbid it match wrongly before Python 3.11.5.
_BLANK: Final = re.compile(r"[ \t]*")
_BLANK_LINES: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
# Never empty: every step of the scanner moves on, also where a value is missing.
_SCALAR: Final = re.compile(r"[^,\]}\n#]+")


class Positions:
    """The places of one document.

    text: TOML that tomllib accepts.
    """

    def __init__(self, text: str) -> None:
        """Scan the whole text once."""
        text = text.replace("\r\n", "\n")  # as tomllib does; columns and lines stay what they were
        scan = _Scan(text)
        scan.document()
        self._keys = scan.keys
        self._values = scan.values
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def find(self, path: Path, at: At = At.VALUE) -> tuple[int, int]:
        """Return (line, column), from 1, of `path` or of the nearest thing that encloses it."""
        first, second = (self._keys, self._values) if at is At.KEY else (self._values, self._keys)
        while path:
            for table in (first, second):
                if path in table:
                    return self._place(table[path])
            path = path[:-1]
        return 1, 1

    def _place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1


def too_many_parts(text: str) -> int | None:
    """Return the offset in `text` at which a key has too many parts, None if none has."""
    try:
        _Scan(text).document()
    except TooManyPartsError as wrong:
        return wrong.offset
    except _EndError:
        return None  # not TOML; tomllib says where
    return None


def last_statement(text: str) -> tuple[int, int] | None:
    """Return (line, column) of the last statement that begins in `text`, None if there is none.

    text: the part of a document up to an error that tomllib finds behind a statement.
    """
    scan = _Scan(text.replace("\r\n", "\n"))
    with suppress(_EndError):
        scan.document()
    if scan.statement_at is None:
        return None
    before = scan.text[: scan.statement_at]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


class TooManyPartsError(Exception):
    """A key with more parts than `KEY_PARTS_MAX`."""

    def __init__(self, offset: int) -> None:
        """Keep where the first part too many stands."""
        super().__init__(offset)
        self.offset = offset


class _EndError(Exception):
    """The text ended, or went wrong, where the scanner expected more."""


class _Scan:
    """One walk over the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}
        self.statement_at: int | None = None
        self._at = 0
        self._array_index: dict[Path, int] = {}  # of the last table of each array of tables

    def document(self) -> None:
        """Walk over all statements."""
        base: Path = ()
        while True:
            self._skip(_BLANK_LINES)
            if self._at >= len(self.text):
                return
            self.statement_at = self._at
            if self._char() == "[":
                base = self._header()
            else:
                self._pair(base)

    def _char(self) -> str:
        if self._at >= len(self.text):
            raise _EndError
        return self.text[self._at]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self._at)
        if match is None:
            raise _EndError
        self._at = match.end()
        return match.group()

    def _expect(self, word: str) -> None:
        if not self.text.startswith(word, self._at):
            raise _EndError
        self._at += len(word)

    def _dotted_key(self) -> list[tuple[str, int]]:
        """Return the parts of a key, each with its offset."""
        parts: list[tuple[str, int]] = []
        while True:
            self._skip(_BLANK)
            offset = self._at
            if self._char() in "\"'":
                quoted = self._skip(_STRING)
                key = next(iter(tomllib.loads(f"{quoted} = 0")))
            else:
                key = self._skip(_BARE_KEY)
            parts.append((key, offset))
            if len(parts) > KEY_PARTS_MAX:
                raise TooManyPartsError(offset)
            self._skip(_BLANK)
            if self._at >= len(self.text) or self._char() != ".":
                return parts
            self._at += 1

    def _header(self) -> Path:
        """Walk over `[a.b]` or `[[a.b]]`; return the path of the table it opens."""
        offset = self._at
        is_array = self.text.startswith("[[", offset)
        self._at += 2 if is_array else 1
        parts = self._dotted_key()
        path: Path = ()
        for key, key_offset in parts[:-1]:
            path = (*path, key)
            self.keys.setdefault(path, key_offset)
            if path in self._array_index:
                path = (*path, self._array_index[path])
            self.values.setdefault(path, offset)
        key, key_offset = parts[-1]
        path = (*path, key)
        self.keys[path] = key_offset
        if is_array:
            self.values.setdefault(path, offset)
            index = self._array_index.get(path, -1) + 1
            self._array_index[path] = index
            path = (*path, index)
        self.values[path] = offset
        self._expect("]]" if is_array else "]")
        return path

    def _pair(self, base: Path) -> None:
        """Walk over `key = value`."""
        path = base
        for key, offset in self._dotted_key():
            path = (*path, key)
            self.keys.setdefault(path, offset)
        self._expect("=")
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        self.values.setdefault(path, self._at)
        match self._char():
            case '"' | "'":
                self._skip(_STRING)
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip(_BLANK_LINES)
            if self._char() == "]":
                self._at += 1
                return
            self._value((*path, index))
            index += 1
            self._skip(_BLANK_LINES)
            if self._char() == ",":
                self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK_LINES)
            if self._char() == "}":
                self._at += 1
                return
            self._pair(path)
            self._skip(_BLANK_LINES)
            if self._char() == ",":
                self._at += 1
