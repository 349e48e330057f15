"""Another program has a shared address: named with its MAC while it is there, and not for ever.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0

The client's own kernel plays the other program: the address is configured there and answered for.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

import pytest

from carpool.base.time import NS_PER_S, Instant, after
from carpool.election.parameters import CONFLICT_KEPT_NS
from carpool.engine.effects import Send
from carpool.engine.engine import Engine
from carpool.engine.events import InterfaceFacts, InterfaceSeen, NeighbourHeard, Sent, Tick
from carpool.engine.setup import node_setup
from carpool.lab import facts
from carpool.lab.site import Shape, load, text_of
from carpool.lab.stage import Stage
from carpool.lab.waiting import wait_for
from carpool.wire import arp, ethernet

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
SHAPE = Shape(nodes=("alpha", "bravo"), preempt=False)
SHARED = {"192.0.2.10": "192.0.2.10/24", "2001:db8::10": "2001:db8::10/64"}
ANNOUNCES = (
    "net.ipv4.conf.eth0.arp_notify=1",
    "net.ipv6.conf.eth0.ndisc_notify=1",
)
NEW_MAC = "02:63:70:ff:ff:01"  # a host announces its addresses when its MAC changes
PATIENCE_S = 5.0


def mac(stage: Stage) -> str:
    """Return the client's MAC."""
    port = stage.topology.switches[0].port("client")
    assert port is not None
    return port.mac


def conflict(stage: Stage, node: str) -> Mapping[str, str]:
    """Return which addresses of the group `node` saw elsewhere."""
    return dict(stage.daemon(node).group("edge")["conflict"])


@pytest.mark.parametrize("address", list(SHARED))
def test_foreign_owner_that_announces(build: Build, address: str) -> None:
    """A host that announces a shared address is named in status, history and exit code 3."""
    stage = build(SHAPE)
    stage.start_daemons()
    daemon = stage.daemon("alpha")
    assert facts.carpool(daemon, "status").returncode == 0
    stage.lab.run("client", ["sysctl", "-q", "-w", *ANNOUNCES])
    word = ["nodad"] if ":" in address else []
    stage.lab.run("client", ["ip", "address", "add", SHARED[address], "dev", "eth0", *word])
    stage.lab.run("client", ["ip", "link", "set", "dev", "eth0", "address", NEW_MAC])
    wait_for(lambda: conflict(stage, "alpha") == {address: NEW_MAC}, PATIENCE_S, "the conflict")
    facts.wait_said(daemon, f"{NEW_MAC} answers for {address}")
    shown = facts.carpool(daemon, "status")
    assert shown.returncode == 3
    assert f"another machine, {NEW_MAC}, answers for {address}" in shown.stdout
    assert stage.roles() == {"alpha": "MASTER", "bravo": "BACKUP"}


def test_silent_foreign_owner_is_asked_for(build: Build) -> None:
    """A host that only answers is found by the new master soon after it took over."""
    stage = build(SHAPE)
    stage.start_daemons()
    for address in SHARED.values():
        stage.lab.run("client", ["ip", "address", "add", address, "dev", "eth0"])
    stage.daemon("alpha").order("step-down", group="edge", to="bravo")
    expected = dict.fromkeys(SHARED, mac(stage))
    took = facts.timed(lambda: conflict(stage, "bravo") == expected, PATIENCE_S, "the conflict")
    facts.show(f"found {took:.0f} ms after the step-down")
    assert facts.said(stage.daemon("bravo"), mac(stage), "answers for")


def serving_brain() -> tuple[Engine, Instant]:
    """Return the brain of alpha, master and serving, and the instant when that is so."""
    config = load(text_of(SHAPE), "lab")
    setup = node_setup(config, "alpha", revision="1", passwords={"edge": b"key"}, gate="bpf")
    now = Instant(NS_PER_S)
    brain = Engine(setup, now=now, counter_start=1)
    own = InterfaceFacts(2, b"\2alpha", True, True, IPv4Address("192.0.2.11"), None)
    brain.handle(InterfaceSeen("eth0", own), now)
    while not brain.snapshot(now, "bpf").groups[0].lease_until:
        assert brain.deadline is not None
        now = Instant(max(now, brain.deadline))
        for effect in brain.handle(Tick(), now):
            if isinstance(effect, Send):
                sent = Sent("edge", frozenset({4}), effect.lease_until, effect.serve, "")
                brain.handle(sent, now)
    return brain, now


def test_conflict_is_forgotten() -> None:
    """A conflict is shown for a minute after the other machine was last seen, and then no more."""
    brain, now = serving_brain()
    now = after(now, NS_PER_S // 10)
    claim = arp.gratuitous(ethernet.parse_mac(NEW_MAC), IPv4Address("192.0.2.10"))
    brain.handle(NeighbourHeard("eth0", claim, now), now)
    shown = brain.snapshot(after(now, CONFLICT_KEPT_NS - 1), "bpf").groups[0].conflict
    assert shown == {"192.0.2.10": NEW_MAC}
    assert brain.snapshot(after(now, CONFLICT_KEPT_NS), "bpf").groups[0].conflict == {}
