"""From pydantic's complaints to findings in our words.

Every kind of complaint that our models can cause has its sentence here; pydantic's own sentences
are never shown (STYLE 22). The values' own sentences come from `fields`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from carpool.config.fields import show
from carpool.config.model import Hot, HotOverride, Node, Peer, Site
from carpool.config.problems import At, Finding, Path, counted, suggestion

_Words: TypeAlias = tuple[str, str]
_Speaker: TypeAlias = Callable[[object, Mapping[str, object]], _Words]

_UNBUILT: Final = {"track": "tracked interfaces and services"}
# Words of keepalived, ucarp and OpenBSD that mean one of our keys.
_ALIEN: Final = {
    "advbase": "interval",
    "advert_int": "interval",
    "advskew": "nodes",
    "auth_pass": "password_file",
    "authentication": "password_file",
    "carpdev": "interface",
    "carppeer": "peers",
    "pass": "password_file",
    "priority": "nodes",
    "state": "nodes",
    "unicast_peer": "peers",
    "virtual_ipaddress": "addresses",
    "virtual_router_id": "vhid",
}
_TABLES: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("[site]", Site),
    ("[node.NAME]", Node),
    ("[hot.NAME]", Hot),
    ("a peer", Peer),
    ("[hot.GROUP.node.NAME]", HotOverride),
)


def keys_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the keys of a table as the file spells them, each with its description."""
    return {
        field.alias or name: field.description or "" for name, field in model.model_fields.items()
    }


def unknown_key(path: Path, model: type[BaseModel]) -> Finding:
    """Return the finding for a key that `model` does not have."""
    key = str(path[-1])
    if model is Hot and key in _UNBUILT:
        reason = f"{_UNBUILT[key]} are not in this version"
        return Finding(path, reason, "remove it", at=At.KEY)
    known = keys_of(model)
    hint = suggestion(key, list(known))
    if _ALIEN.get(key) in known:
        hint = f"here it is `{_ALIEN[key]}`"
    elif not hint:
        homes = [name for name, table in _TABLES if key in keys_of(table)]
        hint = f"it belongs to {homes[0]}" if homes else ""
    return Finding(path, "unknown key", hint, at=At.KEY)


def translate(error: ErrorDetails, base: Path, model: type[BaseModel]) -> Finding:
    """Return one complaint of pydantic about `model`, whose table is at `base`, as a finding."""
    path: Path = (*base, *error["loc"])
    context: Mapping[str, object] = error.get("ctx") or {}
    kind = error["type"]
    if path[-1] == "[key]":
        reason, hint = str(context.get("reason", "")), str(context.get("hint", ""))
        return Finding(path[:-1], reason, hint, at=At.KEY)
    if kind == "extra_forbidden":
        return unknown_key(path, table_at(model, error["loc"][:-1]))
    if kind == "missing":
        keys = keys_of(table_at(model, error["loc"][:-1]))
        return Finding(path, "missing", _description(keys[str(path[-1])]))
    reason, hint = _SPEAKERS.get(kind, _unforeseen)(error["input"], context)
    return Finding(path, reason, hint)


def table_at(model: type[BaseModel], inside: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model of the table at `inside` the table of `model`."""
    if model is Hot and inside[:1] == ("peers",):
        return Peer
    if model is Hot and inside[:1] == ("node",):
        return HotOverride
    return model


def _description(text: str) -> str:
    return text.removesuffix(".") if text[1:2].isupper() else text[:1].lower() + text[1:-1]


def _own(_value: object, context: Mapping[str, object]) -> _Words:
    return str(context["reason"]), str(context["hint"])


def _number(value: object, _context: Mapping[str, object]) -> _Words:
    hint = "without quotes" if isinstance(value, str) and value.strip().isdigit() else ""
    return f"{describe(value)} is not a whole number", hint


def _truth(value: object, _context: Mapping[str, object]) -> _Words:
    return f"{describe(value)} is neither true nor false", "true or false, without quotes"


def _text(value: object, _context: Mapping[str, object]) -> _Words:
    return f"{describe(value)} is not a string", "in quotes"


def _list(value: object, _context: Mapping[str, object]) -> _Words:
    hint = f'write ["{show(value)}"]' if isinstance(value, str) else "write [ ... ]"
    return f"{describe(value)} is not a list", hint


def _table(value: object, _context: Mapping[str, object]) -> _Words:
    return f"{describe(value)} is not a table", ""


def _low(value: object, context: Mapping[str, object]) -> _Words:
    return f"{describe(value)} is too small", f"at least {context['ge']}"


def _high(value: object, context: Mapping[str, object]) -> _Words:
    return f"{describe(value)} is too large", f"at most {context['le']}"


def _few(_value: object, context: Mapping[str, object]) -> _Words:
    return "the list is empty", f"at least {context['min_length']}"


def _many(value: object, context: Mapping[str, object]) -> _Words:
    length = len(value) if isinstance(value, list) else 0
    return f"the list has {counted(length, 'value')}", f"at most {context['max_length']}"


def _choice(value: object, context: Mapping[str, object]) -> _Words:
    choices = re.findall(r"'([^']*)'", str(context["expected"]))
    near = suggestion(value, choices) if isinstance(value, str) else ""
    listed = " or ".join(f'"{choice}"' for choice in choices)
    return f"{describe(value)} is not one of {listed}", near


def _unforeseen(value: object, _context: Mapping[str, object]) -> _Words:
    return f"{describe(value)} cannot be used here", ""


def describe(value: object) -> str:
    """Return a value of any kind as a message shows it."""
    match value:
        case str():
            return f'"{show(value)}"'
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return show(value)


_SPEAKERS: Final[Mapping[str, _Speaker]] = {
    "carpool": _own,
    "int_type": _number,
    "bool_type": _truth,
    "string_type": _text,
    "tuple_type": _list,
    "dict_type": _table,
    "model_type": _table,
    "model_attributes_type": _table,
    "greater_than_equal": _low,
    "less_than_equal": _high,
    "too_short": _few,
    "too_long": _many,
    "literal_error": _choice,
}
