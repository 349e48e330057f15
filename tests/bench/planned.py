"""Bench rows about planned moves, many addresses, what stays behind, and the status command."""

import os
import sys
import time
from pathlib import Path

from failover import Bench, ucarp_pair
from report import Row

from carpool.base.time import NS_PER_MS
from carpool.lab import scenes
from carpool.lab.records import Records
from carpool.lab.shell import NETNS_DIR
from carpool.lab.shell import run as run_command
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import wait_for

SHORT_TAIL_NS = 300 * NS_PER_MS  # a step-down leaves no lease behind that could run out


def step_down(bench: Bench) -> list[Row]:
    """Return the row of planned hand-overs at a one second interval."""
    samples, notes = [], []
    with bench.stage(Shape(preempt=False, interval="1s")) as stage:
        stage.start()
        for number in range(bench.times(20)):
            giver, taker = ("alpha", "bravo") if number % 2 == 0 else ("bravo", "alpha")
            stage.wait_standby(taker)
            with stage.scene("step-down", [giver, taker], tail_ns=SHORT_TAIL_NS) as scene:
                scene.began = stage.now()
                stage.daemon(giver).order("step-down", group="edge", to=taker)
                stage.wait_serving(taker)
            samples.append(scene.handover_ns / NS_PER_MS)
            if scene.two_owners:
                notes.append(scene.account())
    return [
        Row(
            "planned step-down at 1 s: last reply of the old to first of the new",
            "ms",
            samples,
            "at most 5 ms, median of 20",
            5,
            peers={"ucarp": _ucarp_stops(bench)},
            notes=notes,
            needed=20,
        ),
        Row(
            "planned step-down: hand-overs with two owners",
            "hand-overs",
            [float(len(notes))],
            "0",
            0,
            by="max",
        ),
    ]


def _ucarp_stops(bench: Bench) -> list[float]:
    """Return how long clients wait when ucarp's master is stopped as its manual says."""
    samples = []
    shape = Shape(nodes=("uma", "una"), addresses=("192.0.2.10/24",), heartbeat=False)
    for _ in range(bench.times(3)):
        with bench.stage(shape) as stage:
            first, _ = ucarp_pair(stage)
            scene = scenes.play(stage, "ucarp stops", ["uma", "una"], first.stop)
            samples.append(scene.handover_ns / NS_PER_MS)
    return samples


def four(count: int) -> tuple[str, ...]:
    """Return so many IPv4 addresses of one network."""
    return tuple(f"10.20.{1 + number // 250}.{1 + number % 250}/16" for number in range(count))


def six(count: int) -> tuple[str, ...]:
    """Return so many IPv6 addresses of one network."""
    return tuple(f"2001:db8:0:1::{0x1000 + number:x}/64" for number in range(count))


def many_addresses(bench: Bench) -> list[Row]:
    """Return the rows of large groups: when the last address is answered after the decision."""
    rows = []
    for name, addresses, limit in (
        ("1000 v4 addresses", four(1000), 100.0),
        ("250 v6 addresses", six(250), 100.0),
        ("1000 v6 addresses", six(1000), None),
    ):
        bench.say(name)
        samples = []
        with bench.stage(Shape(addresses=addresses, interval="1s", preempt=False)) as stage:
            stage.start(observers=False)
            sweep = _start_sweeper(stage, addresses)
            for number in range(bench.times(5)):
                giver, taker = ("alpha", "bravo") if number % 2 == 0 else ("bravo", "alpha")
                samples.append(_swept(stage, sweep, giver, taker, len(addresses)))
                bench.say(f"  all answered after {samples[-1]:.1f} ms")
        rows.append(
            Row(
                f"{name}: all answered after the decision",
                "ms",
                samples,
                "at most 100 ms" if limit else "",
                limit,
                by="median",
            )
        )
    return rows


def _start_sweeper(stage: Stage, addresses: tuple[str, ...]) -> Records:
    port = stage.topology.switches[0].port("watcher")
    assert port is not None
    targets = stage.lab.directory / "sweep.targets"
    targets.write_text("\n".join(address.partition("/")[0] for address in addresses))
    record = stage.lab.directory / "record.sweeper"
    own = [word for address in port.addresses for word in ("--own", str(address.ip))]
    stage.lab.python(
        "sweeper",
        "watcher",
        "carpool.lab.sweeper",
        ["--record", str(record), "--targets", str(targets), *own, port.interface],
    )
    records = Records(record)
    wait_for(lambda: _reread(records).complete_until, 5.0, "the sweeper")
    return records


def _reread(records: Records) -> Records:
    records.read()
    return records


def _swept(stage: Stage, sweep: Records, giver: str, taker: str, count: int) -> float:
    """Hand over and return when the last address was answered by the taker, in milliseconds."""
    stage.wait_standby(taker)
    mac = next(mac for mac, name in stage.topology.owner_names().items() if name == taker)
    began = stage.now()
    stage.daemon(giver).order("step-down", group="edge", to=taker)

    def first_answers() -> dict[int, int]:
        sweep.read()
        found: dict[int, int] = {}
        for reply in sweep.replies:
            if reply.received > began and reply.owner == mac:
                found.setdefault(reply.target, reply.received)
        return found

    answers = wait_for(
        lambda: found if len(found := first_answers()) == count else None, 20.0, "all answers"
    )
    stage.wait_role(taker, "MASTER")
    offset = stage.now() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    decided = int(stage.daemon(taker).group("edge")["since"]) + offset
    sweep.forget_before(stage.now())
    return (max(answers.values()) - decided) / NS_PER_MS


def left_behind(bench: Bench) -> list[Row]:
    """Return the row of starts, reloads and stops: how many left something behind."""
    dirty, notes = [], []
    with bench.stage(Shape(nodes=("alpha",), heartbeat=False)) as stage:
        before = inventory(stage, "alpha")
        daemon = stage.daemon("alpha")
        for number in range(bench.times(100)):
            daemon.start()
            daemon.wait_ready()
            stage.wait_role("alpha", "MASTER")
            daemon.order("reload")
            daemon.stop()
            after = inventory(stage, "alpha")
            changed = [name for name in before if before[name] != after[name]]
            names = set(stage.lab.registry.namespaces.values())
            stray = {path.name for path in NETNS_DIR.glob(f"cp-{os.getpid()}-*")} - names
            dirty.append(float(bool(changed or stray or daemon.pids())))
            notes += [f"{number}: {name}: {after[name]}" for name in changed]
            if number % 10 == 9:
                bench.say(f"  {number + 1} starts and stops")
    return [
        Row(
            "start, reload, stop: runs that left something behind",
            "runs",
            dirty,
            "none in 100",
            0,
            by="max",
            notes=notes[:50],
            needed=100,
        )
    ]


def inventory(stage: Stage, node: str) -> dict[str, str]:
    """Return what is configured on a node, as the tools print it."""
    commands = {
        "addresses": ["ip", "-brief", "address"],
        "links": ["ip", "-brief", "link"],
        "rules": ["nft", "list", "ruleset"],
        "queues": ["tc", "qdisc", "show"],
        "multicast": ["ip", "maddress", "show", "dev", "eth0"],
        "sockets": ["ss", "-Hlntupwx0"],
    }
    return {name: stage.lab.run(node, command) for name, command in commands.items()}


def status_command(bench: Bench) -> list[Row]:
    """Return the row of `carpool status` as a process."""
    samples = []
    with bench.stage(Shape()) as stage:
        stage.start(observers=False)
        command = [
            sys.executable,
            "-m",
            "carpool.cli.main",
            "--socket",
            str(stage.daemon("alpha").socket),
            "status",
        ]
        for _ in range(bench.times(20)):
            began = time.monotonic_ns()
            run_command(command)
            samples.append((time.monotonic_ns() - began) / NS_PER_MS)
    return [
        Row(
            "carpool status as a process",
            "ms",
            samples,
            "under 150 ms, median of 20",
            150,
            needed=20,
        )
    ]


def results_directory() -> Path:
    """Return where results go: build/bench of the tree."""
    return Path(__file__).parents[2] / "build" / "bench"
