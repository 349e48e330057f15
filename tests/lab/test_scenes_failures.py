"""Every way in which a master fails, played once: owners asserted, gaps printed at the end.

alpha  bravo  charlie  client  asker  watcher
==+======+======+========+=======+======+==  lan0
--+------+------+--                          heartbeat0
"""

from collections.abc import Callable
from itertools import permutations

import pytest

from carpool.base.time import NS_PER_MS
from carpool.lab import scenes
from carpool.lab.site import Shape
from carpool.lab.stage import Scene, Stage

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
SLACK_NS = 150 * NS_PER_MS  # a busy machine; the bench holds the strict bounds
GATES = [pytest.param("bpf", marks=pytest.mark.bpf), "nft"]


def one_owner(scene: Scene) -> Scene:
    """Assert that the observers saw the scene, and no instant with two owners."""
    for seen in scene.seen:
        assert seen.watched > 10, f"the watcher saw {seen.watched} answers for {seen.target}"
    assert scene.two_owners == 0, scene.account()
    return scene


@pytest.mark.parametrize("reversed_ports", [False, True])
@pytest.mark.parametrize("gate", GATES)
def test_kill_freeze_restart(build: Build, gate: str, *, reversed_ports: bool) -> None:
    """Killed, frozen, thawed, restarted: never two owners, with either gate and port order."""
    stage = build(Shape(gate=gate), reversed_ports=reversed_ports)
    stage.start()
    assert {daemon.group("edge")["gate"] for daemon in stage.daemons.values()} == {gate}
    killed = one_owner(scenes.kill(stage, "alpha", "bravo"))
    assert killed.takeover_ns < SLACK_NS
    one_owner(scenes.revive(stage, "alpha"))
    frozen = one_owner(scenes.freeze(stage, "alpha", "bravo"))
    assert frozen.gap_ns < stage.master_down_ns() - stage.lease_ns("bravo") + SLACK_NS
    one_owner(scenes.thaw(stage, "alpha"))
    stopped = one_owner(scenes.stop(stage, "alpha", "bravo"))
    assert stopped.handover_ns < SLACK_NS
    one_owner(scenes.revive(stage, "alpha"))


@pytest.mark.parametrize("kind", ["kill", "freeze", "cut off"])
def test_one_master_among_the_connected(build: Build, kind: str) -> None:
    """Two of three nodes fail, one after the other: exactly one of the connected is master."""
    stage = build(Shape())
    stage.start()
    fail = {"kill": scenes.kill, "freeze": scenes.freeze, "cut off": scenes.cut_off}[kind]
    mend = {"kill": scenes.revive, "freeze": scenes.thaw, "cut off": scenes.reconnect}[kind]
    one_owner(fail(stage, "alpha", "bravo"))
    one_owner(fail(stage, "bravo", "charlie"))
    assert stage.daemon("charlie").role("edge") == "MASTER"
    one_owner(mend(stage, "bravo"))
    one_owner(mend(stage, "alpha"))
    assert stage.roles() == {"alpha": "MASTER", "bravo": "BACKUP", "charlie": "BACKUP"}


def test_elect_killed_with_a_standby(build: Build) -> None:
    """When only `elect` dies the best standby serves, and the node comes back by itself."""
    stage = build(Shape(preempt=False))
    stage.start()
    one_owner(scenes.kill_elect(stage, "alpha", "bravo"))
    stage.wait_standby("alpha")


def test_elect_killed_alone(build: Build) -> None:
    """A node alone in its group serves again within 500 ms after its `elect` died."""
    stage = build(Shape(nodes=("alpha",), heartbeat=False))
    stage.start()
    scene = one_owner(scenes.kill_elect(stage, "alpha", "alpha"))
    assert 0 < scene.gap_ns < 500 * NS_PER_MS


def test_serve_killed_moves_nothing(build: Build) -> None:
    """The death of the control socket's process does not move an address."""
    stage = build(Shape())
    stage.start()
    daemon = stage.daemon("alpha")
    elect = int((daemon.runtime / "elect.pid").read_text())
    parent = int((daemon.runtime / "carpoold.pid").read_text())
    (serve,) = [pid for pid in daemon.pids() if pid not in {elect, parent}]
    scene = scenes.play(
        stage,
        "kill -9 serve",
        ["alpha"],
        lambda: scenes.kill_process(serve),
        daemon.wait_ready,
    )
    one_owner(scene)
    assert scene.gap_ns < SLACK_NS


def test_slow_interval(build: Build) -> None:
    """At one second the closed peer link moves the address at once, freeze waits for the lease."""
    stage = build(Shape(interval="1s"))
    stage.start()
    killed = one_owner(scenes.kill(stage, "alpha", "bravo"))
    assert killed.takeover_ns < SLACK_NS
    one_owner(scenes.revive(stage, "alpha"))
    frozen = one_owner(scenes.freeze(stage, "alpha", "bravo"))
    assert frozen.gap_ns < stage.master_down_ns() - stage.lease_ns("bravo") + SLACK_NS
    one_owner(scenes.thaw(stage, "alpha"))


def test_orders_of_failure_are_all(build: Build) -> None:
    """Whichever two nodes are killed in whichever order, the third serves."""
    stage = build(Shape())
    stage.start()
    for first, second in list(permutations(stage.nodes, 2))[::2]:
        left = next(node for node in stage.nodes if node not in {first, second})
        stage.daemon(first).kill()
        stage.daemon(second).kill()
        stage.wait_serving(left)
        stage.wait_role(left, "MASTER")
        assert stage.master() == left
        for node in (first, second):
            stage.daemon(node).start()
        for node in (first, second):
            stage.daemon(node).wait_ready()
        stage.wait_serving("alpha")
