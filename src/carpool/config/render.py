"""The model back to TOML text that parses to the same model (STYLE 22).

Every value is written, defaults too: what is printed is what counts, also in a later version with
other defaults. Lists that are empty and values that are not set are left out.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from carpool.base.time import format_duration
from carpool.config.fields import IPAddress, IPInterface
from carpool.config.model import Config
from carpool.config.problems import format_key

LINE_LENGTH_MAX: Final = 100  # longer lists are written one value a line

_ESCAPES: Final = {
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}


def render(config: Config) -> str:
    """Return `config` as text; `parse(render(config))` is `config`."""
    tables = [("site", config.site)]
    lines: list[str] = []
    for header, table in (
        *tables,
        *((f"node.{format_key(name)}", node) for name, node in config.node.items()),
        *((f"hot.{format_key(name)}", hot) for name, hot in config.hot.items()),
    ):
        lines.extend(["", *_table(header, table)])
    return "\n".join(lines[1:]) + "\n"


def canonical(config: Config) -> str:
    """Return the text of `config` with tables in alphabetical order: equal for equal meaning."""
    return render(
        Config.model_construct(
            site=config.site,
            node=dict(sorted(config.node.items())),
            hot={
                name: hot.model_copy(update={"node": dict(sorted(hot.node.items()))})
                for name, hot in sorted(config.hot.items())
            },
        )
    )


def _table(header: str, table: BaseModel) -> Iterator[str]:
    """Yield the lines of one table; tables inside it follow its keys."""
    yield f"[{header}]"
    inner: Mapping[str, BaseModel] = {}
    for key, value in _entries(table):
        if isinstance(value, dict):
            inner = value
        elif isinstance(value, tuple):
            yield from _list(key, value)
        else:
            yield f"{key} = {_value(key, value)}"
    for name, override in inner.items():
        yield ""
        yield from _table(f"{header}.node.{format_key(name)}", override)


def _entries(table: BaseModel) -> Iterator[tuple[str, object]]:
    """Yield the keys of a table as the file spells them, and their values if there are any."""
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if value is not None and value != ():
            yield field.alias or name, value


def _list(key: str, values: tuple[object, ...]) -> Iterator[str]:
    written = [_value(key, value) for value in values]
    line = f"{key} = [{', '.join(written)}]"
    if len(line) <= LINE_LENGTH_MAX and not isinstance(values[0], BaseModel):
        yield line
        return
    yield f"{key} = ["
    yield from (f"  {value}," for value in written)
    yield "]"


def _value(key: str, value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() if key in _DURATIONS:
            return quote(format_duration(value))
        case int():
            return str(value)
        case BaseModel():
            pairs = (f"{name} = {_value(name, inner)}" for name, inner in _entries(value))
            return f"{{{', '.join(pairs)}}}"
        case _:
            assert isinstance(value, str | IPAddress | IPInterface)
            return quote(str(value))


_DURATIONS: Final = frozenset({"interval", "preempt_delay", "margin"})


def quote(text: str) -> str:
    """Return `text` as a basic string of TOML."""
    return f'"{"".join(_ESCAPES.get(char) or _plain(char) for char in text)}"'


def _plain(char: str) -> str:
    return char if char >= " " and char != "\x7f" else f"\\u{ord(char):04x}"
