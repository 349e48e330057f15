"""Gaps, runs and instants with two owners, from hand-made records."""

from pathlib import Path

from carpool.lab.records import Records, Reply
from carpool.lab.verdicts import (
    answered_twice,
    longest_gap,
    named,
    of_target,
    out_of_turn,
    runs,
)

MS = 1_000_000


def replies(text: str, *, step: int = MS) -> list[Reply]:
    """Return one answer a letter, `step` apart; a dot is none."""
    return [Reply(0, place * step, letter) for place, letter in enumerate(text) if letter != "."]


def test_longest_gap_between_answers() -> None:
    """The longest silence between two answers is found, with its edges."""
    gap = longest_gap(replies("aaa....bb"), 0, 8 * MS)
    assert (gap.begin, gap.end, gap.length_ns) == (2 * MS, 7 * MS, 5 * MS)


def test_longest_gap_at_the_end() -> None:
    """A silence that does not end within the window counts to the window's end."""
    assert longest_gap(replies("aaa"), 0, 10 * MS).length_ns == 8 * MS


def test_longest_gap_without_answers() -> None:
    """Without any answer the gap is the whole window."""
    assert longest_gap([], 5, 9).length_ns == 4


def test_runs_are_compressed() -> None:
    """Consecutive answers of one owner are one run with its count."""
    found = runs(replies("aab.bba"))
    assert [(run.owner, run.count) for run in found] == [("a", 2), ("b", 3), ("a", 1)]
    assert (found[1].first, found[1].last) == (2 * MS, 5 * MS)


def test_one_move_is_no_violation() -> None:
    """Answers that follow the meant path are all in turn."""
    assert len(out_of_turn(replies("aaabbb"), ["a", "b"])) == 0


def test_old_owner_after_first_of_new_counts() -> None:
    """Every answer of the old owner after the first of the new one is counted."""
    assert len(out_of_turn(replies("aababba"), ["a", "b"])) == 2


def test_stranger_counts() -> None:
    """An answer of somebody who was never meant to own the address is counted."""
    assert len(out_of_turn(replies("aacab"), ["a", "b"])) == 1


def test_path_may_return() -> None:
    """An owner that is meant to come back may answer again, in its second turn only."""
    assert len(out_of_turn(replies("abba"), ["a", "b", "a"])) == 0
    assert len(out_of_turn(replies("abab"), ["a", "b", "a"])) == 1


def test_question_answered_by_two() -> None:
    """Two MACs that answer one who-has are one instant; the same MAC twice is none."""
    records = Records(Path("none"))
    records.questions = [(0, 0), (0, 5 * MS), (0, 10 * MS)]
    records.replies = [
        Reply(0, 1 * MS, "a"),
        Reply(0, 2 * MS, "a"),
        Reply(0, 6 * MS, "a"),
        Reply(0, 7 * MS, "b"),
        Reply(0, 11 * MS, "b"),
    ]
    assert answered_twice(records, 0) == 1


def test_targets_are_apart() -> None:
    """Answers for another address do not count for this one."""
    mixed = [Reply(0, 2, "a"), Reply(1, 1, "b"), Reply(0, 1, "c")]
    assert [reply.owner for reply in of_target(mixed, 0)] == ["c", "a"]


def test_macs_become_names() -> None:
    """MACs are replaced by node names; one that is not known stays."""
    given = [Reply(0, 1, "02:01"), Reply(0, 2, "02:99")]
    assert [reply.owner for reply in named(given, {"02:01": "alpha"})] == ["alpha", "02:99"]
