"""`carpool lab` verb by verb: a lab that outlives the command, found again by its registry."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from carpool.base.time import human_duration
from carpool.control.files import load as load_config
from carpool.lab import registry, rootless, site
from carpool.lab.example import EXAMPLE
from carpool.lab.faults import parse_groups
from carpool.lab.netns import Lab, labs_directory, stop_signals_raise
from carpool.lab.nodes import Daemon
from carpool.lab.screen import Colour, Screen, paint, table
from carpool.lab.stage import Stage
from carpool.lab.topology import draw
from carpool.lab.waiting import LabError

ANCHOR_FACT: Final = "anchor"  # a process inside the user namespace of a rootless lab


def directory() -> Path:
    """Return where the lab of `carpool lab up` lives."""
    return labs_directory() / "up"


def up(file: str = "") -> int:
    """Build the lab of `file` (the shipped example if empty), start it, and leave it running."""
    config = load_config(file) if file else site.load(EXAMPLE, "example")
    screen = Screen()
    with stop_signals_raise():
        stage = Stage.build(directory(), config)
        try:
            _start(stage, screen)
        except BaseException:
            stage.lab.remove()
            raise
    return 0


def _start(stage: Stage, screen: Screen) -> None:
    screen.plain(f"{draw(stage.topology)}\n")
    for sentence in (*stage.topology.left_out, *(rootless.LEFT_OUT if rootless.inside() else ())):
        screen.plain(sentence)
    screen.line(f"start carpoold on {', '.join(stage.nodes)}")
    stage.start(observers=False)
    for group in stage.config.hot:
        screen.line(f"{group}: {stage.master(group)} is master", colour=Colour.GREEN)
    responder = next(each for each in stage.lab.registry.processes if each.role == "responder")
    stage.lab.registry.facts[ANCHOR_FACT] = str(responder.pid) if rootless.inside() else ""
    stage.lab.registry.detached = True
    stage.lab.save()
    socket = stage.daemon(stage.nodes[0]).socket
    screen.plain("\nthe lab runs until `carpool lab down`; for example:")
    screen.plain("  carpool lab status")
    screen.plain(f"  carpool lab unplug {stage.nodes[0]}")
    if not rootless.inside():
        screen.plain(f"  carpool --socket {socket} status")


def opened() -> Stage:
    """Return the running lab. Raises LabError if there is none."""
    return Stage.open(directory())


def status() -> int:
    """Print the nodes, their roles, cables and addresses."""
    stage = opened()
    print(f"{draw(stage.topology)}\n")
    rows = [_node_row(stage, node) for node in stage.nodes]
    print(table(("NODE", "CARPOOLD", "GROUPS", "CABLES"), rows))
    for sentence in _faults(stage):
        print(paint(sentence, Colour.YELLOW))
    return 0


def _node_row(stage: Stage, node: str) -> tuple[str, str, str, str]:
    daemon = stage.daemon(node)
    pids = daemon.pids()
    state = "frozen" if daemon.frozen else "runs" if pids else "dead"
    groups = daemon.status().get("groups", ()) if state == "runs" else ()
    roles = " ".join(f"{each['group']}:{each['state']}" for each in groups)
    cables = []
    for _, port in stage.topology.ports_of(node):
        carrier = stage.lab.run(node, ["cat", f"/sys/class/net/{port.interface}/carrier"]).strip()
        cables.append(port.interface if carrier == "1" else f"{port.interface} (unplugged)")
    return node, state, roles or "-", " ".join(cables)


def _faults(stage: Stage) -> list[str]:
    cuts = stage.lab.registry.cuts
    losses = stage.lab.registry.losses
    lines = [f"cut: {len(cuts)} ways between ports drop every frame"] if cuts else []
    return lines + [f"loss: {share:.0%} of what enters {port}" for port, share in losses.items()]


def unplug(place: str) -> int:
    """Pull the cables of NODE, or the one of NODE:INTERFACE."""
    node, _, interface = place.partition(":")
    print(f"{node}: unplugged {' '.join(opened().network.unplug(node, interface))}")
    return 0


def plug(place: str) -> int:
    """Plug them in again."""
    node, _, interface = place.partition(":")
    print(f"{node}: plugged in {' '.join(opened().network.plug(node, interface))}")
    return 0


def kill(node: str) -> int:
    """Kill -9 every process of the daemon on NODE."""
    _running(node).kill()
    print(f"{node}: killed; `carpool lab start {node}` starts it again")
    return 0


def _running(node: str) -> Daemon:
    """Return the daemon of NODE. Raises LabError if there is none of it to kill or freeze."""
    daemon = opened().daemon(node)
    if not daemon.pids():
        raise LabError(f"{node}: carpoold is not running (`carpool lab start {node}` starts it)")
    return daemon


def start(node: str) -> int:
    """Start the daemon on NODE again."""
    daemon = opened().daemon(node)
    daemon.start()
    daemon.wait_ready()
    print(f"{node}: carpoold runs")
    return 0


def freeze(node: str) -> int:
    """Stop every process of the daemon on NODE (SIGSTOP)."""
    _running(node).freeze()
    print(f"{node}: frozen")
    return 0


def thaw(node: str) -> int:
    """Let them go on."""
    _running(node).thaw()
    print(f"{node}: thawed")
    return 0


def partition(words: Sequence[str], network: str = "") -> int:
    """Let no frame pass between the sides, in one network or in all."""
    stage = opened()
    sides = parse_groups(words, stage.nodes)
    stage.network.partition(sides, _switches(stage, network))
    print("parted: " + " / ".join(",".join(side) for side in sides))
    return 0


def loss(node: str, share: str) -> int:
    """Drop a share of what NODE sends into its first network."""
    try:
        value = float(share.rstrip("%")) / (100 if share.endswith("%") else 1)
    except ValueError:
        raise LabError(f"{share!r} is not a share (write 0.3 or 30%)") from None
    if not 0 <= value <= 1:
        raise LabError(f"{share} is not between 0 and 100 %")
    opened().network.lose(node, value)
    print(f"{node}: {value:.1%} of its frames are lost")
    return 0


def _switches(stage: Stage, network: str) -> list[int]:
    if not network:
        return []
    names = [switch.name for switch in stage.topology.switches]
    if network not in names:
        raise LabError(f"no network {network!r} (there are {', '.join(names)})")
    return [names.index(network)]


def heal() -> int:
    """Take back partitions and losses, and plug every cable in."""
    stage = opened()
    stage.network.heal()
    for node in stage.nodes:
        stage.network.plug(node)
    print("healed: every cable is plugged in, nothing is dropped")
    return 0


def down() -> int:
    """Remove the lab and everything in it."""
    lab = Lab.open(directory())
    began = Screen()
    count = len(lab.registry.namespaces)
    lab.remove()
    took = human_duration(Stage.now() - began.began)
    print(f"removed {count} namespaces and everything in them, in {took}")
    return 0


def settle(command: Sequence[str], work: str) -> None:
    """Make sure that we are where the lab can be: root, or a user namespace of our own.

    command: what to become there. work: "new" for a lab to be made, "open" for the running one.
    Does not return when another process has to do it.
    """
    if not rootless.needed() or rootless.inside():
        return
    if work == "new":
        rootless.enter(command)
    facts = registry.load(directory()).facts
    _join(int(facts.get(ANCHOR_FACT) or 0), command)


def _join(anchor: int, command: Sequence[str]) -> NoReturn:
    if not anchor or not Path(f"/proc/{anchor}").exists():
        raise LabError(f"nothing of the lab in {directory()} lives any more; remove that directory")
    rootless.join(anchor, command)


def ourselves(arguments: Sequence[str]) -> list[str]:
    """Return the command that is this very `carpool lab` again."""
    return [sys.executable, "-m", "carpool.cli.main", "lab", *arguments]
