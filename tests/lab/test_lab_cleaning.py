"""Nothing of a lab stays: after an exception, after signals, after the maker was killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from carpool.lab import registry
from carpool.lab.netns import Lab
from carpool.lab.processes import alive, gone, start_time
from carpool.lab.shell import NETNS_DIR
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import LabError, wait_for

pytestmark = pytest.mark.lab

MAKER = """
import sys
from pathlib import Path
from carpool.lab.netns import stop_signals_raise
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import wait_for
with stop_signals_raise(), Stage.build(Path(sys.argv[1]), Shape()) as stage:
    stage.observers.start_responders()
    stage.observers.start()
    print("up", flush=True)
    wait_for(lambda: False, 60, "the signal")
"""


@contextmanager
def maker(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", registry.Registry]]:
    """Run a process that makes a lab and waits; give it and what it registered."""
    command = [sys.executable, "-c", MAKER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process, registry.load(directory)
        finally:
            if process.poll() is None:
                process.kill()


def nothing_left(directory: Path, made: registry.Registry) -> bool:
    """Tell whether namespaces, processes and files of a lab are all gone."""
    namespaces = any((NETNS_DIR / name).exists() for name in made.namespaces.values())
    return not (namespaces or directory.exists() or any(map(alive, made.processes)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_removes_everything(lab_directory: Path, number: signal.Signals) -> None:
    """A lab whose maker is told to stop removes itself, processes included."""
    with maker(lab_directory) as (process, made):
        assert len(made.namespaces) == 7
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert nothing_left(lab_directory, made)


def test_killed_maker_is_cleaned_up_after(lab_directory: Path) -> None:
    """What a killed maker left is removed by the next lab in the same place."""
    with maker(lab_directory) as (process, made):
        process.kill()
        process.wait(20)
        assert any((NETNS_DIR / name).exists() for name in made.namespaces.values())
        with Lab.create(lab_directory):
            assert not any(map(alive, made.processes))
    assert nothing_left(lab_directory, made)


def test_exception_removes_everything(lab_directory: Path) -> None:
    """An exception inside of a stage leaves nothing behind."""
    made: list[registry.Registry] = []

    def fail() -> None:
        with Stage.build(lab_directory, Shape()) as stage:
            stage.observers.start_responders()
            made.append(stage.lab.registry)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert nothing_left(lab_directory, made[0])


def test_failed_build_removes_everything(lab_directory: Path) -> None:
    """A stage that cannot be built leaves nothing behind either."""
    shape = Shape(more='[hot.edge.node.alpha]\ninterface = "a/b"')
    with pytest.raises(Exception, match="interface"):
        Stage.build(lab_directory, shape)
    assert not lab_directory.exists()
    assert not list(NETNS_DIR.glob(f"cp-{os.getpid()}-*"))


def test_second_lab_in_one_place_is_refused(lab_directory: Path) -> None:
    """A lab that runs is not touched by another one that wants its place."""
    with Lab.create(lab_directory) as lab:
        lab.add_host("alpha")
        with pytest.raises(LabError, match="a lab is up"):
            Lab.create(lab_directory)
        assert (NETNS_DIR / lab.namespace("alpha")).exists()


def test_processes_are_ended_by_id(lab_directory: Path) -> None:
    """Removal ends a process in the namespace that nobody registered, and nothing outside."""
    with Lab.create(lab_directory) as lab:
        lab.add_host("alpha")
        known = lab.spawn("shell", "alpha", ["sh", "-c", "sleep 60 & wait"], lab.directory / "log")
        wait_for(lambda: len(lab.inhabitants("alpha")) == 2, 5.0, "the shell's child")
        inside = lab.inhabitants("alpha")
        assert known.pid in inside
    assert gone(inside)
    assert start_time(os.getpid())
