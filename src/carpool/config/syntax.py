"""TOML text to plain values; a syntax error becomes a problem with its place, in our words.

tomllib's sentences speak of "namespaces" and of characters it expected; an operator wants to know
which line and what to do. A sentence that is not in the table is passed on as it is.
Source: TOML v1.0.0; the sentences are those of Python's tomllib.
"""

import re
import tomllib
from typing import Final

from carpool.config.positions import KEY_PARTS_MAX, last_statement, too_many_parts
from carpool.config.problems import Problem

TEXT_BYTES_MAX: Final = 1 << 20  # 64 nodes and 255 groups of 20 addresses are 200 KiB
DIGITS_MAX: Final = 4300  # Python's limit on the digits of a number
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_MISSING_VALUE: Final = 'a value is missing or not one: text needs quotes, "like this"'

TOO_DEEP: Final = Problem(1, 1, "", "lists or tables are nested too deeply")

# tomllib's sentence, what we say, what to do, whether it is noticed only behind the statement
_WORDS: Final = (
    (r"Invalid statement", "this is not a key, a table or a comment", "", False),
    (
        r"Expected newline or end of document after a statement",
        "something follows the value on the same line",
        "one key a line; a comment begins with #",
        False,
    ),
    (r"Expected '=' after a key.*", "there is no = after the key", "", False),
    (r"Expected '\]' at .*", "the table's name is not closed", "write [name]", False),
    (r"Expected '\]\]' at .*", "the table's name is not closed", "write [[name]]", False),
    (r"Invalid initial character for a key part", "this is not a key", "", False),
    (r"Invalid value", _MISSING_VALUE, "", False),
    (r"Invalid date or .*", "this is not a date", "", False),
    (r"Unclosed array", "a comma or ] is missing", "the list is not closed", False),
    (r"Unclosed inline table", "a comma or } is missing", "the table is not closed", False),
    (r"Unterminated string", "the string is not closed", "", False),
    (r"Illegal character '\\n'", "the string is not closed on its line", "", False),
    (r"Illegal character (.*)", r"the character \1 may not stand here", "", False),
    (r"Found invalid character (.*)", r"the character \1 may not stand here", "", False),
    (r"Unescaped '\\' in a string", "this backslash escapes nothing", r"write \\", False),
    (r"Invalid hex value", "these are not hexadecimal digits", "", False),
    (r"Escaped character .*", "there is no such character", "", False),
    (r"Cannot declare (.*) twice", "this table was declared before", "", True),
    (r"Cannot overwrite a value", "this key was given before", "", True),
    (r"Duplicate inline table key (.*)", r"the key \1 was given before", "", False),
    (r"Cannot mutate immutable namespace .*", "this was closed before", "", True),
    (r"Cannot redefine namespace .*", "this table was declared before", "", True),
)


def load(text: str) -> dict[str, object] | Problem:
    """Return the values of `text`, or what keeps it from being TOML. Never raises."""
    size = len(text.encode(errors="surrogatepass"))
    if size > TEXT_BYTES_MAX:
        limit = f"the limit is {TEXT_BYTES_MAX} bytes"
        return Problem(1, 1, "", f"the file has {size} bytes", limit)
    if text.startswith("\ufeff"):
        return Problem(1, 1, "", "the file begins with a byte order mark", "save it without")
    surrogate = re.search("[\ud800-\udfff]", text)
    if surrogate is not None:
        return _at(text, surrogate.start(), "this is not a character of Unicode")
    try:
        offset = too_many_parts(text)
        if offset is not None:
            return _at(text, offset, f"a key has more than {KEY_PARTS_MAX} parts")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        return _translate(text, str(wrong))
    except RecursionError:
        return TOO_DEEP
    except ValueError:  # int() refuses a number of more digits; tomllib lets that through
        digits = re.search(rf"[0-9_]{{{DIGITS_MAX},}}", text)
        return _at(text, digits.start() if digits else 0, "this number has too many digits")


def _at(text: str, offset: int, reason: str) -> Problem:
    line = text.count("\n", 0, offset) + 1
    return Problem(line, offset - (text.rfind("\n", 0, offset) + 1) + 1, "", reason)


def _translate(text: str, sentence: str) -> Problem:
    """Return tomllib's error in our words."""
    lines = text.replace("\r\n", "\n").split("\n")
    place = _PLACE.search(sentence)
    if place is None or place.group(1) is None:
        line, col = _end(lines)
    else:
        line, col = int(place.group(1)), int(place.group(2))
    bare = _PLACE.sub("", sentence)
    for pattern, reason, hint, is_behind in _WORDS:
        match = re.fullmatch(pattern, bare)
        if match is None:
            continue
        if is_behind:
            head = "\n".join([*lines[: line - 1], lines[line - 1][: col - 1]])
            line, col = last_statement(head) or (line, col)
        return Problem(line, col, "", match.expand(reason), hint)
    return Problem(line, col, "", bare[:1].lower() + bare[1:])


def _end(lines: list[str]) -> tuple[int, int]:
    """Return the place behind the last character that is not blank."""
    for number in range(len(lines), 0, -1):
        if lines[number - 1].strip():
            return number, len(lines[number - 1].rstrip()) + 1
    return 1, 1
