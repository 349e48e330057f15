"""Reload while serving: what did not change is not touched, a broken file changes nothing.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0
"""

import re
import signal
from collections.abc import Callable

import pytest

from carpool.base.time import NS_PER_MS
from carpool.lab import facts, processes, scenes
from carpool.lab.nodes import Daemon
from carpool.lab.site import FILE_NAME, Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import tap
from carpool.lab.waiting import LabError, wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PATIENCE_S = 10.0
V4, V6, MORE = "192.0.2.10", "2001:db8::10", "192.0.2.99"
INNER = """
[hot.inner]
vhid = 9
interface = "eth0"
addresses = ["192.0.2.30/24", "2001:db8::30/64"]
nodes = ["alpha", "bravo"]
password_file = "{directory}/edge.pass"
interval = "100ms"
"""


def pair(build: Build, *, more: str = "") -> Stage:
    """Build and start two nodes; nothing is measured yet."""
    stage = build(Shape(nodes=("alpha", "bravo"), more=more))
    stage.start()
    return stage


def edit_all(stage: Stage, old: str, new: str) -> None:
    """Change the file on every node."""
    for node in stage.nodes:
        facts.edit(stage, node, old, new)


def reload_all(stage: Stage) -> None:
    """Order every node to reload, the master first."""
    for daemon in stage.daemons.values():
        daemon.order("reload")


def changes(stage: Stage) -> dict[str, int]:
    """Return how often each node changed its role."""
    return {name: daemon.group("edge")["changes"] for name, daemon in stage.daemons.items()}


def answering(stage: Stage, *addresses: str) -> set[str]:
    """Return which nodes answer for the addresses; "" stands for one without an answer."""
    names = stage.topology.owner_names()
    found: set[str] = set()
    with tap(stage.lab, "client") as client:
        for macs in client.owners(addresses).values():
            found |= {names.get(mac, mac) for mac in macs} or {""}
    return found


@pytest.mark.parametrize("way", ["order", "SIGHUP"])
def test_broken_file_changes_nothing(build: Build, way: str) -> None:
    """A broken file is refused with its place, by `reload` and by SIGHUP alike; nothing moves."""
    stage = build(Shape(nodes=("alpha",)))
    stage.start_daemons()
    alpha = stage.daemon("alpha")
    before = alpha.status()["revision"]
    facts.edit(stage, "alpha", "vhid = 1", "vhid = 999")
    place = re.compile(rf"{re.escape(str(alpha.directory / FILE_NAME))}:\d+:\d+: error: .*vhid")
    if way == "order":
        with pytest.raises(LabError) as refused:
            alpha.order("reload")
        assert place.search(str(refused.value))
    else:
        hang_up(stage)
    assert place.search(facts.wait_said(alpha, "refused, nothing was changed"))
    wait_for(lambda: place.search(warnings(alpha)), PATIENCE_S, "the place in the status")
    assert alpha.status()["revision"] == before
    assert changes(stage) == {"alpha": 2}
    facts.edit(stage, "alpha", "vhid = 999", "vhid = 1")
    facts.edit(stage, "alpha", "preempt = true", "preempt = false")
    hang_up(stage)
    wait_for(lambda: alpha.status()["revision"] != before, PATIENCE_S, "the new revision")
    assert alpha.group("edge")["preempt"] is False
    assert changes(stage) == {"alpha": 2}


def warnings(daemon: Daemon) -> str:
    """Return the warnings in a daemon's status."""
    return "\n".join(daemon.status().get("warnings", ()))


def hang_up(stage: Stage) -> None:
    """Send SIGHUP to alpha's parent."""
    pid = int((stage.daemon("alpha").runtime / "carpoold.pid").read_text())
    processes.send([pid], signal.SIGHUP)


def test_address_added_and_removed(build: Build) -> None:
    """Addresses come and go by reload: the others answer without a gap, the master stays."""
    stage = pair(build)
    before = changes(stage)

    def add() -> None:
        edit_all(stage, f'"{V6}/64"', f'"{V6}/64", "{MORE}/24", "2001:db8::99/64"')
        reload_all(stage)

    scene = scenes.play(
        stage,
        "addresses added by reload",
        ["alpha"],
        add,
        lambda: wait_for(
            lambda: answering(stage, MORE, "2001:db8::99") == {"alpha"}, PATIENCE_S, "the new ones"
        ),
    )
    assert (scene.two_owners, scene.gap_ns < 100 * NS_PER_MS) == (0, True), scene.account()

    def remove() -> None:
        edit_all(stage, f', "{MORE}/24", "2001:db8::99/64"', "")
        reload_all(stage)

    scene = scenes.play(
        stage,
        "addresses removed by reload",
        ["alpha"],
        remove,
        lambda: wait_for(
            lambda: MORE not in facts.addresses(stage, "alpha")["eth0"], PATIENCE_S, "their end"
        ),
    )
    assert (scene.two_owners, scene.gap_ns < 100 * NS_PER_MS) == (0, True), scene.account()
    assert "2001:db8::99" not in facts.addresses(stage, "alpha")["eth0"]
    assert answering(stage, MORE, "2001:db8::99") == {""}
    assert changes(stage) == before
    stage.wait_standby("bravo")
    moved = scenes.step_down(stage, "alpha", "bravo")
    assert moved.two_owners == 0, moved.account()


def test_group_added_and_removed(build: Build) -> None:
    """A group that a reload adds is elected, one that it removes leaves nothing; edge stays."""
    stage = pair(build)
    before, inventory = changes(stage), gate(stage)

    def add() -> None:
        for node in stage.nodes:
            path = stage.daemon(node).directory / FILE_NAME
            path.write_text(path.read_text() + INNER.format(directory=stage.lab.directory))
        reload_all(stage)

    def elected() -> object:
        stage.wait_master("alpha", "inner")
        return wait_for(
            lambda: answering(stage, "192.0.2.30", "2001:db8::30") == {"alpha"}, PATIENCE_S, "inner"
        )

    scene = scenes.play(stage, "group added by reload", ["alpha"], add, elected)
    assert (scene.two_owners, scene.gap_ns < 100 * NS_PER_MS) == (0, True), scene.account()

    def remove() -> None:
        for node in stage.nodes:
            path = stage.daemon(node).directory / FILE_NAME
            path.write_text(path.read_text().partition("\n[hot.inner]")[0])
        reload_all(stage)

    def gone() -> object:
        return wait_for(
            lambda: not {"192.0.2.30", "2001:db8::30"} & facts.addresses(stage, "alpha")["eth0"],
            PATIENCE_S,
            "the addresses to go",
        )

    scene = scenes.play(stage, "group removed by reload", ["alpha"], remove, gone)
    assert (scene.two_owners, scene.gap_ns < 100 * NS_PER_MS) == (0, True), scene.account()
    assert stage.daemon("alpha").group("inner") == {}
    assert answering(stage, "192.0.2.30", "2001:db8::30") == {""}
    assert gate(stage) == inventory
    assert changes(stage) == before


def gate(stage: Stage) -> str:
    """Return how many filters and tables alpha has."""
    filters = stage.lab.run("alpha", ["tc", "filter", "show", "dev", "eth0", "ingress"])
    return f"{filters.count('direct-action')} {stage.lab.run('alpha', ['nft', 'list', 'tables'])}"


def test_vhid_changed(build: Build) -> None:
    """A group whose vhid changes is elected anew under the new one, with one owner in the end."""
    stage = pair(build)

    def change() -> None:
        edit_all(stage, "vhid = 1", "vhid = 77")
        reload_all(stage)

    def elected() -> object:
        return wait_for(lambda: roles(stage) == {"alpha": "MASTER", "bravo": "BACKUP"}, 10.0, "77")

    scene = scenes.play(stage, "vhid changed by reload", ["alpha"], change, elected)
    facts.show(f"gap while the vhid changed: {scene.gap_ns / NS_PER_MS:.0f} ms")
    for daemon in stage.daemons.values():
        assert daemon.group("edge")["vhid"] == 77
    assert answering(stage, V4, V6) == {"alpha"}


def roles(stage: Stage) -> dict[str, str]:
    """Return the role of each node that has the new vhid."""
    groups = {name: daemon.group("edge") for name, daemon in stage.daemons.items()}
    return {name: group["state"] for name, group in groups.items() if group.get("vhid") == 77}
