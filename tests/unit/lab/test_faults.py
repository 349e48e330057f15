"""Partitions as words, as pairs, as nft rules."""

import pytest

from carpool.lab.faults import parse_groups, partition_pairs, rules
from carpool.lab.waiting import LabError

NODES = ("alpha", "bravo", "charlie")


@pytest.mark.parametrize(
    "words",
    [["alpha,bravo", "/", "charlie"], ["alpha", "bravo/charlie"], ["alpha, bravo / charlie"]],
)
def test_sides_are_read(words: list[str]) -> None:
    """Commas, blanks and how the shell split the words make no difference."""
    assert parse_groups(words, NODES) == [["alpha", "bravo"], ["charlie"]]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["alpha,bravo"], "slash"),
        (["alpha", "/"], "slash"),
        (["alpha / delta"], "no node 'delta'"),
        (["alpha,bravo / alpha"], "two sides"),
    ],
)
def test_wrong_sides_are_refused(words: list[str], reason: str) -> None:
    """What is no partition is refused with its reason."""
    with pytest.raises(LabError, match=reason):
        parse_groups(words, NODES)


def test_pairs_go_both_ways() -> None:
    """Two sides of two and one give four ways; none within a side."""
    pairs = partition_pairs([["alpha", "bravo"], ["charlie"]])
    assert sorted(pairs) == [
        ("alpha", "charlie"),
        ("bravo", "charlie"),
        ("charlie", "alpha"),
        ("charlie", "bravo"),
    ]


def test_rules_name_pairs_and_shares() -> None:
    """Cut pairs and losses stand in the rules; a healed port does not."""
    text = rules([("sw0pt0", "sw0pt1")], {"sw0pt2": 0.3, "sw0pt0": 0.0})
    assert '"sw0pt0" . "sw0pt1"' in text
    assert 'iifname "sw0pt2" numgen random mod 10000 < 3000 drop' in text
    assert 'iifname "sw0pt0" numgen' not in text


def test_rules_without_faults_replace_the_table() -> None:
    """Healing is the same transaction with nothing in it."""
    text = rules([], {})
    assert text.startswith("table bridge lab\ndelete table bridge lab\n")
    assert "elements" not in text
