"""Who is master, who stands by, and the exit code of it; the sentences are in the transcripts."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from carpool.control.explanation import explain
from carpool.control.messages import ControlError
from carpool.control.verdict import judge, masters, revisions, standby
from carpool.engine import snapshot

Change = Callable[[dict[str, Any]], object]


def _edge(status: dict[str, Any], **members: object) -> None:
    """Change members of the group."""
    status["groups"][0].update(members)


def _claim(status: dict[str, Any], **members: object) -> None:
    """Change what the first peer claims."""
    status["peers"][0]["claims"]["edge"].update(members)


def _bravo(status: dict[str, Any], **members: object) -> None:
    """Change members of the first peer."""
    status["peers"][0].update(members)


def test_the_sample_has_the_snapshot_s_members(status: dict[str, Any]) -> None:
    """The status these tests start from has exactly the members of engine/snapshot.py."""
    peer, group = status["peers"][0], status["groups"][0]
    for kind, value in (
        (snapshot.NodeSnapshot, status),
        (snapshot.GroupSnapshot, group),
        (snapshot.PeerSnapshot, peer),
        (snapshot.PathSnapshot, peer["paths"][0]),
        (snapshot.ClaimSnapshot, peer["claims"]["edge"]),
    ):
        assert [field.name for field in fields(kind)] == list(value)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (0, lambda _status: None),
        (0, lambda status: status.update(warnings=["gate nft is weaker"])),
        (0, lambda status: status.update(peers=[])),
        (3, lambda status: _bravo(status, up=False, heard_at=0)),
        (3, lambda status: _bravo(status, revision="77c0")),
        (3, lambda status: _edge(status, standby=[])),
        (3, lambda status: status.update(paused=True)),
        (3, lambda status: _claim(status, paused=True)),
        (3, lambda status: _claim(status, ready=False)),
        (3, lambda status: _bravo(status, states={"edge": "INIT"})),
        (3, lambda status: _edge(status, conflict={"192.0.2.10": "02:00:00:00:00:09"})),
        (3, lambda status: status.update(at=status["at"] - 60_000_000_000)),
        (3, lambda status: (_edge(status, state="INIT", master="bravo"), _serving(status))),
        (4, lambda status: _bravo(status, states={"edge": "MASTER"})),
        (4, lambda status: _edge(status, lease_until=0)),
        (4, lambda status: _edge(status, state="BACKUP", master="", master_heard_at=0)),
        (4, lambda status: _edge(status, state="INIT", master="")),
        (4, lambda status: (_edge(status, state="INIT", master=""), _bravo(status, up=False))),
    ],
)
def test_each_fact_has_its_code(status: dict[str, Any], code: int, change: Change) -> None:
    """0 ok, 3 degraded, 4 down or split; the worst wins and stands first."""
    now = status["at"] + 100_000_000
    change(status)
    verdict = judge(status, now)
    assert verdict.code == code, verdict
    assert [reason.code for reason in verdict.reasons] == sorted(
        (reason.code for reason in verdict.reasons), reverse=True
    )


def _serving(status: dict[str, Any]) -> None:
    """Make bravo the master."""
    _bravo(status, states={"edge": "MASTER"})


def test_a_backup_knows_the_master_from_the_peer_link(
    status: dict[str, Any], group: dict[str, Any]
) -> None:
    """As backup the node that says MASTER over the peer link is the master."""
    group.update(state="BACKUP", master="", master_heard_at=0, standby=["charlie"])
    _serving(status)
    assert masters(status, group) == ["bravo"]
    assert standby(status, group) == ["alpha", "charlie"]
    group["demotion"] = 1
    assert standby(status, group) == ["charlie", "alpha"]


def test_a_foreign_master_counts_while_it_is_heard(
    status: dict[str, Any], group: dict[str, Any]
) -> None:
    """A machine without peer link is master by its advertisements, until they are too old."""
    group.update(state="BACKUP", master="192.0.2.99", master_heard_at=status["at"] - 1_000_000_000)
    assert masters(status, group) == ["192.0.2.99"]
    group["master_heard_at"] = status["at"] - group["master_down_ns"] - 1
    assert masters(status, group) == []


def test_a_peer_that_is_down_is_no_master(status: dict[str, Any], group: dict[str, Any]) -> None:
    """What a peer said before its link went down does not count."""
    _bravo(status, up=False, states={"edge": "MASTER"})
    assert masters(status, group) == ["alpha"]


def test_a_pause_is_the_same_news_on_every_node(
    status: dict[str, Any], group: dict[str, Any]
) -> None:
    """The node that is paused and a node that only hears of it say the same sentence."""
    _bravo(status, states={"edge": "INIT"})
    _claim(status, paused=True, ready=False)
    group["standby"] = ["charlie"]
    elsewhere = judge(status, status["at"])
    status.update(node="bravo", paused=True)
    group.update(state="INIT", paused=True, lease_until=0)
    _bravo(status, node="alpha", states={"edge": "MASTER"})
    _claim(status, paused=False)
    assert judge(status, status["at"]) == elsewhere
    (reason,) = elsewhere.reasons
    assert reason == (3, "out: bravo is paused until `carpool resume` on it")


def test_a_master_is_not_called_unready(status: dict[str, Any]) -> None:
    """A master takes nothing over, so its claim of not being ready is no fault."""
    _serving(status)
    _claim(status, ready=False)
    _edge(status, state="BACKUP", lease_until=0, standby=["charlie"])
    assert judge(status, status["at"]).reasons == ()
    sentences: Any = explain(status, "edge", status["at"])["sentences"]
    assert "not ready" not in " ".join(sentences)


def test_unknown_revisions_do_not_differ(status: dict[str, Any]) -> None:
    """A peer never heard of has no revision to differ with."""
    _bravo(status, revision="")
    assert revisions(status) == {"alpha": "1f3a5c7e9b0d", "charlie": "1f3a5c7e9b0d"}


def test_explain_names_the_groups_there_are(status: dict[str, Any]) -> None:
    """An unknown group is refused with the names of those that exist."""
    with pytest.raises(ControlError, match=r"no group egde \(groups: edge\)"):
        explain(status, "egde", status["at"])
