"""Bad packets on the shared network: nothing moves but counters, and the clockwork stays on time.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0

The client throws them. Packets with another TTL or vhid are stopped by the kernel's socket filter:
they are not even counted, and cost the election process nothing.
"""

import random
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from carpool.base.errors import DecodeError
from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.lab import facts, scenes
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import Tap, tap
from carpool.lab.waiting import wait_for
from carpool.wire import carp, ethernet, ip
from carpool.wire.checksum import internet_checksum

pytestmark = pytest.mark.lab

V4, V6 = IPv4Address("192.0.2.10"), IPv6Address("2001:db8::10")
SOURCE = IPv4Address("192.0.2.200")
SOURCE_V6 = IPv6Address("fe80::bad")
PATIENCE_S = 10.0
FLOOD = 20_000
RSS_GROWTH_MAX = 2 << 20
LATENESS_NS_MAX = 100 * NS_PER_MS  # the kernel pauses real-time work for 50 ms in every second
SHAPE = Shape(nodes=("alpha", "bravo"), interval="250ms")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return a site of two nodes that all tests share."""
    with Stage.build(facts.place("packets"), SHAPE) as built:
        built.start_daemons()
        before = changes(built)
        yield built
        still = facts.passed(1.2 * built.master_down_ns() / NS_PER_S)
        wait_for(lambda: still() or changes(built) != before, PATIENCE_S, "a timer")
        assert changes(built) == before


@pytest.fixture
def client(stage: Stage) -> Iterator[Tap]:
    """Return a tap on the client; whatever the test sends, alpha is master before and after."""
    stage.wait_standby("bravo")
    before = changes(stage)
    with tap(stage.lab, "client") as opened:
        yield opened
    assert changes(stage) == before
    assert stage.roles() == {"alpha": "MASTER", "bravo": "BACKUP"}


def changes(stage: Stage) -> dict[str, int]:
    """Return how often each node changed its role."""
    return {name: daemon.group("edge")["changes"] for name, daemon in stage.daemons.items()}


def counters(stage: Stage, node: str) -> dict[str, int]:
    """Return the counters of a node."""
    return dict(stage.daemon(node).status()["counters"])


def key(stage: Stage) -> bytes:
    """Return the group's password."""
    return (stage.lab.directory / "edge.pass").read_bytes().strip()


def good(stage: Stage, **fields: int) -> bytes:
    """Return an advertisement that only the group's members could have made."""
    signer = carp.Authenticator(key(stage), fields.pop("vhid", 1), [V4], [V6])
    made = {"advbase": 0, "advskew": 200, "counter": 77, **fields}
    return carp.encode(carp.advertise(signer, **made))


def summed(payload: bytes) -> bytes:
    """Return the payload with its checksum set right."""
    blank = payload[:6] + bytes(2) + payload[8:]
    return blank[:6] + internet_checksum(blank).to_bytes(2, "big") + blank[8:]


VRRP2 = bytes((0x21, 1, 100, 1, 0, 1)) + bytes(2) + V4.packed + bytes(8)
VRRP3 = bytes((0x31, 1, 100, 1, 0, 100)) + bytes(2) + V4.packed


def bad_payloads(stage: Stage) -> dict[str, bytes]:
    """Return, for each reason why a payload is refused, one such payload."""
    right = good(stage)
    stranger = carp.Authenticator(b"another-key", 1, [V4], [V6])
    forged = carp.advertise(stranger, advbase=0, advskew=1, counter=1)
    return {
        "length": right[:20],
        "checksum": right[:30] + b"\xff" + right[31:],
        "version": summed(b"\x11" + right[1:]),
        "type": summed(b"\x22" + right[1:]),
        "vrrp": VRRP3,
        "hmac": carp.encode(forged),
    }


@pytest.mark.parametrize("reason", ["length", "checksum", "version", "type", "vrrp", "hmac"])
def test_rejected_and_counted(stage: Stage, client: Tap, reason: str) -> None:
    """Each kind of bad payload, by v4 and by v6, moves its own counter on both nodes."""
    payload = bad_payloads(stage)[reason]
    before = {node: counters(stage, node).get(f"reject.{reason}", 0) for node in stage.nodes}
    for source in (SOURCE, SOURCE_V6):
        client.send(carp.multicast_frame(payload, client.mac, source))
    client.send(carp.multicast_frame(VRRP2, client.mac, SOURCE))
    for node in stage.nodes:
        wait_for(
            lambda each=node: counters(stage, each).get(f"reject.{reason}", 0) >= before[each] + 2,
            PATIENCE_S,
            f"reject.{reason} on {node}",
        )


def test_stopped_by_the_kernel(stage: Stage, client: Tap) -> None:
    """Perfect advertisements with TTL 254, or of another vhid, do not reach the election."""
    before = {node: rejected(stage, node) for node in stage.nodes}
    routed = bytearray(carp.multicast_frame(good(stage, advskew=0), client.mac, SOURCE))
    routed[22] = 254
    routed[24:26] = bytes(2)
    routed[24:26] = internet_checksum(bytes(routed[14:34])).to_bytes(2, "big")
    routed_v6 = bytearray(carp.multicast_frame(good(stage, advskew=0), client.mac, SOURCE_V6))
    routed_v6[21] = 254
    other = carp.multicast_frame(good(stage, vhid=2, advskew=0), client.mac, SOURCE)
    for frame in (bytes(routed), bytes(routed_v6), other) * 20:
        client.send(frame)
    client.send(carp.multicast_frame(VRRP3, client.mac, SOURCE))  # is counted when those are past
    for node in stage.nodes:
        wait_for(
            lambda each=node: rejected(stage, each) == before[each] + 1, PATIENCE_S, "the last one"
        )


def rejected(stage: Stage, node: str) -> int:
    """Return how many packets a node refused, for whatever reason."""
    return sum(count for name, count in counters(stage, node).items() if "reject." in name)


def test_garbage(stage: Stage, client: Tap) -> None:
    """Two thousand packets of random length and content change nothing."""
    lottery = random.Random(4)
    before = rejected(stage, "alpha")
    for _ in range(1000):
        payload = bytes((0x21, 1)) + lottery.randbytes(lottery.randrange(60))
        client.send(carp.multicast_frame(payload, client.mac, SOURCE))
        frame = carp.GROUP_V4_MAC + client.mac + b"\x08\x00" + lottery.randbytes(60)
        client.send(frame[:23] + b"\x70" + frame[24:])
    wait_for(lambda: rejected(stage, "alpha") >= before + 1000, PATIENCE_S, "them to be counted")


def of_alpha(stage: Stage) -> bytes:
    """Return an advertisement of alpha, as the wire has it: the IPv4 frame."""
    port = stage.topology.switches[0].port("alpha")
    assert port is not None
    with tap(stage.lab, "client") as ear:
        heard: list[bytes] = []

        def arrived() -> bool:
            heard.extend(data for data in ear.drain("received") if is_advertisement(data, port.mac))
            return bool(heard)

        wait_for(arrived, PATIENCE_S, "an advertisement of alpha")
    return heard[0]


def is_advertisement(data: bytes, mac: str) -> bool:
    """Return whether a frame is an IPv4 advertisement from that MAC."""
    try:
        frame = ethernet.parse(data)
        if ethernet.format_mac(frame.source) != mac or frame.ethertype != ethernet.ETHERTYPE_IPV4:
            return False
        return len(ip.parse_v4(frame.payload, ip.PROTOCOL_CARP).payload) >= 36
    except DecodeError:
        return False


def test_own_packet_back(stage: Stage, client: Tap) -> None:
    """The master's own advertisement, sent back to it, is a loop: counted and said."""
    before = counters(stage, "alpha").get("reject.loop", 0)
    since = stage.now()
    client.send(of_alpha(stage))
    wait_for(
        lambda: counters(stage, "alpha").get("reject.loop", 0) > before, PATIENCE_S, "the loop"
    )
    facts.wait_said(stage.daemon("alpha"), "our own advertisement came back", since=since)


@pytest.mark.parametrize(
    ("advbase", "advskew", "demote"), [(0, 0, 0), (0, 254, 0), (0, 64, 255), (9, 9, 9)]
)
def test_altered(stage: Stage, client: Tap, advbase: int, advskew: int, demote: int) -> None:
    """A captured advertisement with other times or demotion (no HMAC there) moves no role."""
    frame = of_alpha(stage)
    payload = bytearray(frame[34:70])
    payload[2], payload[4], payload[5] = advskew, demote, advbase
    for _ in range(20):
        client.send(frame[:34] + summed(bytes(payload)))
    assert counters(stage, "bravo")["heard.edge"]


def test_forged_bow_out(build: Callable[..., Stage]) -> None:
    """A captured advertisement made into a bow-out tempts the standby, and there is one owner."""
    stage = build(Shape(nodes=("alpha", "bravo")))
    stage.start()
    frame = of_alpha(stage)
    payload = bytearray(frame[34:70])
    payload[2], payload[4], payload[5] = 255, 0, 255

    def attack() -> None:
        with tap(stage.lab, "client") as attacker:
            for _ in range(5):
                attacker.send(frame[:34] + summed(bytes(payload)))
                wait_for(facts.passed(0.15), PATIENCE_S, "the next one")

    scene = scenes.play(stage, "forged bow-outs", ["alpha"], attack)
    assert (scene.two_owners, scene.gap_ns < 100 * NS_PER_MS) == (0, True), scene.account()
    assert stage.roles() == {"alpha": "MASTER", "bravo": "BACKUP"}


def test_flood(stage: Stage, client: Tap) -> None:
    """Twenty thousand forged advertisements cost no role, no memory, and no punctuality."""
    before = {node: resident(stage, node) for node in stage.nodes}
    sent_before = counters(stage, "alpha")["sent.edge"]
    frame = carp.multicast_frame(bad_payloads(stage)["hmac"], client.mac, SOURCE)
    began = stage.now()
    for _ in range(FLOOD):
        client.send(frame)
    sent_ms = facts.milliseconds(began)
    due = int(sent_ms * NS_PER_MS / stage.timing().interval_ns["alpha"])
    wait_for(
        lambda: counters(stage, "alpha")["sent.edge"] >= sent_before + due, 1.5, "alpha's own ones"
    )
    for node in stage.nodes:
        wait_for(lambda each=node: late(stage, each) >= 0, PATIENCE_S, "a snapshot")
        grown = resident(stage, node) - before[node]
        facts.show(f"{node}: {FLOOD} in {sent_ms:.0f} ms: late {late(stage, node) / 1e6:.1f} ms")
        assert grown < RSS_GROWTH_MAX
        assert late(stage, node) < LATENESS_NS_MAX


def late(stage: Stage, node: str) -> int:
    """Return by how much the election process was late at most."""
    return int(stage.daemon(node).status()["counters"]["elect.lateness-ns-max"])


def resident(stage: Stage, node: str) -> int:
    """Return the resident bytes of a node's election process."""
    pid = int((stage.daemon(node).runtime / "elect.pid").read_text())
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
