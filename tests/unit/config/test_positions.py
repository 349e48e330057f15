"""The places of keys and values, for each way in which TOML can write them."""

import tomllib
from pathlib import Path as File

import pytest

from carpool.config.positions import Positions, last_statement
from carpool.config.problems import At, Path

TEXT = '''\
a = 1
  "b c".d = [ 10,
  # a comment with ] and "
  20, ]
[t]
x = { y = 'z', w.v = """
two "lines\\""""" }
[[list]]
k = 1
[[list]]
k = 2
[list.inner]
m = true # it is
[list.inner.'deep.er']
n = 1979-05-27 07:32:00
["unlike \\u00e9"]
'''


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("a",), (1, 1), (1, 5)),
        (("b c", "d"), (2, 9), (2, 13)),
        (("b c", "d", 0), (2, 15), (2, 15)),
        (("b c", "d", 1), (4, 3), (4, 3)),
        (("t",), (5, 2), (5, 1)),
        (("t", "x"), (6, 1), (6, 5)),
        (("t", "x", "y"), (6, 7), (6, 11)),
        (("t", "x", "w", "v"), (6, 18), (6, 22)),
        (("list", 0, "k"), (9, 1), (9, 5)),
        (("list", 1), (10, 1), (10, 1)),
        (("list", 1, "k"), (11, 1), (11, 5)),
        (("list", 1, "inner", "m"), (13, 1), (13, 5)),
        (("list", 1, "inner", "deep.er"), (14, 13), (14, 1)),
        (("list", 1, "inner", "deep.er", "n"), (15, 1), (15, 5)),
        (("unlike é",), (16, 2), (16, 1)),
    ],
)
def test_the_places_of_a_document(path: Path, key: tuple[int, int], value: tuple[int, int]) -> None:
    """Dotted and quoted keys, arrays, inline tables, arrays of tables: each has its place."""
    positions = Positions(TEXT)
    assert positions.find(path, At.KEY) == key
    assert positions.find(path) == value


def test_what_is_not_there_has_the_place_of_what_encloses_it() -> None:
    """A missing key is reported at its table, and a missing table at the beginning."""
    positions = Positions(TEXT)
    assert positions.find(("t", "missing")) == (5, 1)
    assert positions.find(("list", 1, "inner", "none", "deeper")) == (12, 1)
    assert positions.find(("nowhere",)) == (1, 1)


def test_line_ends_of_windows_do_not_move_anything() -> None:
    """With CR LF every place is the same."""
    path = ("t", "x", "w", "v")
    assert Positions(TEXT.replace("\n", "\r\n")).find(path) == Positions(TEXT).find(path)


@pytest.mark.parametrize(
    "value",
    ['""""a"""', "''''a'''", '"""a"""""', "'''a'''''", '"""\\"""a"""', '""', "''", '""""""'],
)
def test_quotes_inside_strings(value: str) -> None:
    """The scanner ends a string where tomllib does, quotes at its edges included."""
    text = f"a = {value}\nb = 1\n"
    assert set(tomllib.loads(text)) == {"a", "b"}
    assert Positions(text).find(("b",)) == (2, 5)


@pytest.mark.parametrize("file", sorted(File(__file__).parent.glob("good/*.toml")), ids=str)
def test_every_leaf_of_a_file_has_a_place(file: File) -> None:
    """The scanner sees every key that tomllib sees, under the same path."""
    text = file.read_bytes().decode()
    positions = Positions(text)
    for path in leaves(tomllib.loads(text)):
        line, col = positions.find(path)
        parent = positions.find(path[:-1])
        assert (line, col) != parent or len(path) == 1, path


def leaves(value: object, path: Path = ()) -> list[Path]:
    """Return the paths of all values that hold no others."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for at, inner in enumerate(value) for leaf in leaves(inner, (*path, at))]
    return [path]


def test_the_last_statement_of_a_cut_text() -> None:
    """An error that is seen behind a statement is shown at its beginning, half a table or not."""
    assert last_statement('a = 1\n  b = [\n  "x",\n') == (2, 3)
    assert last_statement("a = 1\n[b\n") == (2, 1)
    assert last_statement(" \n# only a comment") is None
