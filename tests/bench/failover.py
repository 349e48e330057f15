"""Bench rows about failures: owners, next master, freeze, thaw, any node in any order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, permutations
from pathlib import Path

from report import Row

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.lab import scenes
from carpool.lab.peers import Ucarp, UcarpOptions
from carpool.lab.site import Shape
from carpool.lab.stage import Scene, Stage

Say = Callable[[str], None]
GATES = ("bpf", "nft")
KEPT_NS = NS_PER_S  # of what was seen before a scene: who serves now must still be known
_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class Bench:
    """Where labs are made, how often scenes are repeated (0 = as promised), where progress goes."""

    directory: Path
    repeat: int
    say: Say

    def times(self, promised: int) -> int:
        """Return how often to do what was promised so many times."""
        return min(self.repeat, promised) if self.repeat else promised

    @contextmanager
    def stage(self, shape: Shape, **options: bool) -> Iterator[Stage]:
        """Build a stage that tells of every scene."""
        place = self.directory / f"b{next(_NUMBERS)}"
        with Stage.build(place, shape, **options) as stage:
            stage.listeners.append(self.tell)
            stage.listeners.append(  # or each scene would be slower than the one before
                lambda scene: stage.observers.forget_before(scene.ended - KEPT_NS)
            )
            yield stage

    def tell(self, scene: Scene) -> None:
        """Print one scene; all there is to say if it had two owners."""
        gap, taken = scene.gap_ns / NS_PER_MS, scene.takeover_ns / NS_PER_MS
        self.say(f"  {scene.title}: gap {gap:.1f} ms, next owner after {taken:.1f} ms")
        if scene.two_owners:
            self.say(f"  TWO OWNERS: {scene.account()}")


@dataclass(slots=True)
class Tally:
    """What the scenes of all variants add up to."""

    kills: list[Scene] = field(default_factory=list)
    freezes: list[tuple[Scene, int]] = field(default_factory=list)  # with the outage promised
    thaws: list[Scene] = field(default_factory=list)
    restarts: list[Scene] = field(default_factory=list)

    def extend(self, other: "Tally") -> None:
        """Add the scenes of another one."""
        self.kills += other.kills
        self.freezes += other.freezes
        self.thaws += other.thaws
        self.restarts += other.restarts


def variant(bench: Bench, shape: Shape, *, order: bool, kills: int, restarts: int) -> Tally:
    """Play kills, freezes and restarts on one stage; alpha is hit each time and takes back."""
    tally = Tally()
    with bench.stage(shape, reversed_ports=order) as stage:
        stage.start()
        for _ in range(kills):
            tally.kills.append(scenes.kill(stage, "alpha", "bravo"))
            tally.restarts.append(scenes.revive(stage, "alpha"))
            outage = stage.timing().master_down_ns["bravo"] - stage.lease_ns("alpha")
            tally.freezes.append((scenes.freeze(stage, "alpha", "bravo"), outage))
            tally.thaws.append(scenes.thaw(stage, "alpha"))
        for _ in range(restarts):
            tally.restarts.append(scenes.stop(stage, "alpha", "bravo"))
            tally.restarts.append(scenes.revive(stage, "alpha"))
    return tally


def owners(bench: Bench) -> list[Row]:
    """Return the rows of kills, freezes, restarts and thaws, over gates, port orders, families."""
    tallies: dict[tuple[str, str], Tally] = {}
    for gate in GATES:
        for order in (False, True):
            for interval, kills, restarts in (("100ms", 6, 2), ("1s", 3, 1)):
                ports = "reversed" if order else "straight"
                bench.say(f"{gate} gate, {interval}, {ports} ports")
                tally = variant(
                    bench,
                    Shape(gate=gate, interval=interval),
                    order=order,
                    kills=bench.times(kills),
                    restarts=bench.times(restarts),
                )
                tallies.setdefault((gate, interval), Tally()).extend(tally)
    crash, stall = ucarp(bench)
    total = Tally()
    for tally in tallies.values():
        total.extend(tally)
    rows = [
        _owner_row("two owners, kill -9", total.kills, 30, crash),
        _owner_row("two owners, freeze", [scene for scene, _ in total.freezes], 30, stall),
        _owner_row("two owners, stop and start", total.restarts, 10),
        _owner_row("thawed master answers before it is elected", total.thaws, 30),
    ]
    for (gate, interval), tally in tallies.items():
        rows += _variant_rows(gate, interval, tally, crash if interval == "1s" else [])
    return rows


def _owner_row(
    name: str, played: list[Scene], needed: int, others: list[Scene] | None = None
) -> Row:
    return Row(
        name=name,
        unit="instants",
        samples=[float(scene.two_owners) for scene in played],
        bound=f"0 in {needed} or more",
        limit=0,
        by="max",
        needed=needed,
        peers={"ucarp": [float(scene.two_owners) for scene in others]} if others else {},
        notes=[scene.account() for scene in played if scene.two_owners],
    )


def _variant_rows(gate: str, interval: str, tally: Tally, others: list[Scene]) -> list[Row]:
    label = f"{interval}, {gate} gate"
    return [
        Row(
            f"kill -9: next master ({label})",
            "ms",
            [scene.takeover_ns / NS_PER_MS for scene in tally.kills],
            "at most 30 ms, median",
            30,
            peers={"ucarp": [scene.takeover_ns / NS_PER_MS for scene in others]} if others else {},
        ),
        Row(
            f"kill -9: client gap ({label})",
            "ms",
            [scene.gap_ns / NS_PER_MS for scene in tally.kills],
            "",
        ),
        Row(
            f"freeze: client gap beyond master-down time - L ({label})",
            "ms",
            [(scene.gap_ns - outage) / NS_PER_MS for scene, outage in tally.freezes],
            "at most 40 ms, median",
            40,
        ),
    ]


def ucarp(bench: Bench) -> tuple[list[Scene], list[Scene]]:
    """Play kill -9 and freeze with a pair of real ucarps, at their fastest (one second)."""
    crash, stall = [], []
    shape = Shape(nodes=("uma", "una"), addresses=("192.0.2.10/24",), heartbeat=False)
    for played, event in ((crash, Ucarp.kill), (stall, Ucarp.freeze)):
        for _ in range(bench.times(5)):
            bench.say("ucarp")
            with bench.stage(shape) as stage:
                first, _ = ucarp_pair(stage)
                scene = scenes.play(stage, "ucarp", ["uma", "una"], lambda: event(first))  # noqa: B023  called at once
                played.append(scene)
    return crash, stall


def ucarp_pair(stage: Stage) -> tuple[Ucarp, Ucarp]:
    """Start two ucarps and the observers; the first serves."""
    stage.observers.start_responders()
    pair = []
    for number, node in enumerate(stage.nodes):
        own = f"192.0.2.{11 + number}"
        options = UcarpOptions("eth0", own, 1, "secret", "192.0.2.10", 1, number)
        pair.append(Ucarp(stage.lab, node, options))
        pair[-1].start()
        pair[-1].wait_state("MASTER" if number == 0 else "BACKUP")
    stage.observers.start()
    stage.wait_serving(stage.nodes[0])
    return pair[0], pair[1]


def any_order(bench: Bench) -> list[Row]:
    """Return the row of three nodes of which two fail in every order, in every way."""
    ways = {
        "kill -9": (scenes.kill, scenes.revive),
        "freeze": (scenes.freeze, scenes.thaw),
        "cut off": (scenes.cut_off, scenes.reconnect),
    }
    wrong, gaps, notes = [], [], []
    for way, (fail, mend) in ways.items():
        bench.say(f"three nodes, {way}, every order")
        with bench.stage(Shape(preempt=False)) as stage:
            stage.start()
            for order in list(permutations(stage.nodes))[: bench.times(6)]:
                played = _fail_two(stage, order, fail, mend)
                wrong += [float(scene.two_owners) for scene in played]
                gaps += [scene.gap_ns / NS_PER_MS for scene in played]
                notes += [scene.account() for scene in played if scene.two_owners]
    return [
        Row(
            "three nodes, any one killed, frozen, cut off, in every order: owners beyond one",
            "instants",
            wrong,
            "exactly one master among the connected, every time",
            0,
            "max",
            notes=notes,
            needed=36,
        ),
        Row("three nodes, any failure: client gap", "ms", gaps, ""),
    ]


def _fail_two(
    stage: Stage,
    order: tuple[str, ...],
    fail: Callable[[Stage, str, str], Scene],
    mend: Callable[[Stage, str], Scene],
) -> list[Scene]:
    """Let the first two of `order` fail one after the other; the last one serves in the end."""
    first, second, last = order
    _make_master(stage, first)
    best = next(node for node in stage.nodes if node != first)
    played = [fail(stage, first, best)]
    if best == second:
        played.append(fail(stage, second, last))
    else:
        played.append(_standby_fails(stage, second, last, fail))
    played += [mend(stage, node) for node in (second, first)]
    return played


def _standby_fails(
    stage: Stage, node: str, master: str, fail: Callable[[Stage, str, str], Scene]
) -> Scene:
    """Let a standby fail: the master goes on."""
    event = {
        scenes.kill: stage.daemon(node).kill,
        scenes.freeze: stage.daemon(node).freeze,
        scenes.cut_off: lambda: stage.network.unplug(node) and None,
    }[fail]
    return scenes.play(stage, f"standby {node} fails", [master], event)


def _make_master(stage: Stage, node: str) -> None:
    master = stage.master()
    if master != node:
        scenes.step_down(stage, master, node)
    for other in stage.nodes:
        if other != node:
            stage.wait_standby(other)
