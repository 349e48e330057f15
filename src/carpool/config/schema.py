"""JSON Schema of the file, made from the model, for completion in editors.

TOML has no null and spells durations as strings, so pydantic's schema is put right in these two
points; it adds no rule of its own.
"""

import json
from typing import Final

from carpool.base.time import format_duration
from carpool.config.model import Config

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, object]:
    """Return the schema as plain values."""
    made = _tidy(Config.model_json_schema(by_alias=True, mode="validation"))
    assert isinstance(made, dict)
    return {"$schema": DIALECT, **made, "title": "carpool.toml"}


def schema_text() -> str:
    """Return the schema as it is printed."""
    return json.dumps(schema(), indent=2) + "\n"


def _tidy(value: object) -> object:
    """Return a part of the schema without null, without titles, with durations as text."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    choices = [choice for choice in value.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        value = {**{key: item for key, item in value.items() if key != "anyOf"}, **choices[0]}
    tidy = {
        key: _tidy(item)
        for key, item in value.items()
        if not (key == "title" and isinstance(item, str))
        and not (key == "default" and item is None)
    }
    default = tidy.get("default")
    if tidy.get("type") == "string" and isinstance(default, int):
        tidy["default"] = format_duration(default)
    return tidy
