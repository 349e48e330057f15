"""Orders of an operator: step-down, demote, pause, resume, stop, reload; and what they leave."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from carpool.base.time import NS_PER_MS
from carpool.lab import scenes, site
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import LabError, wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PLANNED_NS = 60 * NS_PER_MS  # one run on any machine; the bench holds the median to 5 ms


def test_step_down_names_its_successor(build: Build) -> None:
    """The successor that was named serves, without a second owner, within the planned gap."""
    stage = build(Shape(preempt=False, interval="1s"))
    stage.start()
    scene = scenes.step_down(stage, "alpha", "charlie")
    assert scene.two_owners == 0
    assert scene.handover_ns < PLANNED_NS
    scene = scenes.step_down(stage, "charlie", "alpha")
    assert (scene.two_owners, scene.handover_ns < PLANNED_NS) == (0, True)


def test_step_down_to_nobody_is_refused(build: Build) -> None:
    """A successor that does not live is refused, and the master goes on serving."""
    stage = build(Shape(preempt=False))
    stage.start()
    stage.daemon("charlie").kill()
    with pytest.raises(LabError, match="charlie"):
        stage.daemon("alpha").order("step-down", group="edge", to="charlie")
    assert stage.daemon("alpha").role("edge") == "MASTER"


def test_demotion_moves_the_address(build: Build) -> None:
    """A demoted master hands over although nobody preempts; its demotion is shown."""
    stage = build(Shape(preempt=False))
    stage.start()

    def demote() -> None:
        stage.daemon("alpha").order("demote", group="edge", n=10)

    scene = scenes.play(stage, "demote alpha", ["alpha", "bravo"], demote)
    assert (scene.two_owners, scene.handover_ns < PLANNED_NS) == (0, True)
    assert stage.daemon("alpha").group("edge")["demotion"] == 10


def test_pause_and_resume(build: Build) -> None:
    """A paused node hands over and stays out though it is the best; resumed it takes back."""
    stage = build(Shape())
    stage.start()

    def order(verb: str) -> Callable[[], None]:
        return lambda: stage.daemon("alpha").order(verb) and None

    scene = scenes.play(stage, "pause alpha", ["alpha", "bravo"], order("pause"))
    assert scene.two_owners == 0
    assert stage.daemon("alpha").status()["paused"] is True
    scene = scenes.play(stage, "resume alpha", ["bravo", "alpha"], order("resume"))
    assert scene.two_owners == 0
    assert stage.daemon("alpha").status()["paused"] is False


def rewrite(stage: Stage, node: str, old: str, new: str) -> None:
    """Change a node's configuration file in place."""
    path = stage.lab.directory / node / site.FILE_NAME
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_reload_never_flaps(build: Build) -> None:
    """Reload of the same file, of a broken file, and of another interval: nobody is unserved."""
    stage = build(Shape())
    stage.start()
    daemon = stage.daemon("alpha")
    changes = daemon.group("edge")["changes"]

    def reload_same_and_broken() -> None:
        daemon.order("reload")
        rewrite(stage, "alpha", "vhid = 1", "vhid = 999")
        with pytest.raises(LabError, match="vhid"):
            daemon.order("reload")
        rewrite(stage, "alpha", "vhid = 999", "vhid = 1")
        daemon.order("reload")

    scene = scenes.play(stage, "reload", ["alpha"], reload_same_and_broken)
    assert scene.two_owners == 0
    assert scene.gap_ns < PLANNED_NS
    assert daemon.group("edge")["changes"] == changes


def test_different_revisions_are_said(build: Build) -> None:
    """Two nodes with different files are named in the status of both."""
    stage = build(Shape())
    rewrite(stage, "bravo", 'name = "lab"', 'name = "lab"\n# another text is no other model')
    rewrite(stage, "charlie", "preempt = true", "preempt = false")
    stage.start(observers=False)

    def revisions() -> bool:
        peers = stage.daemon("alpha").status()["peers"]
        own = stage.daemon("alpha").status()["revision"]
        seen = {peer["node"]: peer["revision"] for peer in peers}
        return seen.get("bravo") == own and seen.get("charlie", own) not in {own, ""}

    wait_for(revisions, 5.0, "the revisions of the peers")
    shown = carpool_status(stage, "alpha")
    assert "charlie" in shown.splitlines()[0]
    assert "on all nodes" not in shown


def carpool_status(stage: Stage, node: str) -> str:
    """Return what `carpool status` prints on a node, whatever its exit code."""
    command = [sys.executable, "-m", "carpool.cli.main", "--socket"]
    socket = str(stage.daemon(node).socket)
    return subprocess.run(
        [*command, socket, "status"], capture_output=True, text=True, check=False
    ).stdout


def test_stop_leaves_nothing(build: Build) -> None:
    """After a stop the node has no address, table, filter, socket or process of ours."""
    stage = build(Shape())
    before = inventory(stage, "alpha")
    stage.start(observers=False)
    assert inventory(stage, "alpha") != before
    stage.daemon("alpha").stop()
    assert inventory(stage, "alpha") == before
    assert not (stage.daemon("alpha").runtime / "control.sock").exists()
    assert stage.daemon("alpha").pids() == []


def inventory(stage: Stage, node: str) -> dict[str, str]:
    """Return what is configured on a node, as the tools print it."""
    commands = {
        "addresses": ["ip", "-brief", "address"],
        "rules": ["nft", "list", "ruleset"],
        "queues": ["tc", "qdisc", "show"],
        "links": ["ip", "-brief", "link"],
        "multicast": ["ip", "maddress", "show", "dev", "eth0"],
        "sysctl": ["sysctl", "-a", "-r", r"net\.ipv4\.conf\.eth0\."],
    }
    return {name: stage.lab.run(node, command) for name, command in commands.items()}


def test_three_processes_and_status(build: Build) -> None:
    """The daemon is three processes; each node's status knows master and standbys."""
    stage = build(Shape())
    stage.start(observers=False)
    assert len(stage.daemon("alpha").pids()) == 3
    for node in stage.nodes:
        wait_for(partial(_names_alpha, stage, node), 5.0, f"{node} to name the master")
    assert list(stage.daemon("alpha").group("edge")["standby"]) == ["bravo", "charlie"]


def _names_alpha(stage: Stage, node: str) -> bool:
    return stage.daemon(node).group("edge")["master"] == "alpha"
