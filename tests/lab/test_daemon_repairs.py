"""What others do to a serving node is noticed and repaired: filters, tables, addresses, interfaces.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0

The interval is a quarter of a second; "within one interval" is what each test holds its repair to.
"""

from collections.abc import Callable, Iterator

import pytest

from carpool.lab import facts
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import Tap, tap
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

SHAPE = Shape(nodes=("alpha", "bravo"), interval="250ms")
INTERVAL_MS = 250.0
V4, V6 = "192.0.2.10", "2001:db8::10"
PATIENCE_S = 10.0


@pytest.fixture(scope="module", params=[pytest.param("bpf", marks=pytest.mark.bpf), "nft"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Return a site of two nodes that all tests of one gate share."""
    shape = Shape(nodes=SHAPE.nodes, interval=SHAPE.interval, gate=request.param)
    directory = facts.place(f"repairs-{request.param}")
    with Stage.build(directory, shape) as built:
        built.start_daemons()
        yield built


@pytest.fixture
def client(stage: Stage) -> Iterator[Tap]:
    """Return a tap on the client; alpha serves when the test begins."""
    stage.wait_master("alpha")
    with tap(stage.lab, "client") as opened:
        wait_for(lambda: owners(stage, opened) == {"alpha"}, PATIENCE_S, "alpha to answer")
        yield opened


def owners(stage: Stage, client: Tap) -> set[str]:
    """Return which nodes answer for both addresses; "" stands for an address without an answer."""
    names = stage.topology.owner_names()
    found: set[str] = set()
    for macs in client.owners((V4, V6)).values():
        found |= {names.get(mac, mac) for mac in macs} or {""}
    return found


def repaired_ms(stage: Stage, harm: Callable[[], object], fact: Callable[[], bool]) -> float:
    """Do harm to alpha, wait until `fact` is true again, return and print how long that took."""
    changes = stage.daemon("alpha").group("edge")["changes"]
    harm()
    took = facts.timed(fact, PATIENCE_S, "the repair")
    facts.show(f"repaired after {took:.0f} ms")
    assert stage.daemon("alpha").group("edge")["changes"] == changes
    return took


def gate_stands(stage: Stage) -> bool:
    """Return whether the kernel has the gate of alpha, as the tools see it."""
    if stage.daemon("alpha").group("edge")["gate"] == "nft":
        return "carpool" in stage.lab.run("alpha", ["nft", "list", "ruleset"])
    shown = [
        stage.lab.run("alpha", ["tc", "filter", "show", "dev", "eth0", way])
        for way in ("ingress", "egress")
    ]
    return all("carpool_gate" in text for text in shown)


def harms(stage: Stage) -> list[list[str]]:
    """Return what other programs do to the gate of this stage."""
    if stage.daemon("alpha").group("edge")["gate"] == "bpf":
        return [["tc", "qdisc", "del", "dev", "eth0", "clsact"]]
    tables = stage.lab.run("alpha", ["nft", "list", "tables"]).splitlines()
    deletions = [["nft", "delete", *line.split()] for line in tables if "permit" not in line]
    assert deletions
    return [["nft", "flush", "ruleset"], *deletions]


def test_gate_taken_away(stage: Stage, client: Tap) -> None:
    """A gate that another program removes stands again within an interval, and the journal says so.

    By `tc qdisc del` (BPF), by `nft flush ruleset` and by `nft delete` of each table (nft); only
    the table with the permit is the kernel's to protect: it belongs to the election process.
    """
    for harm in harms(stage):
        since = stage.now()

        def do_harm(command: list[str] = harm) -> None:
            stage.lab.run("alpha", command)

        took = repaired_ms(stage, do_harm, lambda: gate_stands(stage))
        assert took < INTERVAL_MS, harm
        facts.wait_said(stage.daemon("alpha"), "gate", "is restored", since=since)
        assert owners(stage, client) == {"alpha"}


@pytest.mark.parametrize("address", [f"{V4}/24", f"{V6}/64"])
def test_address_taken_away(stage: Stage, client: Tap, address: str) -> None:
    """A shared address that somebody deletes is there and answers again within an interval."""
    since = stage.now()
    bare = address.partition("/")[0]

    def delete() -> None:
        stage.lab.run("alpha", ["ip", "address", "del", address, "dev", "eth0"])

    took = repaired_ms(stage, delete, lambda: all(client.owners((V4, V6)).values()))
    assert took < INTERVAL_MS
    assert owners(stage, client) == {"alpha"}
    facts.wait_said(stage.daemon("alpha"), "address on eth0", bare, since=since)


def test_interface_down_and_up(stage: Stage, client: Tap) -> None:
    """An interface switched off makes its group INIT, with the reason; switched on, it serves."""
    daemon = stage.daemon("alpha")
    stage.lab.run("alpha", ["ip", "link", "set", "dev", "eth0", "down"])
    took = facts.timed(lambda: daemon.role("edge") == "INIT", PATIENCE_S, "alpha to be INIT")
    facts.show(f"noticed after {took:.0f} ms")
    assert took < INTERVAL_MS
    assert daemon.group("edge")["reason"] == "interface eth0 is down"
    wait_for(lambda: owners(stage, client) == {"bravo"}, PATIENCE_S, "bravo to answer")
    stage.lab.run("alpha", ["ip", "link", "set", "dev", "eth0", "up"])
    took = facts.timed(lambda: daemon.role("edge") == "BACKUP", PATIENCE_S, "alpha to listen")
    assert took < INTERVAL_MS
    stage.wait_master("alpha")
    wait_for(lambda: owners(stage, client) == {"alpha"}, PATIENCE_S, "alpha to answer")
    assert gate_stands(stage)


def test_interface_deleted_and_made_again(stage: Stage, client: Tap) -> None:
    """A deleted interface makes its group INIT; made again, under a new index, it serves gated."""
    daemon = stage.daemon("alpha")
    stage.network.remove_cable("alpha", "eth0")
    took = facts.timed(lambda: daemon.role("edge") == "INIT", PATIENCE_S, "alpha to be INIT")
    facts.show(f"noticed after {took:.0f} ms")
    assert took < INTERVAL_MS
    wait_for(lambda: "missing" in daemon.group("edge")["reason"], PATIENCE_S, "the reason")
    wait_for(lambda: owners(stage, client) == {"bravo"}, PATIENCE_S, "bravo to answer")
    stage.network.restore_cable("alpha", "eth0")
    stage.wait_master("alpha")
    wait_for(lambda: owners(stage, client) == {"alpha"}, PATIENCE_S, "alpha to answer")
    assert gate_stands(stage)
    assert {V4, V6} <= facts.addresses(stage, "alpha")["eth0"]


def test_interface_missing_at_start(stage: Stage, client: Tap) -> None:
    """A daemon whose interface is missing starts, says so, and takes part when it appears."""
    daemon = stage.daemon("alpha")
    daemon.stop()
    stage.network.remove_cable("alpha", "eth0")
    daemon.start()
    daemon.wait_ready()
    group = daemon.group("edge")
    assert (group["state"], group["reason"]) == ("INIT", "interface eth0 is missing")
    degraded = "degraded: edge: alpha cannot take part: interface eth0 is missing"
    wait_for(lambda: degraded in facts.carpool(daemon, "status").stdout, PATIENCE_S, degraded)
    assert facts.carpool(daemon, "status").returncode == 3
    stage.network.restore_cable("alpha", "eth0")
    stage.wait_master("alpha")
    wait_for(lambda: owners(stage, client) == {"alpha"}, PATIENCE_S, "alpha to answer")
    assert gate_stands(stage)
    wait_for(lambda: links(stage) == {"192.0.2.12": True, "10.9.9.2": True}, PATIENCE_S, "paths")


def links(stage: Stage) -> dict[str, bool]:
    """Return which paths of alpha's peer link to bravo are up."""
    (peer,) = stage.daemon("alpha").status()["peers"]
    return {path["path"]: path["up"] for path in peer["paths"]}


def test_address_put_on_a_standby(stage: Stage, client: Tap) -> None:
    """A shared address that somebody adds on a standby is taken off, whatever its length."""
    bravo = stage.daemon("bravo")
    stage.lab.run("bravo", ["ip", "address", "add", f"{V4}/32", "dev", "eth0"])
    facts.wait_said(bravo, "put on eth0 by somebody else")
    wait_for(
        lambda: V4 not in facts.addresses(stage, "bravo")["eth0"], PATIENCE_S, "it to be taken off"
    )
    assert owners(stage, client) == {"alpha"}
