"""What should not happen on a machine and does: renamed interfaces, foreign qdiscs, no room left.

alpha  bravo   client  asker  watcher
==+======+=======+=======+======+==  lan0
--+------+--                         heartbeat0
"""

import os
import resource
import shutil
import signal
from collections.abc import Callable

import pytest

from carpool.lab import facts, processes, scenes
from carpool.lab.site import FILE_NAME, Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PATIENCE_S = 10.0
V4 = "192.0.2.10"


def pair(build: Build, **more: object) -> Stage:
    """Build and start two nodes; alpha serves."""
    stage = build(Shape(nodes=("alpha", "bravo"), **more))
    stage.start()
    stage.wait_master("alpha")
    return stage


def pid_of(stage: Stage, node: str, process: str) -> int:
    """Return the id of one of a node's processes."""
    return int((stage.daemon(node).runtime / f"{process}.pid").read_text())


def test_renamed_interface_leaves_no_owner(build: Build) -> None:
    """The interface of the master gets another name: its addresses are gone before its gate is."""
    stage = pair(build)
    harm = ["ip", "link", "set", "eth0", "name", "other0"]
    scene = scenes.play(
        stage, "interface renamed", ["alpha", "bravo"], lambda: stage.lab.run("alpha", harm)
    )
    assert scene.two_owners == 0
    assert V4 not in facts.addresses(stage, "alpha")["other0"]
    assert "is missing" in stage.daemon("alpha").group("edge")["reason"]


@pytest.mark.bpf
def test_foreign_ingress_qdisc_in_the_gate_s_place(build: Build) -> None:
    """Where no gate can stand nothing is served: the node hands over, says why, and comes back."""
    stage = pair(build)
    batch = stage.lab.directory / "batch"
    batch.write_text("qdisc del dev eth0 clsact\nqdisc add dev eth0 ingress\n")
    alpha, elect = stage.daemon("alpha"), pid_of(stage, "alpha", "elect")

    def replace() -> None:
        processes.send([elect], signal.SIGSTOP)  # else its repair is faster than tc
        stage.lab.run("alpha", ["tc", "-batch", str(batch)])
        processes.send([elect], signal.SIGCONT)

    scene = scenes.play(stage, "ingress qdisc", ["alpha", "bravo"], replace)
    assert V4 not in facts.addresses(stage, "alpha")["eth0"]
    assert "no gate" in alpha.group("edge")["reason"]
    assert pid_of(stage, "alpha", "elect") == elect
    assert scene.two_owners <= 5  # what slips through between the foreign order and our repair
    stage.lab.run("alpha", ["tc", "qdisc", "del", "dev", "eth0", "ingress"])
    wait_for(lambda: alpha.group("edge")["state"] != "INIT", PATIENCE_S, "alpha to come back")


def test_no_room_for_a_child_moves_no_address(build: Build) -> None:
    """The parent cannot start `serve` again for want of descriptors: it tries on, alpha serves."""
    stage = pair(build)
    parent, serve = pid_of(stage, "alpha", "carpoold"), pid_of(stage, "alpha", "serve")
    before = resource.prlimit(parent, resource.RLIMIT_NOFILE)
    resource.prlimit(parent, resource.RLIMIT_NOFILE, (6, before[1]))
    processes.send([serve], signal.SIGKILL)
    alpha = stage.daemon("alpha")
    wait_for(lambda: "cannot be started" in alpha.log_tail(), PATIENCE_S, "the refusal")
    assert stage.daemon("bravo").group("edge")["state"] == "BACKUP"
    resource.prlimit(parent, resource.RLIMIT_NOFILE, before)
    wait_for(lambda: pid_of(stage, "alpha", "serve") != serve, PATIENCE_S, "serve to come back")
    alpha.wait_ready()
    assert stage.daemon("bravo").group("edge")["changes"] == 1


def test_runtime_directory_removed(build: Build) -> None:
    """Somebody tidies the runtime directory up and elect dies: the node serves again by itself."""
    stage = build(Shape(nodes=("alpha",), heartbeat=False))
    stage.start()
    elect = pid_of(stage, "alpha", "elect")
    shutil.rmtree(stage.daemon("alpha").runtime)
    os.kill(elect, signal.SIGKILL)
    pid_file = stage.daemon("alpha").runtime / "elect.pid"
    wait_for(pid_file.exists, PATIENCE_S, "elect to be started again")
    wait_for(
        lambda: V4 in facts.addresses(stage, "alpha")["eth0"], PATIENCE_S, "alpha to serve again"
    )


def test_groups_are_exchanged_by_a_reload(build: Build) -> None:
    """A reload of more groups than there are free places leaves the others alone."""
    more = "".join(
        f'\n[hot.a{number}]\nvhid = {number + 2}\ninterface = "eth0"\n'
        f'addresses = ["10.7.0.{number + 1}/32"]\nnodes = ["alpha"]\n'
        "PASSWORD\n"
        for number in range(130)
    )
    stage = build(Shape(nodes=("alpha",), heartbeat=False))
    file = stage.daemon("alpha").directory / FILE_NAME
    text = file.read_text()
    password = next(line for line in text.splitlines() if line.startswith("password_file"))
    file.write_text(text + more.replace("PASSWORD", password))
    stage.start_daemons()
    elect = pid_of(stage, "alpha", "elect")
    facts.edit(stage, "alpha", "[hot.a", "[hot.b")
    stage.daemon("alpha").order("reload")
    names = {f"b{number}" for number in range(130)} | {"edge"}
    wait_for(
        lambda: {group["group"] for group in stage.daemon("alpha").status()["groups"]} == names,
        PATIENCE_S,
        "the new groups",
    )
    assert pid_of(stage, "alpha", "elect") == elect
    assert stage.daemon("alpha").group("edge")["changes"] == 2


def test_peer_port_held_by_another_program(build: Build) -> None:
    """A port that is taken while elect is down keeps it from being called, not from serving."""
    stage = pair(build)
    stage.daemon("bravo").stop()
    parent, elect = pid_of(stage, "alpha", "carpoold"), pid_of(stage, "alpha", "elect")
    processes.send([parent], signal.SIGSTOP)
    processes.send([elect], signal.SIGKILL)
    stage.lab.python("squatter", "alpha", "http.server", ["7112", "--bind", "0.0.0.0"])
    wait_for(
        lambda: "0.0.0.0:7112" in stage.lab.run("alpha", ["ss", "-ltnH"]), PATIENCE_S, "the thief"
    )
    processes.send([parent], signal.SIGCONT)
    facts.wait_said(stage.daemon("alpha"), "peers cannot connect to this node")
    wait_for(lambda: V4 in facts.addresses(stage, "alpha")["eth0"], PATIENCE_S, "alpha to serve")
