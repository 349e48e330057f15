"""What the lab found and a brain alone can show: late messages, floods, groups tied together."""

from dataclasses import replace
from ipaddress import IPv4Address

from tests.unit.engine.bench import ALPHA, BRAVO, FACTS, INSTANCES, Bench, told, with_parameters

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.election.parameters import Kind, Member
from carpool.engine.effects import Send
from carpool.engine.events import Ordered, Tick
from carpool.wire.link import LinkClosed
from carpool.wire.peer import Accept, Heartbeat, Offer, Refuse, Request, Transfer

BOTH = ("edge", "inside")
NOWHERE = IPv4Address(0)


def test_old_offer_over_a_slow_path():
    """An Offer and its Transfer that come again, long after, over another path, move nothing."""
    bench = Bench("bravo")
    bench.link("alpha")
    bench.report("alpha", "MASTER")
    offer = Offer("edge", 5, "step-down", hold=False)
    assert told(bench.hear("alpha", offer), Accept)
    bench.run(NS_PER_S)
    assert bench.state() == "BACKUP"
    assert bench.hear("alpha", offer, "path1") == []
    bench.hear("alpha", Transfer("edge", 5), "path1")
    assert bench.state() == "BACKUP"
    assert told(bench.hear("alpha", replace(offer, serial=6)), Accept)


def test_offer_after_a_reboot():
    """A node that was lost and came back counts its offers anew; they are taken."""
    bench = Bench("bravo")
    bench.link("alpha")
    bench.report("alpha", "MASTER")
    bench.hear("alpha", Offer("edge", 1_000_000, "step-down", hold=False))
    bench.run(NS_PER_S)
    bench.handle(LinkClosed("alpha", "path0", INSTANCES["alpha"], "silence", "nothing heard"))
    bench.link("alpha", instance=b"z" * 16)
    bench.report("alpha", "MASTER")
    assert told(bench.hear("alpha", Offer("edge", 7, "step-down", hold=False)), Accept)


def test_refusal_of_something_else():
    """Only the refusal of our own Request keeps us from asking again soon."""
    bench = Bench("alpha")
    bench.link()
    bench.report("bravo", "MASTER")
    ((_, request),) = told(bench.advert(advskew=10), Request)
    bench.hear("bravo", Refuse("edge", request.serial - 1, "an older matter"))
    bench.run(300 * NS_PER_MS)
    ((_, again),) = told(bench.advert(advskew=10), Request)
    bench.hear("bravo", Refuse("edge", again.serial, "not now"))
    bench.run(300 * NS_PER_MS)
    assert told(bench.advert(advskew=10), Request) == []


def test_flooded_master_goes_on():
    """With unheard packets before it, a master advertises on time and a backup judges nobody."""
    bench = Bench().master()
    bench.now = bench.engine.deadline
    while not [e for e in bench.handle(Tick(judge=False)) if isinstance(e, Send)]:
        bench.now = bench.engine.deadline
    assert bench.state() == "MASTER"
    bench = Bench("bravo")
    bench.now = bench.engine.deadline + 4 * NS_PER_S
    bench.handle(Tick(judge=False))
    assert bench.state() == "BACKUP"
    bench.run(20 * NS_PER_S)
    assert bench.state() == "MASTER"


def test_demotion_of_a_set():
    """Groups that move together are demoted together, so that each node wants all or none."""
    bench = Bench(groups=BOTH).master()
    bench.handle(Ordered(1, "demote", "inside", "4", "root"))
    bench.handle(Ordered(2, "demote", "edge", "3", "root"))
    assert {bench.standing(group).demotion for group in BOTH} == {7}


def test_a_follower_does_not_preempt():
    """A group whose leader is mastered elsewhere asks for nothing, however much better it is."""
    bench = Bench("alpha", groups=BOTH)
    bench.link()
    for group in BOTH:
        bench.report("bravo", "MASTER", group=group)
    assert told(bench.advert(advskew=10, group="inside"), Request) == []
    assert told(bench.advert(advskew=10, group="edge"), Request)


def test_a_follower_stays_with_its_leader():
    """A better node that asks for a follower is refused while its leader is mastered here."""
    bench = Bench("bravo", groups=BOTH).master()
    bench.link("alpha")
    for group in BOTH:
        bench.report("alpha", group=group, advskew=0)
    asked = bench.hear("alpha", Request("inside", 9, "preempt: advskew 0 < 10"))
    assert told(asked, Refuse)
    assert told(asked, Offer) == []


def test_nodes_without_an_address():
    """Who sends from 0.0.0.0 is known by its report; of several, by its pace."""
    bench = Bench("alpha", nodes=3)
    for node in ("bravo", "charlie"):
        bench.link(node)
        bench.report(node, sources=("0.0.0.0",))
    for skew, node in ((10, "bravo"), (20, "charlie"), (30, "")):
        bench.advert(source=NOWHERE, advskew=skew)
        assert bench.standing().master.node == node
    own = Bench(start=False)
    own.see(replace(FACTS, v4=None))
    own.link()
    beats = told(own.run(NS_PER_S), Heartbeat)
    assert beats[0][1].groups[0].sources[0] == "0.0.0.0"


def test_foreign_members_have_our_counters():
    """A ucarp that counts on from what it heard of us is no loop; our own address is one."""
    setup = with_parameters(
        Bench().setup, members=(Member("192.0.2.12", Kind.UCARP, 1, 10, 1),), preempt=True
    )
    bench = Bench(setup=setup).master()
    used = bench.engine.node.groups["edge"].own_counters[-1]
    bench.advert(source=BRAVO, advskew=0, counter=used, demote=0)
    assert (bench.count("reject.loop"), bench.count("heard.edge")) == (0, 1)
    bench.advert(source=ALPHA, advskew=0, counter=used)
    assert bench.count("reject.loop") == 1


def test_since_the_start():
    """A group that never changed its role is what it is since the start."""
    bench = Bench(start=False)
    assert bench.standing().since == bench.now
