"""The positive control: real ucarp leaves two owners after kill -9, and the lab sees them.

uma  una   client  asker  watcher
=+====+======+=======+======+==  lan0
"""

from collections.abc import Callable

import pytest

from carpool.base.time import NS_PER_S
from carpool.lab import peers
from carpool.lab.peers import Ucarp, UcarpOptions
from carpool.lab.site import Shape
from carpool.lab.stage import Stage

pytestmark = pytest.mark.lab


def pair(stage: Stage) -> tuple[Ucarp, Ucarp]:
    """Return two ucarps of one group, the first preferred; it serves."""
    stage.observers.start_responders()
    made = [
        Ucarp(
            stage.lab,
            node,
            UcarpOptions("eth0", f"192.0.2.{11 + number}", 1, "secret", "192.0.2.10", 1, number),
        )
        for number, node in enumerate(stage.nodes)
    ]
    made[0].start()
    made[0].wait_state("MASTER")
    made[1].start()
    made[1].wait_state("BACKUP")
    stage.observers.start()
    stage.wait_serving(stage.nodes[0])
    return made[0], made[1]


def test_watcher_sees_what_ucarp_leaves(build: Callable[..., Stage]) -> None:
    """After kill -9 of ucarp's master both hosts answer ARP, for as long as one looks."""
    assert peers.installed()
    stage = build(Shape(nodes=("uma", "una"), addresses=("192.0.2.10/24",), heartbeat=False))
    first, second = pair(stage)
    with stage.scene("kill -9 ucarp", ["uma", "una"], tail_ns=NS_PER_S) as scene:
        scene.began = first.kill()
        second.wait_state("MASTER")
    assert scene.seen[0].answered_twice > 50
    assert scene.two_owners > 50
    owners = stage.observers.owners_by_watcher(0, scene.ended - NS_PER_S // 2, scene.ended)
    assert set(owners) == {"uma", "una"}
