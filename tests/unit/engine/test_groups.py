"""Interfaces, sending, and groups that move together."""

from dataclasses import replace

import pytest
from tests.unit.engine.bench import ALPHA, FACTS, Bench, journal, told, with_group, with_parameters

from carpool.base.time import NS_PER_MS, NS_PER_S, Instant
from carpool.election.effects import Announce, Probe, Serve, ShutGate, Withdraw
from carpool.election.parameters import DemoteMode, Kind, Member
from carpool.engine.effects import Send
from carpool.engine.events import Sent, ServeFailed
from carpool.wire import carp
from carpool.wire.peer import Offer, Request

BOTH = ("edge", "inside")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (None, "interface eth0 is missing"),
        (replace(FACTS, up=False), "interface eth0 is down"),
        (replace(FACTS, carrier=False), "interface eth0 has no carrier"),
    ],
)
def test_an_interface_that_cannot_serve(facts, reason):
    """The group is INIT with the reason, and comes up with the interface."""
    bench = Bench(start=False)
    bench.see(facts)
    assert (bench.state(), bench.standing().reason) == ("INIT", reason)
    bench.see(FACTS)
    bench.master()
    asked = bench.see(facts)
    assert isinstance(asked[0], ShutGate)
    assert Withdraw("edge") in asked
    assert (bench.state(), bench.standing().reason) == ("INIT", reason)


def test_other_interfaces():
    """What happens to other interfaces is no concern of the group's."""
    bench = Bench().master()
    assert journal(bench.see(None, "eth1")) == []
    assert bench.state() == "MASTER"


def test_alone():
    """A node that was alone before its own crash serves at once, the first time only."""
    bench = Bench(alone=frozenset({"edge"}))
    bench.run(5 * NS_PER_MS)
    assert bench.standing().serving
    assert bench.engine.alone_groups(bench.now) == {"edge"}
    bench.see(None)
    bench.see(FACTS)
    bench.run(5 * NS_PER_MS)
    assert bench.state() == "BACKUP"


def test_not_alone():
    """A linked member, a heard one or a foreign one keep a group from being called alone."""
    bench = Bench().master()
    bench.link()
    assert bench.engine.alone_groups(bench.now) == set()
    foreign = Member("192.0.2.99", Kind.OPENBSD, 1, 0, 9)
    bench = Bench(setup=with_parameters(bench.setup, members=(foreign,))).master()
    assert bench.engine.alone_groups(bench.now) == set()


def test_what_is_sent():
    """The advertisement is signed, its counter grows, and its numbers are ours."""
    bench = Bench().master()
    bench.run(2 * NS_PER_S)
    adverts = [carp.decode(effect.payload) for effect in bench.effects if isinstance(effect, Send)]
    for advert in adverts:
        carp.verify(advert, bench.engine.node.groups["edge"].authenticator)
        assert (advert.vhid, advert.advbase, advert.advskew, advert.demote) == (1, 1, 0, 0)
    counters = [advert.counter for advert in adverts]
    assert counters == sorted(set(counters))
    first = next(effect for effect in bench.effects if isinstance(effect, Send))
    assert first.window_until == bench.standing().window_until
    assert (first.serve, first.lease_until > first.window_until) == (False, True)


def test_bow_out_leases_nothing():
    """A bow-out has the numbers 255/255, a window and no lease."""
    bench = Bench().master()
    asked = bench.advert(advskew=0, advbase=0)
    (send,) = [effect for effect in asked if isinstance(effect, Send)]
    assert (send.lease_until, send.serve, send.window_until is None) == (0, False, False)
    assert (carp.decode(send.payload).advbase, carp.decode(send.payload).advskew) == carp.BOW_OUT


def test_order_of_a_take_over():
    """First the advertisement, then the one that serves, then the addresses."""
    bench = Bench()
    kinds = [type(effect) for effect in bench.run(3_100 * NS_PER_MS)]
    assert kinds.index(Send) < kinds.index(Serve)
    asked = bench.run(40 * NS_PER_S)
    assert Announce("edge") in asked
    assert Probe("edge") in asked


def test_both_families_for_foreign_members():
    """BSD has a timer for each family: with foreign members one alone counts as a failure."""
    bench = Bench()
    six = carp.GROUP_V6  # any IPv6 address will do
    both = with_group(bench.setup, v6=(six,))
    bench = Bench(setup=both)
    bench.families = frozenset({4})
    bench.master()
    member = Member("192.0.2.99", Kind.OPENBSD, 1, 200, 9)
    members = (*both.groups[0].parameters.members, member)
    bench = Bench(setup=with_parameters(both, members=members))
    bench.families = frozenset({4})
    bench.run(3_200 * NS_PER_MS)
    assert bench.state() == "BACKUP"
    assert bench.count("send-error.edge") == 1


def test_addresses_that_cannot_be_set():
    """A node that cannot put the addresses on its interface leaves the group."""
    bench = Bench().master()
    asked = bench.handle(ServeFailed("edge", "no room for 192.0.2.101"))
    assert isinstance(asked[0], ShutGate)
    assert bench.standing().reason == "no room for 192.0.2.101"
    assert bench.handle(ServeFailed("gone", "whatever")) == []
    assert bench.handle(Sent("gone", frozenset({4}), Instant(1), True, "")) == []


def test_companions_are_demoted():
    """A group whose companion cannot serve is demoted by one, FreeBSD's way by 240."""
    for mode, expected in ((DemoteMode.OPENBSD, 1), (DemoteMode.FREEBSD, 240)):
        setup = Bench(groups=BOTH, demote=mode).setup
        inside = replace(setup.groups[1], interface="eth1")
        bench = Bench(setup=replace(setup, groups=(setup.groups[0], inside)), start=False)
        bench.see(FACTS)
        bench.see(FACTS, "eth1")
        assert bench.standing("edge").demotion == 0
        bench.see(None, "eth1")
        assert bench.standing("edge").demotion == expected
        bench.see(FACTS, "eth1")
        assert bench.standing("edge").demotion == 0


def test_companions_are_offered_together():
    """Where one group goes the others go, with the same meaning for who may take them back."""
    bench = Bench(groups=BOTH).master()
    bench.link()
    for group in BOTH:
        bench.report(group=group)
    asked = bench.see(replace(FACTS, carrier=False))
    assert {(to, offer.group) for to, offer in told(asked, Offer)} == {
        ("bravo", "edge"),
        ("bravo", "inside"),
    }


def test_the_leader_draws_the_others():
    """A node that masters the first group of a set asks for the others, against preference too."""
    bench = Bench("bravo", groups=BOTH)
    bench.link("alpha")
    for group in BOTH:
        bench.report("alpha", "BACKUP", group=group, ready=False)
    bench.run(3_050 * NS_PER_MS)
    assert bench.state("edge") == "MASTER"
    bench.run(10 * NS_PER_MS)
    bench.handle(ServeFailed("inside", "broken"))
    bench.see(FACTS)
    assert bench.state("inside") == "BACKUP"
    bench.report("alpha", "MASTER", group="inside")
    asked = bench.advert(source=ALPHA, group="inside", advskew=0)
    ((to, request),) = told(asked, Request)
    assert (to, request.group) == ("alpha", "inside")
    assert request.reason.startswith("with")
