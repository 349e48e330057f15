"""The other ways to run a group: a virtual MAC, unicast, twenty milliseconds, one second.

alpha  bravo  (charlie)  client  asker  watcher
==+======+========+=========+======+======+==  lan0
--+------+--------+--                          heartbeat0
"""

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from carpool.base.errors import DecodeError
from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.lab import facts, scenes
from carpool.lab.site import Shape
from carpool.lab.stage import Scene, Stage
from carpool.lab.taps import tap
from carpool.wire import ethernet, ip

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
V4, V6 = "192.0.2.10", "2001:db8::10"
VIRTUAL = "00:00:5e:00:01:01"
PATIENCE_S = 10.0


def advertisements(frames: list[bytes]) -> list[tuple[bytes, ip.IpAddress]]:
    """Return the destination MAC and destination address of every packet of protocol 112."""
    found: list[tuple[bytes, ip.IpAddress]] = []
    for data in frames:
        try:
            frame = ethernet.parse(data)
            if frame.ethertype == ethernet.ETHERTYPE_IPV4:
                found.append(
                    (frame.destination, ip.parse_v4(frame.payload, ip.PROTOCOL_CARP).destination)
                )
            elif frame.ethertype == ethernet.ETHERTYPE_IPV6:
                found.append(
                    (frame.destination, ip.parse_v6(frame.payload, ip.PROTOCOL_CARP).destination)
                )
        except DecodeError:
            continue
    return found


def answers(stage: Stage) -> set[str]:
    """Return the MACs that answer for both addresses; "" stands for one without an answer."""
    found: set[str] = set()
    with tap(stage.lab, "client") as client:
        for macs in client.owners((V4, V6)).values():
            found |= macs or {""}
    return found


def links(stage: Stage, node: str) -> str:
    """Return the interfaces of a node, as `ip` shows them."""
    return stage.lab.run(node, ["ip", "-brief", "link", "show"])


def test_virtual_mac(build: Build) -> None:
    """The virtual MAC answers, moves with the addresses, and leaves nothing behind.

    The standby sends nothing from it.
    """
    stage = build(Shape(nodes=("alpha", "bravo"), preempt=False, more='mac = "virtual"'))
    stage.listeners.clear()  # the watcher tells owners apart by their MAC, and here they share it
    before = {node: links(stage, node) for node in stage.nodes}
    stage.observers.start_responders()
    stage.start_daemons()
    assert answers(stage) == {VIRTUAL}
    assert V4 in facts.addresses(stage, "alpha")["carp-1"]
    stage.observers.start()
    stage.wait_serving("alpha")
    quiet_by_standby(stage, "bravo")

    def step_down() -> None:
        stage.daemon("alpha").order("step-down", group="edge")

    moved = scenes.play(stage, "virtual MAC steps down", ["alpha", "bravo"], step_down)
    assert owned_once(moved), moved.account()
    assert answers(stage) == {VIRTUAL}
    quiet_by_standby(stage, "alpha")
    killed = scenes.kill(stage, "bravo", "alpha")
    assert owned_once(killed), killed.account()
    assert answers(stage) == {VIRTUAL}
    stage.daemon("bravo").start()
    stage.wait_standby("bravo")
    for node in stage.nodes:
        stage.daemon(node).stop()
        assert links(stage, node) == before[node]


def owned_once(scene: Scene) -> bool:
    """Return whether the clients heard the old owner, then the new, and the watcher one MAC."""
    stale = [reply for seen in scene.seen for _, reply in seen.stale if reply.owner != VIRTUAL]
    return not stale and not any(seen.answered_twice for seen in scene.seen)


def quiet_by_standby(stage: Stage, node: str) -> None:
    """Assert that nothing leaves `node` from the virtual MAC while it is asked for it."""
    virtual = ethernet.parse_mac(VIRTUAL)
    with tap(stage.lab, node) as ear:
        assert answers(stage) == {VIRTUAL}
        sent = ear.listen(3 * stage.master_down_ns() / NS_PER_S, "sent")
    assert sent, f"{node} speaks with its peer"
    assert not [data for data in sent if ethernet.parse(data).source == virtual]


def test_unicast(build: Build) -> None:
    """With transport = "unicast" no advertisement goes to the group, and the election works."""
    stage = build(Shape(addresses=(f"{V4}/24",), more='transport = "unicast"'))
    with tap(stage.lab, "charlie") as ear:
        stage.start()
        killed = scenes.kill(stage, "alpha", "bravo")
        assert killed.two_owners == 0, killed.account()
        frozen = scenes.freeze(stage, "bravo", "charlie")
        assert frozen.two_owners == 0, frozen.account()
        seen = advertisements(ear.drain())
    assert len(seen) > 20
    assert not [mac for mac, _ in seen if mac[0] & 1]
    assert {"192.0.2.11", "192.0.2.12", "192.0.2.13"} >= {
        str(target) for _, target in seen if isinstance(target, IPv4Address)
    }


@pytest.mark.bpf  # and needs real-time scheduling, which goes with the same rights
def test_twenty_milliseconds(build: Build) -> None:
    """At an interval of 20 ms an idle pair is quiet, and a frozen master is replaced in time."""
    stage = build(Shape(nodes=("alpha", "bravo"), interval="20ms", gate="bpf"))
    stage.start()
    before = {node: stage.daemon(node).group("edge")["changes"] for node in stage.nodes}
    stage.pass_time(2 * NS_PER_S)
    after = {node: stage.daemon(node).group("edge")["changes"] for node in stage.nodes}
    assert after == before
    frozen = scenes.freeze(stage, "alpha", "bravo")
    facts.show(f"frozen at 20 ms: gap {frozen.gap_ns / NS_PER_MS:.0f} ms")
    assert frozen.two_owners == 0, frozen.account()
    assert frozen.gap_ns < stage.master_down_ns() + 150 * NS_PER_MS


def test_three_at_one_second(build: Build) -> None:
    """Three nodes at one second: each takes over from the one before, one owner all the time."""
    stage = build(Shape(interval="1s"))
    stage.start()
    for dead, next_one in (("alpha", "bravo"), ("bravo", "charlie")):
        scene = scenes.kill(stage, dead, next_one)
        assert scene.two_owners == 0, scene.account()
    assert answers(stage) == {mac_of(stage, "charlie")}


def mac_of(stage: Stage, node: str) -> str:
    """Return the MAC of a node on the shared network."""
    port = stage.topology.switches[0].port(node)
    assert port is not None
    return port.mac
