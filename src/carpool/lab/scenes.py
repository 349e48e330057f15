"""The scenes that demo, tests and bench play: one event each, measured by the observers.

Every scene lasts at least one lease longer than the event, so that an owner whose time is over
would be seen if it still answered.
"""

import signal
from collections.abc import Callable

from carpool.base.time import NS_PER_MS
from carpool.lab import processes
from carpool.lab.stage import Scene, Stage

EXTRA_NS = 150 * NS_PER_MS  # beyond the lease


def tail_ns(stage: Stage) -> int:
    """Return how long stale answers could be expected after an event."""
    return stage.master_down_ns() + EXTRA_NS


def play(
    stage: Stage,
    title: str,
    path: list[str],
    event: Callable[[], int | None],
    after: Callable[[], object] = lambda: None,
) -> Scene:
    """Play `event`; it returns its instant, or nothing if it begins when it is called.

    after: what to wait for before the scene's tail begins.
    """
    with stage.scene(title, path, tail_ns=tail_ns(stage)) as scene:
        began = stage.now()
        scene.began = event() or began
        stage.wait_serving(path[-1])
        after()
    return scene


def kill(stage: Stage, node: str, successor: str) -> Scene:
    """Kill -9 all of the daemon on the master `node`."""
    return play(stage, f"kill -9 {node}", [node, successor], stage.daemon(node).kill)


def kill_elect(stage: Stage, node: str, successor: str) -> Scene:
    """Kill -9 the elect process of the master `node`; its parent starts it again."""
    path = [node, successor] if successor != node else [node]
    return play(stage, f"kill -9 elect on {node}", path, stage.daemon(node).kill_elect)


def revive(stage: Stage, node: str) -> Scene:
    """Start the daemon on `node` again; whoever serves goes on unless `node` is to take back."""
    master = stage.master()
    back = _takes_back(stage, node, master)
    daemon = stage.daemon(node)
    return play(
        stage,
        f"start {node}",
        [master, node] if back else [master],
        daemon.start,
        lambda: stage.wait_master(node) if back else stage.wait_standby(node),
    )


def freeze(stage: Stage, node: str, successor: str) -> Scene:
    """Stop every process on the master `node`; its lease ends by itself."""
    return play(stage, f"freeze {node}", [node, successor], stage.daemon(node).freeze)


def thaw(stage: Stage, node: str) -> Scene:
    """Let a frozen former master go on; it answers nothing until it is elected again."""
    master = stage.observers.serving()
    back = _takes_back(stage, node, master)
    return play(
        stage,
        f"thaw {node}",
        [master, node] if back else [master],
        stage.daemon(node).thaw,
        lambda: stage.wait_master(node) if back else stage.wait_standby(node),
    )


def cut_off(stage: Stage, node: str, successor: str) -> Scene:
    """Pull every cable of the master `node`."""

    def pull() -> None:
        stage.network.unplug(node)

    return play(stage, f"unplug {node}", [node, successor], pull)


def reconnect(stage: Stage, node: str) -> Scene:
    """Plug every cable of `node` in again."""
    master = stage.observers.serving()
    back = _takes_back(stage, node, master)

    def plug() -> None:
        stage.network.plug(node)

    return play(
        stage,
        f"plug {node}",
        [master, node] if back else [master],
        plug,
        lambda: stage.wait_master(node) if back else stage.wait_standby(node),
    )


def step_down(stage: Stage, node: str, successor: str) -> Scene:
    """Order the master `node` to hand over to `successor`."""

    def order() -> None:
        stage.daemon(node).order("step-down", group="edge", to=successor)

    return play(stage, f"step-down {node} --to {successor}", [node, successor], order)


def stop(stage: Stage, node: str, successor: str) -> Scene:
    """Stop the daemon on the master `node` as an operator does."""
    return play(stage, f"stop {node}", [node, successor], stage.daemon(node).stop)


def _takes_back(stage: Stage, node: str, master: str) -> bool:
    """Tell whether `node`, when it is back, takes the addresses from `master`."""
    hot = stage.config.hot["edge"]
    return hot.preempt and hot.nodes.index(node) < hot.nodes.index(master)


def kill_process(pid: int) -> int:
    """Send SIGKILL to one process and return the instant just before."""
    began = Stage.now()
    processes.send([pid], signal.SIGKILL)
    return began
