"""The peer link under attack and cables that are cut: one master as long as a path is left.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from carpool.base.errors import DecodeError
from carpool.base.time import NS_PER_S
from carpool.lab import facts
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import Tap, tap
from carpool.lab.topology import SWITCH_HOST, port_device
from carpool.lab.waiting import wait_for
from carpool.wire import arp, ethernet, ip
from carpool.wire.checksum import internet_checksum

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PAIR = Shape(nodes=("alpha", "bravo"))
V4, V6 = "192.0.2.10", "2001:db8::10"
ATTACK_S = 1.5
TCP_SYN, TCP_RST = 2, 4
PATIENCE_S = 10.0
INTERVAL_MS = 101.6


def forged_reset(data: bytes) -> bytes | None:
    """Return the RST that the receiver of a TCP segment would have sent, None for other frames.

    Its number is the next that the sender expects (RFC 9293 3.5.3), so that it is believed.
    """
    frame = ethernet.parse(data)
    if frame.ethertype != ethernet.ETHERTYPE_IPV4 or data[23] != socket.IPPROTO_TCP:
        return None
    packet = ip.parse_v4(frame.payload, socket.IPPROTO_TCP)
    source_port, port, _, acknowledged = struct.unpack_from("!HHII", packet.payload)
    if packet.payload[13] & (TCP_SYN | TCP_RST):
        return None
    segment = struct.pack(
        "!HHIIBBHHH", port, source_port, acknowledged, 0, 5 << 4, TCP_RST, 0, 0, 0
    )
    pseudo = packet.destination.packed + packet.source.packed
    pseudo += struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment))
    value = internet_checksum(pseudo + segment)
    segment = segment[:16] + value.to_bytes(2, "big") + segment[18:]
    answer = ip.Ipv4Packet(packet.destination, packet.source, socket.IPPROTO_TCP, segment)
    return ethernet.build(
        frame.source, frame.destination, ethernet.ETHERTYPE_IPV4, ip.build_v4(answer)
    )


def reset_everything(stage: Stage, node: str, duration_s: float) -> int:
    """Answer each segment that `node` sends, on every path, with a forged RST; return how many."""
    over = facts.passed(duration_s)
    sent = 0
    with ExitStack() as stack:
        paths = [
            (
                stack.enter_context(tap(stage.lab, node, port.interface)),
                stack.enter_context(
                    tap(stage.lab, SWITCH_HOST, port_device(stage.topology, number, node))
                ),
            )
            for number, port in stage.topology.ports_of(node)
        ]
        while not over():
            for ear, mouth in paths:
                for reset in resets(ear.listen(0.002)):
                    mouth.send(reset)
                    sent += 1
    return sent


def resets(frames: list[bytes]) -> Iterator[bytes]:
    """Yield the forged answers to `frames`."""
    for data in frames:
        try:
            reset = forged_reset(data)
        except DecodeError:
            continue
        if reset is not None:
            yield reset


def test_forged_resets_move_nothing(build: Build) -> None:
    """A second of forged RSTs on all connections of the master closes them and moves no address."""
    stage = build(PAIR)
    stage.start_daemons()
    before = {node: stage.daemon(node).group("edge")["changes"] for node in stage.nodes}
    sent = reset_everything(stage, "alpha", ATTACK_S)
    closed = sum(
        len(facts.said(stage.daemon(node), "peer", "closed", "reset")) for node in stage.nodes
    )
    facts.show(f"{sent} forged resets, {closed} connections closed by them")
    assert closed > 2
    after = {node: stage.daemon(node).group("edge")["changes"] for node in stage.nodes}
    assert after == before
    assert stage.roles() == {"alpha": "MASTER", "bravo": "BACKUP"}
    stage.wait_standby("bravo")


def masters(stage: Stage) -> set[str]:
    """Return who says that it is master."""
    return {node for node, role in stage.roles().items() if role == "MASTER"}


def announced_by(frames: list[bytes]) -> set[str]:
    """Return the MACs that announced the IPv4 address."""
    found = set()
    for data in frames:
        frame = ethernet.parse(data)
        if frame.ethertype == ethernet.ETHERTYPE_ARP:
            packet = arp.parse(frame.payload)
            if packet.sender_ip == packet.target_ip == IPv4Address(V4):
                found.add(ethernet.format_mac(packet.sender_mac))
    return found


def heal_and_time(stage: Stage, client: Tap) -> float:
    """Heal every cut; return after how many milliseconds one master was left, who announces."""
    client.drain()
    stage.network.heal()
    took = facts.timed(lambda: len(masters(stage)) == 1, PATIENCE_S, "one master")
    names = stage.topology.owner_names()
    heard: list[bytes] = []

    def announced() -> bool:
        heard.extend(client.drain())
        return masters(stage) <= {names[mac] for mac in announced_by(heard)}

    wait_for(announced, PATIENCE_S, "its announcement")
    return took


def test_parted_and_healed(build: Build) -> None:
    """Parted on the shared network only: one master and a warning; on all: two, healed: one.

    The one that remains announces again, within two intervals of the healing.
    """
    stage = build(PAIR)
    stage.start_daemons()
    sides = [["alpha"], ["bravo"]]
    with tap(stage.lab, "client") as client:
        stage.network.partition(sides, [0])
        wait_for(lambda: warned(stage, "bravo"), PATIENCE_S, "bravo's warning")
        assert masters(stage) == {"alpha"}
        assert stage.daemon("bravo").group("edge")["changes"] == 1
        stage.network.partition(sides)
        took = facts.timed(lambda: len(masters(stage)) == 2, PATIENCE_S, "two masters")
        facts.show(f"the cut-off side took over after {took:.0f} ms")
        took = heal_and_time(stage, client)
        facts.show(f"healed: one master after {took:.0f} ms")
        assert took < 2 * INTERVAL_MS
        assert masters(stage) == {"alpha"}
        wait_for(lambda: not warned(stage, "bravo"), PATIENCE_S, "the end of the warning")


def warned(stage: Stage, node: str) -> bool:
    """Return whether `node` warns that it hears the master by the peer link only."""
    warnings = stage.daemon(node).group("edge")["warnings"]
    return any("are not heard on eth0; it lives on the peer link" in text for text in warnings)


@pytest.mark.parametrize("way", [("alpha", "bravo"), ("bravo", "alpha")])
def test_one_way_cut(build: Build, way: tuple[str, str]) -> None:
    """Cut in one direction, on the shared network and then on all: at the end one master again."""
    stage = build(PAIR)
    stage.start_daemons()
    stage.network.cut([way], [0])
    quiet = facts.passed(5 * stage.master_down_ns() / NS_PER_S)
    wait_for(lambda: quiet() or masters(stage) != {"alpha"}, PATIENCE_S, "five timers")
    assert masters(stage) == {"alpha"}
    stage.network.cut([way])
    quiet = facts.passed(5 * stage.master_down_ns() / NS_PER_S)
    wait_for(lambda: quiet() or len(masters(stage)) == 2, PATIENCE_S, "five timers more")
    facts.show(f"cut from {' to '.join(way)}: masters {', '.join(sorted(masters(stage)))}")
    stage.network.heal()
    wait_for(lambda: masters(stage) == {"alpha"}, PATIENCE_S, "alpha alone")
    with tap(stage.lab, "client") as client:
        names = stage.topology.owner_names()
        answered = {names[mac] for macs in client.owners((V4, V6)).values() for mac in macs}
    assert answered == {"alpha"}
