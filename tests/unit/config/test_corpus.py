"""The corpus: broken files and their exact messages, good files that print and parse again.

`REWRITE=1 pytest tests/unit/config/test_corpus.py` writes the expected messages; read the diff.
"""

import os
from pathlib import Path

import pytest

from carpool.config.parse import examine, parse
from carpool.config.problems import ConfigErrors
from carpool.config.render import render
from carpool.config.revision import revision

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BROKEN = sorted((HERE / "broken").glob("*.toml"))
GOOD = sorted((HERE / "good").glob("*.toml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
BROKEN_FILES_MIN = 60  # the promise of the issue


def text_of(path: Path) -> str:
    """Return the file's text with its line ends as they are."""
    return path.read_bytes().decode()


def compare(expected_file: Path, text: str) -> None:
    """Compare with the file, or write it if that is asked for."""
    if os.environ.get("REWRITE") == "1":
        if text:
            expected_file.write_text(text)
        else:
            expected_file.unlink(missing_ok=True)
    expected = expected_file.read_text() if expected_file.exists() else ""
    assert text == expected


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_file_is_refused_with_its_messages(path: Path) -> None:
    """Every rule has a file that breaks it, and says exactly what the corpus says."""
    with pytest.raises(ConfigErrors) as caught:
        parse(text_of(path), path.name)
    compare(path.with_suffix(".err"), caught.value.report() + "\n")


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_place_is_inside_the_file(path: Path) -> None:
    """The line and the column of each problem exist, so that an editor can go there."""
    with pytest.raises(ConfigErrors) as caught:
        parse(text_of(path), path.name)
    lines = text_of(path).splitlines() or [""]
    for problem in caught.value.problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.col <= len(lines[problem.line - 1]) + 1


@pytest.mark.parametrize("path", [*GOOD, *EXAMPLES], ids=lambda path: path.stem)
def test_a_good_file_prints_and_parses_to_the_same(path: Path) -> None:
    """What `--print` writes means the same, and printing it again changes nothing."""
    config = parse(text_of(path), path.name)
    printed = render(config)
    again = parse(printed, "printed")
    assert again == config
    assert render(again) == printed
    assert revision(again) == revision(config)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_warns_as_expected(path: Path) -> None:
    """A doubtful file is accepted with exactly the warnings of the corpus, others with none."""
    warnings = examine(text_of(path), path.name).warnings
    compare(path.with_suffix(".warnings"), "".join(f"{it.text(path.name)}\n" for it in warnings))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_shipped_examples_raise_no_warning(path: Path) -> None:
    """What we ship is right beyond doubt."""
    assert examine(text_of(path), path.name).warnings == ()


def test_the_corpus_is_as_large_as_promised() -> None:
    """There are enough broken files, and no expectation without its file."""
    assert len(BROKEN) >= BROKEN_FILES_MIN
    stems = {path.stem for path in BROKEN}
    assert {path.stem for path in (HERE / "broken").glob("*.err")} == stems


def test_the_smallest_useful_file_has_ten_lines() -> None:
    """DESIGN 3: two machines share an address with ten lines."""
    assert len(text_of(ROOT / "examples" / "minimal.toml").splitlines()) == 10
