"""The control socket's language: what may be asked, what is answered, and every limit.

One JSON object a line over a unix stream socket; one request, one answer; `watch` answers for ever.

    request  {"v":1,"verb":"status","args":{}}
    answer   {"v":1,"ok":true,"now":123,"data":{...}}          now = boot-time ns of the answer
    refusal  {"v":1,"ok":false,"error":"a sentence","code":1}  code = exit code for the shell

Follows DESIGN 8 (verbs, exit codes). No dataclasses here: `carpool status` imports this module and
has to be on the screen in a few hundredths of a second.
"""

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from carpool.base.errors import CarpoolError

Json: TypeAlias = Mapping[str, Any]

VERSION: Final = 1
SOCKET_PATH: Final = "/run/carpool/control.sock"

REQUEST_BYTES_MAX: Final = 64 * 1024  # the longest real request is below 300 bytes
ANSWER_BYTES_MAX: Final = 1024 * 1024  # 10 groups of 1,000 addresses are 400 KiB
CONNECTIONS_MAX: Final = 64  # operators, exporters and watchers of one machine
HISTORY_ENTRIES_MAX: Final = 10_000
HISTORY_ENTRIES_DEFAULT: Final = 50
NAME_CHARACTERS_MAX: Final = 64
DEMOTION_MAX: Final = 255  # CARP's demotion is one byte


class ExitCode(IntEnum):
    """What the shell gets; DESIGN 8 has the whole list."""

    OK = 0
    FAILED = 1
    DEGRADED = 3
    DOWN = 4
    NO_DAEMON = 5
    USAGE = 64
    PERMISSION = 77


class ControlError(CarpoolError):
    """A request that is refused, or an answer that says so: a sentence and an exit code."""

    def __init__(self, sentence: str, code: ExitCode | int = ExitCode.FAILED) -> None:
        """Say why, and what the shell shall get."""
        super().__init__(sentence)
        self.sentence = sentence
        self.code = int(code)


class Request(NamedTuple):
    """A checked request."""

    verb: str
    args: Json


class Answer(NamedTuple):
    """What the daemon said to a request it accepted."""

    now: int  # boot-time ns, when the answer was made
    data: Json


class _Argument(NamedTuple):
    """One argument of a verb: a name, a number within bounds, a flag, or one of some words."""

    kind: str  # "name" | "number" | "flag" | "word"
    required: bool = False
    low: int = 0
    high: int = 0
    words: tuple[str, ...] = ()


_GROUP: Final = _Argument("name", required=True)

READS: Final[Mapping[str, Mapping[str, _Argument]]] = {
    "status": {},
    "history": {"limit": _Argument("number", low=1, high=HISTORY_ENTRIES_MAX)},
    "explain": {"group": _GROUP},
    "metrics": {},
    "watch": {"of": _Argument("word", words=("status", "history"))},
}
"""Verbs that change nothing: anybody who can reach the socket may use them."""

ORDERS: Final[Mapping[str, Mapping[str, _Argument]]] = {
    "step-down": {"group": _GROUP, "to": _Argument("name")},
    "demote": {
        "group": _GROUP,
        "n": _Argument("number", required=True, low=-DEMOTION_MAX, high=DEMOTION_MAX),
        "relative": _Argument("flag"),
    },
    "pause": {"force": _Argument("flag")},
    "resume": {},
    "reload": {},
}
"""Verbs that change something: the daemon's parent carries them out, for a privileged caller."""


def request(verb: str, args: Json | None = None) -> dict[str, object]:
    """Return the request for `verb` as JSON values."""
    return {"v": VERSION, "verb": verb, "args": dict(args or {})}


def answer(data: object, now: int) -> dict[str, object]:
    """Return an accepted request's answer as JSON values."""
    return {"v": VERSION, "ok": True, "now": now, "data": data}


def refusal(sentence: str, code: int = ExitCode.FAILED) -> dict[str, object]:
    """Return a refused request's answer as JSON values."""
    return {"v": VERSION, "ok": False, "error": sentence, "code": int(code)}


def parse_request(line: bytes) -> Request:
    """Return the request on `line`.

    Raises ControlError with a sentence for whoever sent it, and nothing else, whatever the bytes.
    """
    value = _object(line)
    if value.get("v") != VERSION:
        raise ControlError(f"this daemon speaks version {VERSION} of the control language only")
    verb, args = value.get("verb"), value.get("args", {})
    allowed = {**READS, **ORDERS}.get(verb) if isinstance(verb, str) else None
    if allowed is None:
        raise ControlError("unknown verb", ExitCode.USAGE)
    if not isinstance(args, dict):
        raise ControlError("args is not an object", ExitCode.USAGE)
    for name in args:
        if name not in allowed:
            raise ControlError(f"{verb} has no such argument", ExitCode.USAGE)
    for name, rule in allowed.items():
        _check(verb, name, rule, args.get(name))
    given = {name: args[name] for name in allowed if args.get(name) is not None}
    return Request(str(verb), given)


def parse_answer(line: bytes) -> Answer:
    """Return the answer on `line`.

    Raises ControlError: the daemon's own refusal, or that this is no answer.
    """
    value = _object(line)
    if value.get("v") != VERSION:
        raise ControlError(f"the daemon does not speak version {VERSION} of the control language")
    if value.get("ok") is not True:
        code = value.get("code")
        raise ControlError(
            str(value.get("error", "refused without a reason")),
            code if isinstance(code, int) else ExitCode.FAILED,
        )
    data, now = value.get("data"), value.get("now", 0)
    if not isinstance(data, dict):
        data = {} if data is None else {"text": str(data)}
    return Answer(now if isinstance(now, int) else 0, data)


def _object(line: bytes) -> dict[str, Any]:
    """Return the JSON object on `line`, or raise ControlError."""
    try:
        # Decoded here: given bytes, json would guess UTF-16 and load a codec for a stranger.
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as refused:  # UnicodeDecodeError is a ValueError
        raise ControlError("not a line of JSON") from refused
    if not isinstance(value, dict):
        raise ControlError("not a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(name)


def _check(verb: object, name: str, rule: _Argument, value: object) -> None:
    """Raise ControlError unless `value` is what `rule` asks for."""
    if value is None:
        if rule.required:
            raise ControlError(f"{verb} needs {name}", ExitCode.USAGE)
        return
    if rule.kind == "number":
        bounds = f"a whole number from {rule.low} to {rule.high}"
        if type(value) is not int or not rule.low <= value <= rule.high:
            raise ControlError(f"{verb}: {name} is not {bounds}", ExitCode.USAGE)
    elif rule.kind == "flag":
        if not isinstance(value, bool):
            raise ControlError(f"{verb}: {name} is neither true nor false", ExitCode.USAGE)
    elif rule.kind == "word":
        if value not in rule.words:
            raise ControlError(f"{verb}: {name} is none of {', '.join(rule.words)}", ExitCode.USAGE)
    elif not _is_name(value):
        raise ControlError(f"{verb}: {name} is not a name", ExitCode.USAGE)


def _is_name(value: object) -> bool:
    """Tell whether `value` could be a node's or a group's name."""
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_MAX and value.isprintable()
