"""What a closed connection proves and what it does not, and what heartbeats are worth."""

import pytest
from tests.unit.engine.bench import ALPHA, INSTANCES, Bench, journal, told

from carpool.base.errors import Reject
from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.engine.effects import Send
from carpool.wire.link import LinkClosed, PeerRefused, PeerRestarted, Rejected
from carpool.wire.peer import Goodbye, Heartbeat, Request

NEW = b"n" * 16


def close(bench, how="fin", path="path0", node="alpha"):
    """Let a path of a node be closed."""
    return bench.handle(LinkClosed(node, path, how, INSTANCES[node], ""))


def refuse(bench, path="path0", node="alpha"):
    """Let a fresh connection be refused."""
    return bench.handle(PeerRefused(node, path))


def standby(paths=("path0",)):
    """Return bravo, who stands by for alpha, at the other end of a link."""
    bench = Bench("bravo")
    for path in paths:
        bench.link("alpha", path=path)
    bench.report("alpha", "MASTER")
    bench.advert(advskew=0, source=ALPHA)
    return bench


def sends(effects):
    """Return the advertisements among effects."""
    return [effect for effect in effects if isinstance(effect, Send)]


def test_closed_and_refused_is_proof():
    """The master's kernel closed the link and refuses another one: take over 2 ms later."""
    bench = standby()
    close(bench)
    refuse(bench)
    assert bench.state() == "BACKUP"
    bench.run(2 * NS_PER_MS)
    assert bench.state() == "MASTER"
    assert not bench.standing().serving  # it listens before it serves
    bench.run(4 * NS_PER_MS)
    assert bench.standing().serving


def test_a_forged_reset_moves_nothing():
    """A RST that somebody forged: the same process answers the next connection."""
    bench = standby()
    close(bench, "reset")
    bench.link("alpha")
    asked = bench.run(100 * NS_PER_MS)
    assert bench.state() == "BACKUP"
    assert sends(asked) == []
    close(bench, "reset")  # and a second one long after does not hasten anything either
    bench.link("alpha")
    assert bench.state() == "BACKUP"


def test_a_close_alone_is_no_proof():
    """What nothing explains within a second makes the node unknown, not dead."""
    bench = standby()
    close(bench)
    assert "alpha" in bench.standing().peers
    bench.run(NS_PER_S)
    assert "alpha" not in bench.standing().peers
    assert bench.state() == "BACKUP"


def test_refused_while_another_path_lives():
    """A refusal on one path proves nothing while the node speaks on another."""
    bench = standby(("path0", "path1"))
    close(bench)
    refuse(bench)
    bench.run(100 * NS_PER_MS)
    assert bench.state() == "BACKUP"
    close(bench, path="path1")  # the other one closes as well: now it is proof
    bench.run(3 * NS_PER_MS)
    assert bench.state() == "MASTER"


def test_an_old_refusal_does_not_make_silence_a_death():
    """A refusal on one path, long before, and silence on the last one: that is no proof."""
    bench = standby(("path0", "path1"))
    close(bench, "reset")
    refuse(bench)
    close(bench, "timeout", "path1")
    bench.run(100 * NS_PER_MS)
    assert bench.state() == "BACKUP"
    assert "alpha" not in bench.standing().peers


@pytest.mark.parametrize("how", ["timeout", "error", "goodbye"])
def test_silence_and_goodbye(how):
    """A path that ends in these ways says nothing about the process; it is forgotten."""
    bench = standby()
    close(bench, how)
    assert refuse(bench) == []
    bench.run(100 * NS_PER_MS)
    assert bench.state() == "BACKUP"
    assert "alpha" not in bench.standing().peers


@pytest.mark.parametrize("how", ["fin", "timeout", "goodbye"])
def test_a_path_of_two(how):
    """One of two paths going away changes nothing but what is known about that path."""
    bench = standby(("path0", "path1"))
    close(bench, how)
    bench.run(2 * NS_PER_S)
    assert "alpha" in bench.standing().peers
    assert bench.engine.node.peers["alpha"].up


def test_closing_what_is_not_up():
    """Ends of paths that were not up, and refusals of strangers, are nothing."""
    bench = Bench("bravo")
    assert close(bench) == []
    assert refuse(bench, node="charlie") == []
    assert refuse(bench) == []


def test_a_restart_is_proof_too():
    """The link closed and another process answers: the old master has ended."""
    bench = standby()
    close(bench)
    bench.now += 30 * NS_PER_MS
    bench.handle(PeerRestarted("alpha", "path0", INSTANCES["alpha"], NEW))
    bench.link("alpha", instance=NEW)
    bench.run(0)
    assert bench.state() == "MASTER"


def test_a_restart_that_tells_of_the_end_late():
    """A machine switched off and on again may be master anew before the old process is missed."""
    bench = standby()
    close(bench, "reset")
    bench.handle(PeerRestarted("alpha", "path0", INSTANCES["alpha"], NEW))
    bench.link("alpha", instance=NEW)
    bench.run(100 * NS_PER_MS)
    assert bench.state() == "BACKUP"


def test_another_instance_without_a_word():
    """Another instance on a path is a restart even when nobody said so."""
    bench = standby()
    bench.link("alpha", path="path1", instance=NEW)
    assert bench.engine.node.peers["alpha"].paths == {"path1": NEW}
    assert "alpha" not in bench.standing().peers


def test_heartbeats_overtake_each_other():
    """Of two heartbeats over two paths the newer one counts, whatever comes later."""
    bench = standby(("path0", "path1"))
    bench.report("alpha", "BACKUP", sent_at=2_000_000 + bench.now)
    bench.report("alpha", "MASTER", sent_at=1_000_000 + bench.now)
    assert str(bench.standing().peers["alpha"].state) == "BACKUP"


def test_another_revision_is_said_once():
    """A node with another configuration is noted when it says so, and shown in the snapshot."""
    bench = standby()
    noted = journal(bench.report("alpha", "MASTER", revision="8"))
    assert noted == ["alpha runs configuration 8, we run 7"]
    assert not bench.standing().peers["alpha"].same_file
    assert journal(bench.report("alpha", "MASTER", revision="8")) == []
    bench.report("alpha", "MASTER", revision="7")
    assert bench.standing().peers["alpha"].same_file


def test_reports_that_do_not_concern_us():
    """Unknown groups, and nodes that are no members, are left alone."""
    bench = Bench("bravo")
    bench.report("alpha", "MASTER", group="other")
    assert bench.standing().peers == {}
    bench.report("charlie", "MASTER")
    assert bench.standing().peers == {}
    assert bench.hear("alpha", Request("other", 1, "")) == []
    assert bench.count("peer.unknown-group") == 1
    assert bench.hear("alpha", Goodbye("stopping")) == []


def test_rejected_connections_are_counted():
    """What the link's driver refused is counted by its reason."""
    bench = Bench()
    assert bench.handle(Rejected(Reject.PEER_MAC, "192.0.2.77")) == []
    assert bench.count("reject.peer-mac") == 1


def test_our_own_heartbeats():
    """A node tells its state at every change and twice a second."""
    bench = Bench()
    ((to, first),) = told(bench.effects, Heartbeat)
    assert to == ""
    assert (first.revision, first.groups[0].state) == ("7", "BACKUP")
    assert first.groups[0].sources == ("192.0.2.11", "fe80::11")
    beats = told(bench.run(2 * NS_PER_S), Heartbeat)
    assert len(beats) == 4
    bench.report("bravo", "MASTER")
    bench.advert()
    ((_, beat),) = told(bench.run(500 * NS_PER_MS), Heartbeat)[:1]
    assert beat.groups[0].hears == "bravo"
    late = told(bench.run(3 * NS_PER_S), Heartbeat)
    assert late[-2][1].groups[0].hears == ""  # not heard for a master-down time
