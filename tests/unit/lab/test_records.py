"""Record files are read while they grow, and cut to windows."""

from pathlib import Path

import pytest

from carpool.lab.records import Records


def test_grows_line_by_line(tmp_path: Path) -> None:
    """Only complete lines are taken in, and each of them once."""
    path = tmp_path / "record"
    records = Records(path)
    records.read()
    assert records.replies == []
    path.write_text("R 0 100 90 alpha\nR 0 20")
    records.read()
    assert [reply.received for reply in records.replies] == [100]
    with path.open("a") as file:
        file.write("0 190 bravo\nT 200\n")
    records.read()
    assert [(each.received, each.owner) for each in records.replies] == [
        (100, "alpha"),
        (200, "bravo"),
    ]
    assert records.complete_until == 200


def test_every_kind(tmp_path: Path) -> None:
    """Answers, announcements, questions and own silences are told apart."""
    path = tmp_path / "record"
    path.write_text("Q 1 10\nA 1 11 02:aa\nG 1 12 02:bb\nL 20 30\n")
    records = Records(path)
    records.read()
    assert records.questions == [(1, 10)]
    assert [reply.owner for reply in records.replies] == ["02:aa"]
    assert [reply.owner for reply in records.announcements] == ["02:bb"]
    assert [(each.begin, each.end) for each in records.silences] == [(20, 30)]


def test_window_and_forgetting(tmp_path: Path) -> None:
    """A window holds what lies in it; forgetting drops what is older."""
    path = tmp_path / "record"
    path.write_text("".join(f"R 0 {instant} 0 a\nQ 0 {instant}\n" for instant in range(10)))
    records = Records(path)
    records.read()
    assert [reply.received for reply in records.window(3, 5).replies] == [3, 4, 5]
    records.forget_before(8)
    assert [reply.received for reply in records.replies] == [8, 9]
    assert records.questions == [(0, 8), (0, 9)]


def test_unknown_line_is_an_error(tmp_path: Path) -> None:
    """A line that no observer writes is not passed over."""
    path = tmp_path / "record"
    path.write_text("X 1\n")
    with pytest.raises(ValueError, match="not a record"):
        Records(path).read()
