"""A firewall pair: two groups on two networks that are mastered by the same node, always.

        alpha  bravo   client  asker  watcher
outside ==+======+=======+=======+======+==  lan0
inside  ==+======+=======+=======+======+==  lan1
        --+------+--                         heartbeat0
"""

from collections.abc import Callable, Iterator

import pytest

from carpool.lab import facts
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import tap
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

INSIDE = """
[hot.inside]
vhid = 2
interface = "eth1"
addresses = ["198.51.100.10/24", "2001:db8:1::10/64"]
nodes = ["alpha", "bravo"]
password_file = "/etc/carpool/inside.pass"
interval = "100ms"
firewall = true
with = ["edge"]
"""
TARGETS = {"eth0": ("192.0.2.10", "2001:db8::10"), "eth1": ("198.51.100.10", "2001:db8:1::10")}
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return the pair that all tests share."""
    shape = Shape(
        nodes=("alpha", "bravo"), more='firewall = true\nwith = ["inside"]', tables=INSIDE
    )
    with Stage.build(facts.place("firewall"), shape) as built:
        built.start_daemons()
        yield built


def answering(stage: Stage) -> set[str]:
    """Return which nodes answer on either side; "" stands for an address without an answer."""
    names = stage.topology.owner_names()
    found: set[str] = set()
    for interface, addresses in TARGETS.items():
        with tap(stage.lab, "client", interface) as client:
            for macs in client.owners(addresses).values():
                found |= {names.get(mac, mac) for mac in macs} or {""}
    return found


def moved(stage: Stage, node: str, event: Callable[[], object]) -> None:
    """Let an event happen and wait until `node` alone serves both sides, then that it stays so."""
    event()

    def together() -> bool:
        return stage.master("edge") == stage.master("inside") == node

    took = facts.timed(together, PATIENCE_S, f"both groups on {node}")
    facts.show(f"both on {node} after {took:.0f} ms")
    wait_for(lambda: answering(stage) == {node}, PATIENCE_S, f"{node} to answer on both sides")
    still = facts.passed(0.35)
    wait_for(lambda: still() or not together(), PATIENCE_S, "another master-down time")
    assert together()


def home(stage: Stage) -> None:
    """Wait until alpha has both and bravo stands by."""
    moved(stage, "alpha", lambda: None)
    for group in ("edge", "inside"):
        stage.wait_standby("bravo", group)


@pytest.mark.parametrize("interface", ["eth0", "eth1"])
def test_one_cable_pulled(stage: Stage, interface: str) -> None:
    """When either side's cable is pulled both groups move, and both come back together."""
    home(stage)

    def pull() -> None:
        stage.network.unplug("alpha", interface)

    moved(stage, "bravo", pull)
    stage.network.plug("alpha", interface)
    home(stage)


@pytest.mark.parametrize("group", ["edge", "inside"])
def test_demoted(stage: Stage, group: str) -> None:
    """A demotion of either group moves both; taken back, both return."""
    home(stage)
    alpha = stage.daemon("alpha")
    moved(stage, "bravo", lambda: alpha.order("demote", group=group, n=5))
    alpha.order("demote", group=group, n=0)
    home(stage)


@pytest.mark.parametrize("group", ["edge", "inside"])
def test_stepped_down(stage: Stage, group: str) -> None:
    """A step-down of either group moves both, and they stay where the operator put them."""
    home(stage)
    moved(stage, "bravo", lambda: stage.daemon("alpha").order("step-down", group=group))
    moved(stage, "alpha", lambda: stage.daemon("bravo").order("step-down", group=group))


def test_killed(stage: Stage) -> None:
    """A node that is killed loses both, and its return brings both back."""
    home(stage)
    moved(stage, "bravo", stage.daemon("alpha").kill)
    stage.daemon("alpha").start()
    stage.daemon("alpha").wait_ready()
    home(stage)
