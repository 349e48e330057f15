"""Foreign members and foreign packets: real ucarp in the group, garbage and impostors on the wire.

alpha  uma   client  asker  watcher
==+=====+======+=======+======+==  lan0
"""

import sys
from collections.abc import Callable

import pytest

from carpool.base.time import NS_PER_MS
from carpool.lab import scenes
from carpool.lab.peers import Ucarp, UcarpOptions
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PASSWORD = "a-password"

GARBAGE = """
import socket
from ipaddress import IPv4Address
from carpool.wire import carp, ethernet, ip
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind(("eth0", 0))
    mac = wire.getsockname()[4]
    source = IPv4Address("192.0.2.200")
    key = carp.Authenticator(b"another-key", 1, [IPv4Address("192.0.2.10")], [])
    good = carp.encode(carp.advertise(key, advbase=0, advskew=1, demote=0, counter=1))
    packets = [good, good[:20], b"", good[:8] + bytes(28), b"\\x31" + good[1:], bytes(36)]
    packets += [good[:1] + b"\\x07" + good[2:], b"\\xff" * 36]
    for payload in packets * 20:
        wire.send(carp.multicast_frame(payload, mac, source))
        frame = bytearray(carp.multicast_frame(payload, mac, source))
        frame[22] = 254
        wire.send(bytes(frame))
"""

IMPOSTOR = """
import socket
from ipaddress import IPv4Address
from carpool.wire import arp
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind(("eth0", 0))
    wire.send(arp.gratuitous(wire.getsockname()[4], IPv4Address("192.0.2.10")))
"""


def mixed(build: Build, advskew: int) -> Stage:
    """Build alpha with this advskew and room for uma, who is declared as ucarp."""
    return build(
        Shape(
            nodes=("alpha",),
            addresses=("192.0.2.10/24",),
            interval="1s",
            heartbeat=False,
            more='peers = [{kind = "ucarp", advbase = 1, advskew = 50}]',
            tables=f"[hot.edge.node.alpha]\nadvskew = {advskew}",
        ),
        foreign=("uma",),
        password=PASSWORD,
    )


def uma(stage: Stage, *, password: str = PASSWORD) -> Ucarp:
    """Return the ucarp on uma, advskew 50."""
    port = stage.topology.switches[0].port("uma")
    assert port is not None
    own = str(port.addresses[0].ip)
    return Ucarp(stage.lab, "uma", UcarpOptions("eth0", own, 1, password, "192.0.2.10", 1, 50))


def test_ucarp_stands_by(build: Build) -> None:
    """Ucarp yields to a better carpool, takes over at its bow-out, and yields when it returns."""
    stage = mixed(build, 0)
    stage.start()
    other = uma(stage)
    other.start()
    other.wait_state("BACKUP")
    scene = scenes.stop(stage, "alpha", "uma")
    assert scene.two_owners == 0, scene.account()
    assert scene.gap_ns < 2500 * NS_PER_MS  # ucarp reads packets up to a second late
    assert other.state == "MASTER"
    with stage.scene("start alpha", ["uma", "alpha"]) as scene:
        stage.daemon("alpha").start()
        stage.wait_role("alpha", "MASTER")
        other.wait_state("BACKUP")


def test_ucarp_is_master(build: Build) -> None:
    """Carpool stands by under a better ucarp and takes over when that stops."""
    stage = mixed(build, 100)
    stage.observers.start_responders()
    other = uma(stage)
    other.start()
    other.wait_state("MASTER")
    stage.daemon("alpha").start()
    stage.daemon("alpha").wait_ready()
    stage.observers.start()
    stage.wait_serving("uma")
    assert stage.daemon("alpha").role("edge") == "BACKUP"
    scene = scenes.play(stage, "stop ucarp", ["uma", "alpha"], other.stop)
    assert scene.two_owners == 0, scene.account()
    other.start()
    other.wait_state("MASTER")
    stage.wait_role("alpha", "BACKUP")


def test_wrong_password_is_counted(build: Build) -> None:
    """A ucarp with another password changes nothing but a counter; ucarp rejects ours as well."""
    stage = mixed(build, 0)
    stage.start(observers=False)
    other = uma(stage, password="wrong-password")
    other.start()
    other.wait_state("MASTER")
    wait_for(lambda: counter(stage, "reject.hmac"), 5.0, "a rejected advertisement")
    assert stage.daemon("alpha").role("edge") == "MASTER"
    wait_for(lambda: other.complaints("Bad digest"), 5.0, "ucarp's complaint")


def counter(stage: Stage, name: str) -> int:
    """Return a counter of alpha."""
    return int(stage.daemon("alpha").status().get("counters", {}).get(name, 0))


def test_garbage_changes_nothing_but_counters(build: Build) -> None:
    """Truncated, wrong-key, wrong-TTL, wrong-vhid and VRRP packets move nothing and are counted."""
    stage = build(Shape())
    stage.start()

    def throw() -> None:
        stage.lab.run("client", [sys.executable, "-c", GARBAGE])

    def counted() -> None:
        wait_for(lambda: counter(stage, "reject.hmac") >= 20, 3.0, "rejected packets")

    scene = scenes.play(stage, "garbage", ["alpha"], throw, counted)
    assert scene.two_owners == 0, scene.account()
    assert scene.gap_ns < 100 * NS_PER_MS
    assert stage.roles() == {"alpha": "MASTER", "bravo": "BACKUP", "charlie": "BACKUP"}


def test_impostor_is_named(build: Build) -> None:
    """Another program that claims the address is reported with its MAC."""
    stage = build(Shape())
    stage.start(observers=False)
    stage.lab.run("client", [sys.executable, "-c", IMPOSTOR])
    port = stage.topology.switches[0].port("client")
    assert port is not None

    def reported() -> bool:
        return stage.daemon("alpha").group("edge")["conflict"] == {"192.0.2.10": port.mac}

    wait_for(reported, 5.0, "the conflict in the status")
