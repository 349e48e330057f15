"""`carpool lab demo`: three nodes and a client, every way in which a master can fail, measured.

Each act says what is done, who serves afterwards and how long the client waited; the table at the
end holds it against what carpool promises: exactly one owner at every instant, and a longest gap.
The bounds here are for a shared machine; `make bench-hot` measures the strict ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from carpool.base.time import NS_PER_MS, human_duration
from carpool.lab import rootless
from carpool.lab.netns import stop_signals_raise
from carpool.lab.screen import Colour, Screen, paint, table
from carpool.lab.site import Shape
from carpool.lab.stage import Scene, Stage
from carpool.lab.topology import draw

INTERVAL: Final = "100ms"
GROUP: Final = "edge"
BREATH_NS: Final = 5_000 * NS_PER_MS  # between acts, for the eye and for stale answers to show
SLACK_NS: Final = 100 * NS_PER_MS  # what a shared machine may add to a bound
PLANNED_NS: Final = 50 * NS_PER_MS
CRASH_NS: Final = 100 * NS_PER_MS
SINGLE_RUN: Final = """\
Each bound is for a single run on a shared machine; `make bench-hot` measures the medians that are
promised: kill -9 to the next master at most 30 ms, a planned hand-over at most 5 ms."""


@dataclass(frozen=True, slots=True)
class Act:
    """One event: who it hits, who is meant to serve afterwards, and the longest gap promised."""

    title: str
    path: tuple[str, ...]
    bound_ns: int
    play: Callable[[], int]
    repair: Callable[[], None]
    note: str = ""
    aside: str = ""  # after "serves, so long after": why that is not the gap


def acts(stage: Stage) -> list[Act]:
    """Return the acts in order; each begins where the one before ended."""
    return [*_failures(stage), *_orders(stage)]


def _failures(stage: Stage) -> list[Act]:
    """Return what nobody wants to happen: from alpha to bravo in the end."""
    detection_ns = stage.master_down_ns()
    freeze_ns = detection_ns - stage.lease_ns("alpha") + SLACK_NS
    return [
        Act(
            "pull alpha's cable",
            ("alpha", "bravo"),
            detection_ns + SLACK_NS,
            _timed(stage, lambda: stage.network.unplug("alpha", "eth0")),
            lambda: _plug(stage, "alpha"),
            "plug it in again",
        ),
        Act(
            "kill -9 bravo",
            ("bravo", "alpha"),
            CRASH_NS,
            stage.daemon("bravo").kill,
            lambda: _revive(stage, "bravo"),
            "start it again",
        ),
        Act(
            "freeze alpha (SIGSTOP)",
            ("alpha", "bravo"),
            freeze_ns,
            stage.daemon("alpha").freeze,
            lambda: _thaw(stage, "alpha"),
            "thaw it",
            "; alpha's frozen kernel answered until its lease ended",
        ),
    ]


def _orders(stage: Stage) -> list[Act]:
    """Return what operators do on purpose, and a partition: from bravo over charlie to bravo."""
    alpha, bravo, charlie = (stage.daemon(node) for node in stage.nodes)
    return [
        Act(
            "carpool step-down edge --to charlie",
            ("bravo", "charlie"),
            PLANNED_NS,
            _timed(stage, lambda: bravo.order("step-down", group=GROUP, to="charlie")),
            lambda: stage.wait_standby("bravo"),
        ),
        Act(
            "carpool demote edge 10, on charlie",
            ("charlie", "alpha"),
            PLANNED_NS,
            _timed(stage, lambda: charlie.order("demote", group=GROUP, n=10)),
            lambda: _restore(stage, "charlie"),
            "demote edge 0",
        ),
        Act(
            "part the nodes (their second network lives)",
            ("alpha",),
            PLANNED_NS,
            _timed(stage, lambda: stage.network.partition([["alpha"], ["bravo", "charlie"]], [0])),
            stage.network.heal,
            "join them again",
        ),
        Act("stop carpoold on alpha", ("alpha", "bravo"), PLANNED_NS, alpha.stop, lambda: None),
    ]


def _timed(stage: Stage, call: Callable[[], object]) -> Callable[[], int]:
    """Return a function that calls and returns the instant just before."""

    def timed() -> int:
        began = stage.now()
        call()
        return began

    return timed


def _revive(stage: Stage, node: str) -> None:
    stage.daemon(node).start()
    stage.wait_standby(node)


def _plug(stage: Stage, node: str) -> None:
    stage.network.plug(node, "eth0")
    stage.wait_standby(node)


def _thaw(stage: Stage, node: str) -> None:
    stage.daemon(node).thaw()
    stage.wait_standby(node)


def _restore(stage: Stage, node: str) -> None:
    stage.daemon(node).order("demote", group=GROUP, n=0)
    stage.wait_standby(node)


def play(stage: Stage, act: Act, screen: Screen) -> Scene:
    """Play one act and its repair; what happens is printed as it is seen."""
    screen.line(act.title, colour=Colour.BOLD)
    with stage.scene(act.title, act.path, tail_ns=BREATH_NS) as scene:
        scene.began = act.play()
        stage.wait_serving(act.path[-1])
        first = stage.observers.first_reply(act.path[-1], scene.began)
        waited = human_duration(first - scene.began)
        done = f"serves, {waited} after{act.aside}" if len(act.path) > 1 else "goes on serving"
        screen.line(f"{act.path[-1]} {done}", at=first, colour=Colour.GREEN)
        if act.note:
            screen.line(act.note)
        act.repair()
    return scene


def report(played: Sequence[tuple[Act, Scene]]) -> tuple[str, bool]:
    """Return the closing table and whether every promise was kept."""
    head = ("EVENT", "FROM", "TO", "GAP", "BOUND", "TWO OWNERS", "")
    rows = []
    kept = True
    for act, scene in played:
        good = scene.gap_ns <= act.bound_ns and scene.two_owners == 0
        kept = kept and good
        rows.append(
            (
                act.title,
                act.path[0],
                act.path[-1],
                human_duration(scene.gap_ns),
                f"< {human_duration(act.bound_ns)}",
                str(scene.two_owners),
                "kept" if good else "BROKEN",
            )
        )
    return table(head, rows), kept


def run(directory: Path) -> int:
    """Play the demo; 0 if every promise was kept."""
    screen = Screen()
    screen.plain("carpool: three nodes share 192.0.2.10 and 2001:db8::10 (CARP, 100 ms interval).")
    screen.plain("A client asks both each millisecond; a watcher asks who has them each 5 ms.")
    screen.plain("Preemption is off here: a node that comes back stands by and does not take over.")
    if rootless.inside():
        screen.plain(rootless.notice())
    shape = Shape(interval=INTERVAL, preempt=False)
    with stop_signals_raise(), Stage.build(directory, shape) as stage:
        screen.plain(f"\n{draw(stage.topology)}\n")
        screen.line("start carpoold on alpha, bravo and charlie", colour=Colour.BOLD)
        stage.start()
        gate = stage.daemon("alpha").group(GROUP).get("gate", "none")
        screen.line(f"alpha serves (gate: {gate})", colour=Colour.GREEN)
        played = [(act, play(stage, act, screen)) for act in acts(stage)]
    text, kept = report(played)
    screen.plain(f"\n{text}\n\n{SINGLE_RUN}\n")
    if kept:
        screen.plain(paint("every promise kept: one owner at every instant", Colour.GREEN))
        return 0
    screen.plain(paint("a promise was broken", Colour.RED))
    return 1
