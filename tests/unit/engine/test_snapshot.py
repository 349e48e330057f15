"""The snapshot: what `status` is made of, and the warnings in words."""

import json

from tests.unit.engine.bench import ALPHA, BRAVO, INSTANCES, Bench, with_group, with_parameters

from carpool.base.time import NS_PER_S
from carpool.election.parameters import Kind, Member
from carpool.engine.events import Ordered, Tick
from carpool.engine.snapshot import to_json
from carpool.wire import arp
from carpool.wire.link import LinkClosed
from carpool.wire.peer import Offer, Transfer


def snap(bench, gate="bpf"):
    """Return the snapshot and its only group."""
    found = bench.engine.snapshot(bench.now, gate)
    return found, found.groups[0]


def test_of_a_master():
    """A master names itself, its lease and who stands by."""
    bench = Bench().master()
    bench.link()
    bench.report()
    found, group = snap(bench)
    assert (found.site, found.node, found.revision, found.paused) == (
        "example",
        "alpha",
        "7",
        False,
    )
    assert (group.state, group.master, group.master_heard_at) == ("MASTER", "alpha", 0)
    assert group.lease_until == bench.standing().lease_until > bench.now
    assert group.standby == ("bravo",)
    assert (group.interval_ns, group.master_down_ns) == (NS_PER_S, 3 * NS_PER_S)
    (peer,) = found.peers
    assert (peer.node, peer.up, peer.revision, peer.states) == (
        "bravo",
        True,
        "7",
        {"edge": "BACKUP"},
    )
    assert peer.claims["edge"].advskew == 10
    assert json.loads(json.dumps(to_json(found)))["groups"][0]["state"] == "MASTER"


def test_of_a_claim():
    """While a master only listens its gate is shut, and the snapshot says so."""
    bench = Bench()
    bench.run(3 * NS_PER_S)
    assert snap(bench)[1].state == "MASTER"
    assert snap(bench)[1].lease_until == 0


def test_of_a_backup():
    """A backup names its master, when it was heard and what it claimed."""
    bench = Bench("bravo")
    bench.advert(source=ALPHA, advskew=0)
    _, group = snap(bench)
    assert (group.state, group.master, group.lease_until) == ("BACKUP", "alpha", 0)
    assert group.master_heard_at == bench.now
    assert group.master_claims == (1, 0, 0)
    found, _ = snap(bench)
    assert (found.peers[0].up, found.peers[0].heard_at) == (False, 0)


def test_nobody():
    """Without a master the place is empty."""
    group = snap(Bench(start=False))[1]
    assert (group.state, group.master, group.master_claims) == ("INIT", "", None)


def test_conflict():
    """Another owner is shown for a minute."""
    bench = Bench().master()
    bench.run(NS_PER_S)
    bench.neighbour(arp.gratuitous(b"\2\0\0\0\0\7", bench.setup.groups[0].v4[0]))
    assert snap(bench)[1].conflict == {"192.0.2.101": "02:00:00:00:00:07"}
    bench.run(61 * NS_PER_S)
    assert snap(bench)[1].conflict == {}


def test_conflict_ends_with_mastership():
    """Who is not master has no conflict to show: the other owner may be the new master."""
    bench = Bench().master()
    bench.run(NS_PER_S)
    bench.neighbour(arp.gratuitous(b"\2\0\0\0\0\7", bench.setup.groups[0].v4[0]))
    assert snap(bench)[1].conflict
    bench.handle(Ordered(1, "demote", "edge", "4", "anna"))
    bench.advert()
    assert snap(bench)[1].state == "BACKUP"
    assert snap(bench)[1].conflict == {}


def test_lateness():
    """How late the brain was called is kept as a counter."""
    bench = Bench()
    assert bench.engine.deadline is not None
    bench.now = type(bench.now)(bench.standing().master_down_at + 7_000_000)
    bench.handle(Tick())
    assert snap(bench)[0].counters["elect.lateness-ns-max"] == 7_000_000


def test_warnings():
    """A master that lives on the peer link only is a warning; a healthy group has none."""
    bench = Bench("bravo")
    assert snap(bench)[1].warnings == ()
    bench.link("alpha")
    for _ in range(5):
        bench.report("alpha", "MASTER")
        bench.run(NS_PER_S)
    texts = " ".join(snap(bench)[1].warnings)
    assert "advertisements of alpha are not heard on eth0" in texts


def test_warning_of_demotion_and_foreign_members():
    """A demotion and CARP's own weakness are shown."""
    base = Bench()
    member = Member("192.0.2.99", Kind.OPENBSD, 1, 200, 9)
    members = (*base.setup.groups[0].parameters.members, member)
    bench = Bench(setup=with_parameters(base.setup, members=members))
    bench.handle(Ordered(1, "demote", "edge", "4", "anna"))
    texts = " ".join(snap(bench)[1].warnings)
    assert "can be altered and replayed" in texts


def test_warning_of_an_unheard_master():
    """A master that two standbys do not hear says so."""
    bench = Bench(nodes=3).master()
    for name in ("bravo", "charlie"):
        bench.link(name)
        bench.report(name, hears="")
    bench.run(2 * NS_PER_S)
    assert "no standby hears our advertisements" in snap(bench)[1].warnings


def test_warning_of_a_held_group():
    """A group that an operator moved here stays, and that is said."""
    bench = Bench("bravo")
    bench.link("alpha")
    bench.report("alpha", "MASTER")
    bench.hear("alpha", Offer("edge", 7, "step-down by anna", hold=True))
    bench.hear("alpha", Transfer("edge", 7))
    assert "moved here to stay" in " ".join(snap(bench)[1].warnings)
    bench.report("alpha", demote=9)
    assert bench.standing().held
    assert snap(bench)[1].warnings == ()


def test_no_warning_where_the_best_is_held():
    """A group held by the best-ranked node is where it belongs."""
    bench = Bench()
    bench.link()
    bench.report("bravo", "MASTER")
    bench.hear("bravo", Offer("edge", 7, "step-down by anna", hold=True))
    bench.hear("bravo", Transfer("edge", 7))
    assert bench.standing().held
    assert snap(bench)[1].warnings == ()


def test_warning_of_the_weaker_gate():
    """The nft gate is called the weaker one."""
    (warning,) = snap(Bench(), "nft")[0].warnings
    assert "weaker than BPF: it may shut up to 15 ms late" in warning
    assert snap(Bench())[0].warnings == ()


def test_paths():
    """Each path of the peer link is shown, up or down, and since when."""
    bench = Bench()
    bench.link("bravo", path=str(BRAVO))
    (peer,) = snap(bench)[0].peers
    assert [(path.path, path.up, path.since) for path in peer.paths] == [
        (str(BRAVO), True, bench.now)
    ]
    bench.handle(LinkClosed("bravo", str(BRAVO), "timeout", INSTANCES["bravo"], ""))
    (peer,) = snap(bench)[0].peers
    assert not peer.up


def test_addresses():
    """The addresses are shown as they were written."""
    bench = Bench(setup=with_group(Bench().setup, addresses=("192.0.2.101/24",)))
    assert snap(bench)[1].addresses == ("192.0.2.101/24",)
