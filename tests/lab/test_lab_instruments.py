"""The lab's instruments, tried on what is known: gaps, two owners, cables, partitions.

    alpha  bravo  charlie  client  asker  watcher
    ==+======+======+========+=======+======+==  lan0
    --+------+------+--                          heartbeat0

No daemon runs here: addresses are static, faults are ours, so every verdict has a known answer.
"""

import sys
from collections.abc import Callable

import pytest

from carpool.base.time import NS_PER_MS
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import LabError, wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
FOUR = "192.0.2.10"
SIX = "2001:db8::10"
ANNOUNCE = """
import socket
from ipaddress import IPv4Address, IPv6Address
from carpool.wire import arp, ndp
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind(("eth0", 0))
    mac = wire.getsockname()[4]
    wire.send(arp.gratuitous(mac, IPv4Address("192.0.2.10")))
    wire.send(ndp.unsolicited(mac, IPv6Address("2001:db8::10")))
"""


def hold(stage: Stage, node: str, verb: str = "add") -> None:
    """Give the shared addresses to a node, or take them."""
    nodad = ["nodad"] if verb == "add" else []
    stage.lab.run(node, ["ip", "address", verb, f"{FOUR}/24", "dev", "eth0"])
    stage.lab.run(node, ["ip", "address", verb, f"{SIX}/64", "dev", "eth0", *nodad])


def announce(stage: Stage, node: str) -> None:
    """Let a node say that the shared addresses are at its MAC."""
    stage.lab.run(node, [sys.executable, "-c", ANNOUNCE])


def observe(stage: Stage) -> None:
    """Start responders and observers; alpha serves."""
    stage.observers.start_responders()
    hold(stage, "alpha")
    stage.observers.start()
    stage.wait_serving("alpha")


def reaches(stage: Stage, source: str, address: str) -> bool:
    """Tell whether `source` gets an answer from `address` within 300 ms."""
    try:
        stage.lab.run(source, ["ping", "-c", "1", "-W", "0.3", address])
    except LabError:
        return False
    return True


@pytest.mark.parametrize("reversed_ports", [False, True])
def test_ports_are_attached_in_order(build: Build, *, reversed_ports: bool) -> None:
    """The bridge's ports are attached in the topology's order, and the other way when asked."""
    stage = build(Shape(), reversed_ports=reversed_ports)
    hosts = ["alpha", "bravo", "charlie", "client", "asker", "watcher"]
    assert stage.network.flood_order() == (hosts[::-1] if reversed_ports else hosts)


@pytest.mark.parametrize("reversed_ports", [False, True])
def test_watcher_sees_two_static_owners(build: Build, *, reversed_ports: bool) -> None:
    """Two hosts that hold the address are seen by the watcher, v4 and v6, in both port orders."""
    stage = build(Shape(), reversed_ports=reversed_ports)
    observe(stage)
    begin = stage.now()
    stage.pass_time(200 * NS_PER_MS)
    hold(stage, "bravo")
    middle = stage.now()
    stage.pass_time(200 * NS_PER_MS)
    end = stage.now()
    stage.observers.wait_recorded(end)
    for target in (0, 1):
        alone = stage.observers.seen(target, begin, middle - 50 * NS_PER_MS, ["alpha"])
        both = stage.observers.seen(target, middle, end, ["alpha"])
        assert (alone.two_owners, alone.watched > 20) == (0, True)
        assert both.answered_twice > 20
        assert stage.observers.owners_by_watcher(target, middle, end).keys() == {"alpha", "bravo"}


def test_prober_counts_a_known_gap(build: Build) -> None:
    """A way that is cut for a known time is a gap of that length.

    Not a cable: the kernel may take a second to use an interface whose carrier came back.
    """
    stage = build(Shape())
    observe(stage)
    with stage.scene("cut", ["alpha"]) as scene:
        begin = stage.now()
        stage.network.cut([("alpha", "client")])
        stage.pass_time(150 * NS_PER_MS)
        stage.network.heal()
        away = stage.now() - begin
    assert scene.two_owners == 0
    for seen in scene.seen:
        assert seen.gap.length_ns > 150 * NS_PER_MS
        assert seen.gap.length_ns < away + 50 * NS_PER_MS
        assert [run.owner for run in seen.runs] == ["alpha"]


def test_prober_sees_a_move_and_stale_answers(build: Build) -> None:
    """An address that moves gives two runs; an owner that returns unasked is out of turn."""
    stage = build(Shape())
    observe(stage)
    with stage.scene("move", ["alpha", "bravo"]) as scene:
        hold(stage, "alpha", "del")
        hold(stage, "bravo")
        announce(stage, "bravo")
    assert [run.owner for run in scene.seen[0].runs] == ["alpha", "bravo"]
    assert scene.two_owners == 0
    with stage.scene("return", ["bravo", "alpha"]) as scene:
        hold(stage, "alpha")
        announce(stage, "alpha")
        stage.pass_time(100 * NS_PER_MS)
        hold(stage, "bravo", "del")
    assert scene.two_owners > 0


def test_unplugging_takes_the_carrier(build: Build) -> None:
    """A pulled cable takes the carrier of that interface alone; plugging gives it back."""
    stage = build(Shape())

    def carriers() -> list[str]:
        return [
            stage.lab.run("alpha", ["cat", f"/sys/class/net/{name}/carrier"]).strip()
            for name in ("eth0", "eth1")
        ]

    assert stage.network.unplug("alpha", "eth0") == ["eth0"]
    assert carriers() == ["0", "1"]
    assert stage.network.unplug("alpha") == ["eth0", "eth1"]
    assert carriers() == ["0", "0"]
    stage.network.plug("alpha")
    assert carriers() == ["1", "1"]
    with pytest.raises(LabError, match="no cable eth7"):
        stage.network.unplug("alpha", "eth7")


def test_partition_cuts_and_heals(build: Build) -> None:
    """Parted sides cannot reach each other, but their own and the client; healing ends it."""
    stage = build(Shape())
    stage.network.partition([["alpha", "bravo"], ["charlie"]])
    assert not reaches(stage, "alpha", "192.0.2.13")
    assert not reaches(stage, "charlie", "10.9.9.2")
    assert reaches(stage, "alpha", "192.0.2.12")
    assert reaches(stage, "charlie", "192.0.2.254")
    carrier = stage.lab.run("charlie", ["cat", "/sys/class/net/eth0/carrier"]).strip()
    assert carrier == "1"
    stage.network.heal()
    wait_for(lambda: reaches(stage, "alpha", "192.0.2.13"), 5.0, "charlie to be reached")


def test_partition_of_one_network_leaves_the_other(build: Build) -> None:
    """A partition of the shared network leaves the heartbeat network whole."""
    stage = build(Shape())
    stage.network.partition([["alpha"], ["bravo", "charlie"]], [0])
    assert not reaches(stage, "alpha", "192.0.2.12")
    assert reaches(stage, "alpha", "10.9.9.2")


def test_one_way_cut(build: Build) -> None:
    """A one-way cut lets nothing through in its direction and everything in the other."""
    stage = build(Shape())
    observe(stage)

    def received() -> int:
        path = "/sys/class/net/eth0/statistics/rx_packets"
        return int(stage.lab.run("alpha", ["cat", path]))

    stage.network.cut([("alpha", "client")], [0])
    begin, before = stage.now(), received()
    wait_for(lambda: received() > before + 200, 2.0, "the client's questions at alpha")
    end = stage.now()
    stage.observers.wait_recorded(end)
    assert stage.observers.client.window(begin, end).replies == []
    assert stage.observers.asker.window(begin, end).replies


def test_loss_drops_a_share(build: Build) -> None:
    """Half of what a node sends is lost when half is asked for; nothing once healed."""
    stage = build(Shape())
    observe(stage)

    def answered() -> float:
        begin = stage.now()
        stage.pass_time(300 * NS_PER_MS)
        end = stage.now()
        stage.observers.wait_recorded(end)
        replies = stage.observers.client.window(begin, end).replies
        return sum(reply.target == 0 for reply in replies) * NS_PER_MS / (end - begin)

    stage.network.lose("alpha", 0.5)
    assert 0.35 < answered() < 0.65
    stage.network.heal()
    assert answered() > 0.9


def test_asker_forgets_its_neighbours(build: Build) -> None:
    """A client without memory finds the new owner although nobody announced it."""
    stage = build(Shape())
    observe(stage)
    hold(stage, "alpha", "del")
    hold(stage, "bravo")

    def found() -> bool:
        stage.observers.read()
        latest = {reply.target: reply.owner for reply in stage.observers.asker.replies}
        return latest == {0: "bravo", 1: "bravo"}

    wait_for(found, 2.0, "the asker to find bravo")
    assert stage.observers.serving() != "bravo"
