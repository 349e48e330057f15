"""Orders and their answers: each is answered exactly once, with what came of it."""

import pytest
from tests.unit.engine.bench import Bench, answers, journal, told
from tests.unit.pair.sites import SLOW

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.engine.effects import Finished, Remember
from carpool.engine.events import Ordered, StopOrdered
from carpool.wire.peer import Accept, Goodbye, Heartbeat, Offer, Refuse, Taken, Transfer


def order(bench, verb, group="", argument="", number=1):
    """Give an order."""
    return bench.handle(Ordered(number, verb, group, argument, "anna"))


def serving(nodes=2, **options):
    """Return a master whose standbys are ready."""
    bench = Bench(nodes=nodes, **options).master()
    for name in ("bravo", "charlie")[: nodes - 1]:
        bench.link(name)
        bench.report(name)
    return bench


def accept(bench, effects, node="bravo"):
    """Let a standby accept what was offered and serve."""
    ((_, offer),) = told(effects, Offer)
    asked = bench.hear(node, Accept("edge", offer.serial))
    assert [to for to, _ in told(asked, Transfer)] == [node]
    return bench.hear(node, Taken("edge", offer.serial))


def test_step_down():
    """A step-down is answered when the successor serves, not before."""
    bench = serving()
    offered = order(bench, "step-down", "edge")
    assert answers(offered) == []
    assert answers(accept(bench, offered)) == [(1, True, "edge: bravo: taken")]
    assert bench.state() == "BACKUP"
    assert answers(bench.run(5 * NS_PER_S)) == []


def test_step_down_to():
    """The named node gets it though another would be preferred."""
    bench = serving(3)
    offered = order(bench, "step-down", "edge", "charlie")
    assert [node for node, _ in told(offered, Offer)] == ["charlie"]
    assert answers(accept(bench, offered, "charlie")) == [(1, True, "edge: charlie: taken")]


def test_step_down_goes_on_to_the_next():
    """A refusal is no answer while another standby is asked."""
    bench = serving(3)
    ((_, offer),) = told(order(bench, "step-down", "edge"), Offer)
    asked = bench.hear("bravo", Refuse("edge", offer.serial, "no"))
    assert answers(asked) == []
    assert answers(accept(bench, asked, "charlie")) == [(1, True, "edge: charlie: taken")]


def test_step_down_that_fails():
    """When nobody takes it the answer says so, and the node serves on."""
    bench = serving()
    order(bench, "step-down", "edge")
    asked = bench.run(200 * NS_PER_MS)
    assert [(number, ok) for number, ok, _ in answers(asked)] == [(1, False)]
    assert bench.standing().serving


def test_step_down_without_an_outcome():
    """An order is answered within two seconds in any case."""
    bench = serving()
    ((_, offer),) = told(order(bench, "step-down", "edge"), Offer)
    bench.advert(advskew=0, advbase=0)  # a better master appears: the offer is void
    assert bench.state() == "BACKUP"
    assert bench.hear("bravo", Accept("edge", offer.serial)) == []
    asked = bench.run(3 * NS_PER_S)
    assert answers(asked) == [(1, False, "edge: no outcome in time")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("step-down", "other"), "no group 'other' on this node (groups: edge)"),
        (("step-down", "edge", "charlie"), "charlie cannot take edge over (ready: bravo)"),
        (("demote", "other", "1"), "no group 'other' on this node (groups: edge)"),
        (("demote", "edge", "many"), "'many' is not a number"),
        (("demote", "edge", "256"), "a demotion is 0 to 255, not 256"),
        (("demote", "edge", "-1"), "a demotion is 0 to 255, not -1"),
    ],
)
def test_refusals(arguments, text):
    """What cannot be done is refused at once, with the reason, and journalled."""
    bench = serving()
    asked = order(bench, *arguments)
    assert answers(asked) == [(1, False, text)]
    assert [line for line in journal(asked) if line.endswith(text)]
    assert bench.standing().serving


def test_step_down_of_a_backup():
    """A node that does not serve says who does."""
    bench = Bench("bravo")
    assert answers(order(bench, "step-down", "edge")) == [
        (1, False, "bravo is BACKUP for edge; nobody is its master")
    ]
    bench.report("alpha", "MASTER")
    assert answers(order(bench, "step-down", "edge"))[0][2].endswith("alpha is its master")


def test_step_down_without_a_standby():
    """Nobody is there to take it over."""
    bench = Bench().master()
    assert answers(order(bench, "step-down", "edge")) == [
        (1, False, "no standby is ready to take edge over")
    ]


def test_demote():
    """A demotion is set, added to, told at once and remembered."""
    bench = serving()
    asked = order(bench, "demote", "edge", "5")
    assert answers(asked) == [(1, True, "demotion of edge is 5")]
    assert [effect for effect in asked if isinstance(effect, Remember)] == [
        Remember(paused=False, demotions={"edge": 5})
    ]
    asked = order(bench, "demote", "edge", "+2")
    assert bench.standing().demotion == 7
    assert told(asked, Heartbeat)[-1][1].groups[0].demote == 7
    order(bench, "demote", "edge", "-7")
    assert bench.standing().demotion == 0


def test_pause_and_resume():
    """A pause hands over, is answered when that is done, stays over interface events, and ends."""
    bench = serving()
    offered = order(bench, "pause")
    assert Remember(paused=True, demotions={}) in offered
    assert answers(accept(bench, offered)) == [(1, True, "paused: everything is handed over")]
    assert bench.state() == "INIT"
    bench.see(None)
    bench.see(bench.engine.node.facts["eth0"])
    assert bench.state() == "INIT"
    assert answers(order(bench, "pause", number=2)) == [(2, True, "already paused")]
    asked = order(bench, "resume", number=3)
    assert answers(asked) == [(3, True, "takes part again")]
    assert Remember(paused=False, demotions={}) in asked
    assert answers(order(bench, "resume", number=4)) == [(4, True, "was not paused")]


def test_resume_sees_the_interface_again():
    """After a resume the node listens at once."""
    bench = Bench("bravo")
    order(bench, "pause")
    assert bench.state() == "INIT"
    order(bench, "resume")
    assert bench.state() == "BACKUP"


def test_pause_is_refused_without_a_standby():
    """Maintenance that would end the service needs to be forced."""
    bench = Bench().master()
    assert answers(order(bench, "pause")) == [
        (1, False, "no standby is ready to take edge over (--force pauses anyway)")
    ]
    assert bench.standing().serving
    asked = order(bench, "pause", argument="force", number=2)
    assert answers(asked) == [(2, True, "paused: everything is handed over")]
    assert bench.state() == "INIT"


def test_a_pause_that_cannot_finish():
    """A pause is answered in time though nobody takes the group; the node then bows out."""
    bench = serving()
    order(bench, "pause")
    bench.now += 3 * NS_PER_S  # nothing is handled meanwhile
    asked = bench.run(0)
    assert [(number, ok) for number, ok, _ in answers(asked)] in ([(1, True)], [(1, False)])


def test_a_paused_start():
    """A pause and demotions survive a restart of the daemon."""
    bench = Bench(paused=True, demotions={"edge": 3})
    assert bench.state() == "INIT"
    assert bench.standing().demotion == 3
    order(bench, "resume")
    assert bench.state() == "BACKUP"


def test_stop():
    """A stop hands over, says goodbye and finishes."""
    bench = serving()
    offered = bench.handle(StopOrdered())
    asked = accept(bench, offered)
    assert [effect for effect in asked if isinstance(effect, Finished)]
    assert told(asked, Goodbye)
    assert isinstance(asked[-1], Finished)  # the last heartbeat goes before the goodbye
    assert bench.state() == "INIT"


def test_stop_of_a_backup_is_immediate():
    """Who serves nothing has nothing to hand over."""
    assert Finished() in Bench("bravo").handle(StopOrdered())


def test_stop_takes_a_second_at_most():
    """Whatever the peers do, the process ends."""
    bench = serving(speed=SLOW)
    offered = bench.handle(StopOrdered())
    ((_, offer),) = told(offered, Offer)
    bench.hear("bravo", Accept("edge", offer.serial))
    asked = bench.run(NS_PER_S)
    assert [effect for effect in asked if isinstance(effect, Finished)]
