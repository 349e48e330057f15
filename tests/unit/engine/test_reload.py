"""A reload: what did not change is not touched, what changed keeps its role where it can."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from tests.unit.engine.bench import FACTS, Bench, answers, journal, with_group, with_parameters
from tests.unit.pair.sites import NAMES, SLOW, group, parameters

from carpool.base.time import NS_PER_S
from carpool.election.effects import Serve, ShutGate, Withdraw
from carpool.engine.effects import Rearrange, Send
from carpool.engine.events import Ordered, Reconfigured


def reload(bench, setup):
    """Hand a new configuration to the brain."""
    return bench.handle(Reconfigured(setup))


def gate_effects(effects):
    """Return what would be seen on the wire or at the gate."""
    return [e for e in effects if isinstance(e, Send | ShutGate | Serve | Withdraw)]


def another(name="inside", number=2, interface="eth0"):
    """Return the setup of one more group."""
    made = group(name, number, parameters("alpha", NAMES[:2], SLOW), ())
    return replace(made, interface=interface)


def test_nothing_changed():
    """The same configuration touches nothing."""
    bench = Bench().master()
    brain, before = bench.engine.node.groups["edge"], bench.standing().changes
    asked = reload(bench, bench.setup)
    assert gate_effects(asked) == []
    assert [effect for effect in asked if isinstance(effect, Rearrange)] == [
        Rearrange(bench.setup, bench.setup)
    ]
    assert journal(asked) == ["configuration 7: unchanged"]
    assert bench.engine.node.groups["edge"] is brain
    assert bench.standing().changes == before
    assert bench.standing().serving


def test_a_group_is_added():
    """A new group listens from the beginning; the old one is untouched."""
    bench = Bench().master()
    bench.handle(Ordered(1, "demote", "edge", "2", "anna"))
    setup = replace(bench.setup, revision="8", groups=(another(), *bench.setup.groups))
    asked = reload(bench, setup)
    assert gate_effects(asked) == []
    assert journal(asked)[-1] == "configuration 8: groups: 1 added, 1 untouched (was 7)"
    assert list(bench.engine.node.groups) == ["inside", "edge"]
    assert (bench.state("inside"), bench.state("edge")) == ("BACKUP", "MASTER")
    assert bench.standing().demotion == 2
    bench.run(4 * NS_PER_S)
    assert bench.standing("inside").serving


def test_a_group_on_an_unknown_interface_waits():
    """A group whose interface was not seen yet is INIT until it is."""
    bench = Bench().master()
    setup = replace(bench.setup, groups=(*bench.setup.groups, another(interface="eth1")))
    reload(bench, setup)
    assert bench.state("inside") == "INIT"
    bench.see(FACTS, "eth1")
    assert bench.state("inside") == "BACKUP"


def test_a_group_is_removed():
    """A removed group is shut and taken off before it is forgotten."""
    bench = Bench(groups=("edge", "inside")).master()
    bench.run(NS_PER_S)
    setup = replace(bench.setup, revision="8", groups=bench.setup.groups[:1])
    asked = reload(bench, setup)
    places = [asked.index(ShutGate("inside")), asked.index(Withdraw("inside"))]
    rearranged = next(e for e in asked if isinstance(e, Rearrange))
    assert max(places) < asked.index(rearranged)
    assert list(bench.engine.node.groups) == ["edge"]
    assert bench.standing().serving
    assert "1 removed" in journal(asked)[-1]


def test_addresses_changed():
    """New addresses change what is signed, in place: the role stays."""
    bench = Bench().master()
    v4 = (IPv4Address("192.0.2.101"), IPv4Address("192.0.2.102"))
    setup = with_group(bench.setup, v4=v4, addresses=("192.0.2.101/24", "192.0.2.102/24"))
    before = bench.advertisement()
    asked = reload(bench, replace(setup, revision="8"))
    assert bench.advertisement() != before
    assert not [e for e in asked if isinstance(e, ShutGate | Withdraw)]
    assert bench.standing().serving
    assert bench.engine.node.groups["edge"].setup.v4 == v4


def test_parameters_changed():
    """New numbers are told at once; peers that are no members any more are forgotten."""
    bench = Bench(nodes=3).master()
    bench.link("bravo")
    bench.link("charlie")
    bench.report("bravo")
    bench.report("charlie")
    members = bench.setup.groups[0].parameters.members[:1]
    setup = with_parameters(bench.setup, advskew=3, members=members)
    setup = replace(setup, nodes=bench.setup.nodes[:1])
    asked = reload(bench, setup)
    (send,) = [e for e in asked if isinstance(e, Send)]
    assert send.payload[2] == 3
    assert list(bench.standing().peers) == ["bravo"]
    assert list(bench.engine.node.peers) == ["bravo"]


@pytest.mark.parametrize("changes", [{"interface": "eth1"}, {"mac": "virtual"}])
def test_identity_changed(changes):
    """Another interface, vhid or MAC is another group: it leaves and begins anew."""
    bench = Bench().master()
    bench.see(FACTS, "eth1")
    asked = reload(bench, replace(with_group(bench.setup, **changes), revision="8"))
    assert ShutGate("edge") in asked
    assert bench.state() == "BACKUP"
    assert "1 added, 1 removed" in journal(asked)[-1]


def test_a_step_down_of_a_group_that_is_removed():
    """An order that waits for a group is answered though the group is gone."""
    bench = Bench().master()
    bench.link()
    bench.report()
    bench.handle(Ordered(5, "step-down", "edge", "", "anna"))
    reload(bench, replace(bench.setup, groups=()))
    assert answers(bench.run(3 * NS_PER_S)) == [(5, False, "edge: no outcome in time")]
