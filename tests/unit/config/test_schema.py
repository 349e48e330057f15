"""The JSON Schema and the manual say what the model says."""

import json
import os
from pathlib import Path

from carpool.config.manual import manual
from carpool.config.model import Hot, HotOverride, Node, Peer, Site
from carpool.config.schema import schema, schema_text
from carpool.config.translation import keys_of

ROOT = Path(__file__).parents[3]
MANUAL = ROOT / "docs" / "carpool.toml.5.md"


def test_every_key_is_in_the_schema_under_its_name_in_the_file() -> None:
    """Completion in an editor offers `with` and `interval`, not our Python names."""
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    for model in (Site, Node, Peer, Hot, HotOverride):
        assert set(definitions[model.__name__]["properties"]) == set(keys_of(model))
        assert definitions[model.__name__]["additionalProperties"] is False


def test_the_schema_knows_toml() -> None:
    """There is no null in it, and a duration's default is text."""
    text = schema_text()
    assert '"null"' not in text
    hot = json.loads(text)["$defs"]["Hot"]["properties"]
    assert hot["interval"]["default"] == "1s"
    assert hot["preempt_delay"]["default"] == "0s"
    assert "default" not in hot["margin"]
    assert hot["margin"]["type"] == "string"


def test_every_key_has_a_description() -> None:
    """The manual, the schema and the hint for a missing key are one text; none is empty."""
    for model in (Site, Node, Peer, Hot, HotOverride):
        assert all(text.endswith(".") for text in keys_of(model).values())


def test_the_manual_is_made_from_the_model() -> None:
    """docs/carpool.toml.5.md is what the model makes; REWRITE=1 writes it."""
    if os.environ.get("REWRITE") == "1":
        MANUAL.write_text(manual())
    assert MANUAL.read_text() == manual()


def test_the_manual_shows_the_shipped_minimal_file() -> None:
    """The ten lines in the manual are the ten lines that are shipped."""
    assert (ROOT / "examples" / "minimal.toml").read_text() in manual()
