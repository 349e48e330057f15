"""What is wrong is left out, the rest is judged, and places are those of the file."""

import tomllib
from pathlib import Path as File

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.config.mending import mend
from carpool.config.model import Hot
from carpool.config.parse import parse, survey
from carpool.config.problems import ConfigErrors

MINIMAL = (File(__file__).parents[3] / "examples" / "minimal.toml").read_text()
BASE = ("hot", "edge")


def hot(**changes: object) -> dict[str, object]:
    """Return the table of the minimal file's group with some values changed."""
    return {**tomllib.loads(MINIMAL)["hot"]["edge"], **changes}


def test_the_example_of_the_review() -> None:
    """A misspelt node and a number out of range in one group are both said."""
    text = MINIMAL.replace('"bravo"]', '"brvao"]').replace("vhid = 1", "vhid = 500")
    with pytest.raises(ConfigErrors) as caught:
        parse(text, "x")
    assert [it.path for it in caught.value.problems] == ["hot.edge.vhid", "hot.edge.nodes[1]"]


def test_values_of_a_list_are_left_out_one_by_one() -> None:
    """The good ones stay, and it is known where in the file they are."""
    mended = mend(hot(nodes=[1, "alpha", "", "bravo"]), BASE, Hot)
    assert mended.made is not None
    assert mended.made.nodes == ("alpha", "bravo")
    assert mended.origins == {(*BASE, "nodes"): (1, 3)}
    assert mended.left_out == {(*BASE, "nodes", 0), (*BASE, "nodes", 2)}


def test_what_is_left_of_a_list_is_validated_with_the_places_of_the_file() -> None:
    """A second look at a shortened list does not move what it finds."""
    text = MINIMAL + 'peers = [1, { kind = "ucarp", unicast = "192.0.2.9" }, { kind = 2 }]\n'
    found = survey(text, "x").errors()
    assert [it.path for it in found] == [
        "hot.edge.peers[0]",
        "hot.edge.peers[1].unicast",
        "hot.edge.peers[2].kind",
    ]


def test_a_stand_in_is_empty_where_it_can_be() -> None:
    """No rule takes the address or the file that stands in for a wrong one for a real one."""
    mended = mend(hot(addresses="x", nodes=[], password_file=1, vhid="x"), BASE, Hot)
    assert mended.made is not None
    assert (mended.made.addresses, mended.made.nodes, mended.made.password_file) == ((), (), "")
    assert len(mended.findings) == 4


def test_the_table_itself_is_not_changed() -> None:
    """The document is as it was, for who reads it next."""
    table = hot(nodes=[1, "alpha"], x=1)
    mend(table, BASE, Hot)
    assert table == hot(nodes=[1, "alpha"], x=1)


JUNK = {
    "vhid": 0,
    "interface": "",
    "addresses": [1, "192.0.2.10/24"],
    "nodes": [2, "alpha", "nobody"],
    "password_file": "x",
    "interval": 5,
    "margin": "x",
    "peers": [3, {"kind": "x"}],
    "node": {"alpha": {"advskew": 999}, "bravo": 4},
    "gate": "x",
}


@given(st.sets(st.sampled_from(sorted(JUNK))))
def test_each_wrong_field_is_found_whatever_else_is_wrong(keys: set[str]) -> None:
    """What is said of a field does not depend on which others are wrong with it."""
    mended = mend(hot(**{key: JUNK[key] for key in keys}), BASE, Hot)
    assert mended.made is not None
    expected = [it for key in keys for it in mend(hot(**{key: JUNK[key]}), BASE, Hot).findings]
    assert set(mended.findings) == set(expected)
    assert len(mended.findings) == len(expected)
