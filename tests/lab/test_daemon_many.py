"""A group of 1,000 IPv4 and 250 IPv6 addresses: all of them move, and nothing else does.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0
"""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from carpool.base.errors import DecodeError
from carpool.lab import facts
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import Tap, tap
from carpool.lab.waiting import wait_for
from carpool.wire import arp, ethernet, ip, ndp

pytestmark = pytest.mark.lab

FOUR = [str(IPv4Address("10.50.0.1") + number) for number in range(999)]
SIX = [str(IPv6Address("2001:db8:1::1") + number) for number in range(249)]
ADDRESSES = ("192.0.2.10", *FOUR, "2001:db8::10", *SIX)
SHAPE = Shape(
    nodes=("alpha", "bravo"),
    preempt=False,
    addresses=(
        "192.0.2.10/24",
        *(f"{address}/16" for address in FOUR),
        "2001:db8::10/64",
        *(f"{address}/64" for address in SIX),
    ),
)
PATIENCE_S = 20.0
ALL_MOVED_MS_MAX = 1500.0  # a busy machine; the bench holds the strict bound


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return a site of two nodes that all tests share."""
    with Stage.build(facts.place("many"), SHAPE) as built:
        built.start_daemons()
        yield built


def announced(data: bytes, mac: str) -> str:
    """Return the address that a frame from `mac` announces, "" if it announces none."""
    try:
        frame = ethernet.parse(data)
        if ethernet.format_mac(frame.source) != mac:
            return ""
        if frame.ethertype == ethernet.ETHERTYPE_ARP:
            packet = arp.parse(frame.payload)
            return str(packet.sender_ip) if packet.sender_ip == packet.target_ip else ""
        message = ndp.parse(ip.parse_v6(frame.payload, ip.PROTOCOL_ICMPV6))
    except DecodeError:
        return ""
    return str(message.target) if isinstance(message, ndp.NeighborAdvertisement) else ""


def mac_of(stage: Stage, node: str) -> str:
    """Return the MAC of a node."""
    port = stage.topology.switches[0].port(node)
    assert port is not None
    return port.mac


def moved(stage: Stage, client: Tap, to: str, event: Callable[[], object]) -> float:
    """Let an event happen; return when, in ms, `to` has announced every address and answers all."""
    missing = set(ADDRESSES)
    mac = mac_of(stage, to)
    client.drain()
    began = stage.now()
    event()

    def complete() -> bool:
        missing.difference_update({announced(data, mac) for data in client.drain("received")})
        return not missing

    wait_for(complete, PATIENCE_S, f"{to} to announce every address")
    took = facts.milliseconds(began)
    unanswered = {
        address
        for start in range(0, len(ADDRESSES), 250)
        for address, macs in client.owners(ADDRESSES[start : start + 250], 2.0).items()
        if macs != {mac}
    }
    assert unanswered == set()
    facts.show(f"{len(ADDRESSES)} addresses announced by {to} after {took:.0f} ms, all answered")
    return took


def changes(stage: Stage) -> dict[str, int]:
    """Return how often each node that runs changed its role."""
    groups = {name: daemon.group("edge") for name, daemon in stage.daemons.items()}
    return {name: group["changes"] for name, group in groups.items() if group}


def calm(stage: Stage) -> None:
    """Assert that during ten master-down times nobody changes its role."""
    before = changes(stage)
    still = facts.passed(1.5)
    wait_for(lambda: still() or changes(stage) != before, PATIENCE_S, "some intervals")
    assert changes(stage) == before


def test_all_move(stage: Stage) -> None:
    """Step-down there and back, then kill -9: every address is answered by the new master only."""
    with tap(stage.lab, "client") as client:
        stage.wait_standby("bravo")
        before = changes(stage)
        alpha, bravo = stage.daemon("alpha"), stage.daemon("bravo")
        took = moved(stage, client, "bravo", lambda: alpha.order("step-down", group="edge"))
        assert took < ALL_MOVED_MS_MAX
        calm(stage)
        stage.wait_standby("alpha")
        took = moved(stage, client, "alpha", lambda: bravo.order("step-down", group="edge"))
        assert took < ALL_MOVED_MS_MAX
        calm(stage)
        assert changes(stage) == {name: count + 2 for name, count in before.items()}
        stage.wait_standby("bravo")
        took = moved(stage, client, "bravo", alpha.kill)
        assert took < ALL_MOVED_MS_MAX


def test_leftovers_are_cleaned(stage: Stage) -> None:
    """The killed node comes back as standby, without one of the addresses that it had."""
    alpha = stage.daemon("alpha")
    if alpha.pids():
        alpha.kill()
    stage.wait_role("bravo", "MASTER")
    alpha.start()
    alpha.wait_ready()
    stage.wait_standby("alpha")
    assert not set(ADDRESSES) & facts.addresses(stage, "alpha")["eth0"]
    calm(stage)
    stage.daemon("bravo").stop()
    assert not set(ADDRESSES) & facts.addresses(stage, "bravo")["eth0"]
    stage.wait_role("alpha", "MASTER")
    wait_for(
        lambda: set(ADDRESSES) <= facts.addresses(stage, "alpha")["eth0"], PATIENCE_S, "all of them"
    )
