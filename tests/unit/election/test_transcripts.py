"""The election's stories, word for word: transcripts/*.txt, in the language of language.py."""

from pathlib import Path

import pytest
from tests.unit import datadriven
from tests.unit.election.language import Player

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    """The election asks for exactly what the story says, in that order and at those times."""
    datadriven.check(path, Player().answer)


def test_there_are_stories() -> None:
    """The stories were found."""
    assert len(TRANSCRIPTS) >= 20
