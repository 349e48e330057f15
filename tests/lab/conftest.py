"""What scene tests share: a place for a lab of their own, and stages that always go away."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from carpool.base.time import human_duration
from carpool.lab.netns import labs_directory, stop_signals_raise
from carpool.lab.site import Shape
from carpool.lab.stage import Scene, Stage

_NUMBERS = count()
_PLAYED: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the gap of every scene that was played."""
    if _PLAYED:
        terminalreporter.section("gaps of the scenes")
        for line in _PLAYED:
            terminalreporter.write_line(line)


@pytest.fixture
def lab_directory() -> Path:
    """Return a short path (control sockets have 107 bytes) where no lab is yet."""
    return labs_directory() / f"t{os.getpid()}.{next(_NUMBERS)}"


@pytest.fixture
def build(lab_directory: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Stage]]:
    """Return a function that builds a stage; it is removed when the test is over."""
    with ExitStack() as stack:
        stack.enter_context(stop_signals_raise())

        def note(scene: Scene) -> None:
            gap, next_owner = human_duration(scene.gap_ns), human_duration(scene.takeover_ns)
            _PLAYED.append(
                f"{request.node.name}: {scene.title}: gap {gap}, next owner after {next_owner}, "
                f"two owners {scene.two_owners}"
            )

        def make(shape: Shape, **options: object) -> Stage:
            stage = stack.enter_context(Stage.build(lab_directory, shape, **options))
            stage.listeners.append(note)
            return stage

        yield make
