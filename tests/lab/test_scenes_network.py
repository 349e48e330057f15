"""Partitions, one-way cuts, losses; and what other programs do to our things.

alpha  bravo  charlie  client  asker  watcher
==+======+======+========+=======+======+==  lan0
--+------+------+--                          heartbeat0
"""

from collections.abc import Callable

import pytest

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.lab import scenes
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
LAN = [0]
REPAIR_S = 2.0  # one interval is promised; this is for a machine with other work
GATES = [pytest.param("bpf", marks=pytest.mark.bpf), "nft"]


def test_partition_with_a_heartbeat_path(build: Build) -> None:
    """While one path of the peer link lives, a parted network has one owner."""
    stage = build(Shape())
    stage.start()

    def part() -> None:
        stage.network.partition([["alpha"], ["bravo", "charlie"]], LAN)

    scene = scenes.play(stage, "lan parted", ["alpha"], part)
    assert scene.two_owners == 0, scene.account()
    assert stage.roles() == {"alpha": "MASTER", "bravo": "BACKUP", "charlie": "BACKUP"}
    scene = scenes.play(stage, "lan healed", ["alpha"], stage.network.heal)
    assert scene.two_owners == 0, scene.account()


def test_full_partition_heals(build: Build) -> None:
    """Fully parted both sides serve, which is CARP's nature; healed, one remains and says so."""
    stage = build(Shape())
    stage.start()
    stage.network.partition([["alpha"], ["bravo", "charlie"]])
    stage.wait_role("bravo", "MASTER")
    assert stage.daemon("alpha").role("edge") == "MASTER"
    healed = stage.now()
    stage.network.heal()
    stage.wait_role("bravo", "BACKUP")
    stage.wait_serving("alpha")
    quiet = stage.now() + 500 * NS_PER_MS
    stage.pass_time(NS_PER_S)
    end = stage.now()
    stage.observers.wait_recorded(end)
    assert set(stage.observers.owners_by_watcher(0, quiet, end)) == {"alpha"}
    alpha = next(mac for mac, name in stage.topology.owner_names().items() if name == "alpha")
    announced = stage.observers.watchers[0].window(healed, end).announcements
    assert {reply.target for reply in announced if reply.owner == alpha} == {0, 1}


@pytest.mark.parametrize("way", [("alpha", "bravo"), ("bravo", "alpha")])
def test_one_way_cut_moves_nothing(build: Build, way: tuple[str, str]) -> None:
    """A one-way cut between master and standby makes no second owner while a path lives."""
    stage = build(Shape())
    stage.start()

    def cut() -> None:
        stage.network.cut([way], LAN)

    scene = scenes.play(stage, f"cut {way[0]} -> {way[1]}", ["alpha"], cut)
    assert scene.two_owners == 0, scene.account()
    assert stage.master() == "alpha"


def test_loss_moves_nothing(build: Build) -> None:
    """A third of the master's frames lost for three seconds does not move the address."""
    stage = build(Shape())
    stage.start()
    changes = stage.daemon("alpha").group("edge")["changes"]
    stage.network.lose("alpha", 0.33)
    stage.pass_time(3 * NS_PER_S)
    stage.network.heal()
    assert stage.daemon("alpha").group("edge")["changes"] == changes
    assert stage.master() == "alpha"


def test_cable_of_the_master(build: Build) -> None:
    """The master's cable in the shared network is pulled: it hands over by the other network."""
    stage = build(Shape(interval="1s"))
    stage.start()

    def pull() -> None:
        stage.network.unplug("alpha", "eth0")

    scene = scenes.play(stage, "unplug alpha:eth0", ["alpha", "bravo"], pull)
    assert scene.two_owners == 0, scene.account()
    assert scene.gap_ns < 500 * NS_PER_MS


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("node", ["alpha", "bravo"])
def test_gate_is_put_back(build: Build, gate: str, node: str) -> None:
    """Filters and tables that somebody takes away are put back; no second owner shows."""
    stage = build(Shape(gate=gate))
    stage.start()
    listing = ["tc", "filter", "show", "dev", "eth0", "egress"]
    removal = ["tc", "qdisc", "del", "dev", "eth0", "clsact"]
    if gate == "nft":
        listing, removal = ["nft", "list", "tables"], ["nft", "flush", "ruleset"]
    before = stage.lab.run(node, listing)
    assert before.strip()

    def take_away() -> None:
        stage.lab.run(node, removal)

    def put_back() -> None:
        wait_for(lambda: stage.lab.run(node, listing) == before, REPAIR_S, "the gate's repair")

    scene = scenes.play(stage, f"{gate} gate of {node} removed", ["alpha"], take_away, put_back)
    assert stage.master() == "alpha"
    if gate == "bpf":
        assert scene.two_owners == 0, scene.account()


def test_address_is_put_back(build: Build) -> None:
    """Addresses that somebody takes from the master are put back within an interval."""
    stage = build(Shape())
    stage.start()

    def take_away() -> None:
        stage.lab.run("alpha", ["ip", "address", "del", "192.0.2.10/24", "dev", "eth0"])
        stage.lab.run("alpha", ["ip", "address", "del", "2001:db8::10/64", "dev", "eth0"])

    scene = scenes.play(stage, "addresses removed", ["alpha"], take_away)
    assert scene.two_owners == 0, scene.account()
    assert scene.gap_ns < 500 * NS_PER_MS


def test_interface_down_and_up(build: Build) -> None:
    """The master's interface is set down: another serves; set up again: it takes back."""
    stage = build(Shape())
    stage.start()

    def set_link(state: str) -> Callable[[], None]:
        return lambda: stage.lab.run("alpha", ["ip", "link", "set", "eth0", state]) and None

    scene = scenes.play(stage, "eth0 down", ["alpha", "bravo"], set_link("down"))
    assert scene.two_owners == 0, scene.account()
    assert "eth0" in stage.daemon("alpha").group("edge")["reason"]
    scene = scenes.play(stage, "eth0 up", ["bravo", "alpha"], set_link("up"))
    assert scene.two_owners == 0, scene.account()


def test_interface_deleted_and_made_again(build: Build) -> None:
    """An interface that goes away and comes back, with another index, serves again."""
    stage = build(Shape())
    stage.start()

    def remove() -> None:
        stage.network.remove_cable("alpha", "eth0")

    def restore() -> None:
        stage.network.restore_cable("alpha", "eth0")

    scene = scenes.play(stage, "eth0 deleted", ["alpha", "bravo"], remove)
    assert scene.two_owners == 0, scene.account()
    assert stage.daemon("alpha").role("edge") == "INIT"
    scene = scenes.play(stage, "eth0 made again", ["bravo", "alpha"], restore)
    assert scene.two_owners == 0, scene.account()


def test_missing_interface(build: Build) -> None:
    """Without its interface a group is INIT and says why; it comes up when the interface does."""
    stage = build(Shape())
    stage.network.remove_cable("charlie", "eth0")
    stage.daemon("alpha").start()
    stage.daemon("charlie").start()
    stage.daemon("charlie").wait_ready()
    stage.wait_role("alpha", "MASTER")
    group = stage.daemon("charlie").group("edge")
    assert group["state"] == "INIT"
    assert "eth0" in group["reason"]
    stage.network.restore_cable("charlie", "eth0")
    stage.wait_role("charlie", "BACKUP")
