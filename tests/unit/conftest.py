"""Shared by unit tests: a healthy site's status, and a real `serve` process with a test as parent.

The site has three nodes and one group; `alpha` is its master and shows it (status.json, the form of
engine/snapshot.py). The `serve` process listens in a directory of the test and ends with it.
"""

import copy
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import carpool
from carpool.daemon.channel import pair
from carpool.lab.waiting import wait_for

WAIT_S = 20.0

_STATUS = json.loads((Path(__file__).parent / "status.json").read_text())
_PROGRAM = """
import socket, sys
from carpool.daemon.serve import run_serve
run_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
"""


@pytest.fixture
def status() -> dict[str, Any]:
    """Return a status answer's data; a test may change its copy."""
    return copy.deepcopy(_STATUS)


@pytest.fixture
def group(status: dict[str, Any]) -> dict[str, Any]:
    """Return the only group of `status`."""
    found: dict[str, Any] = status["groups"][0]
    return found


class Parent:
    """The daemon's end of the channel to a `serve` process."""

    def __init__(self, channel: socket.socket, path: Path, process: subprocess.Popen[bytes]):
        self.channel = channel
        self.path = str(path)
        self.process = process
        channel.settimeout(WAIT_S)

    def say(self, **message: object) -> None:
        """Send one message to serve."""
        self.channel.send(json.dumps(message).encode())

    def snapshot(self, status: dict[str, Any]) -> None:
        """Send a snapshot, taken just now as far as anybody can tell."""
        self.say(type="snapshot", data=status)

    def order(self) -> dict[str, Any]:
        """Return the next order."""
        order: dict[str, Any] = json.loads(self.channel.recv(1 << 16))
        return order

    def obey(self, text: str = "done") -> dict[str, Any]:
        """Take the next order, say that it is done, and return it."""
        order = self.order()
        self.say(type="answer", id=order["id"], ok=True, data={"text": text})
        return order


@contextmanager
def _serving(directory: Path, pass_fds: tuple[int, ...]) -> Iterator[Parent]:
    """Run `serve` with its socket in `directory`; it listens when this gives the parent."""
    ours, theirs = pair()
    path = directory / "control.sock"
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(path)],
        pass_fds=(theirs.fileno(), *pass_fds),
        env={**os.environ, "PYTHONPATH": str(Path(carpool.__file__).parents[1])},
        stderr=subprocess.PIPE,
    )
    theirs.close()
    try:
        wait_for(lambda: path.exists() or process.poll() is not None, WAIT_S, "serve to listen")
        yield Parent(ours, path, process)
    finally:
        ours.close()
        process.kill()
        sys.stderr.write(process.communicate()[1].decode())  # shown when the test fails


@pytest.fixture
def start_serve(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    """Return what starts a `serve` process; `pass_fds` are files it inherits."""
    with ExitStack() as stack:

        def start(pass_fds: tuple[int, ...] = ()) -> Parent:
            return stack.enter_context(_serving(tmp_path, pass_fds))

        yield start


@pytest.fixture
def parent(start_serve: Callable[..., Parent]) -> Parent:
    """Return the parent of a running `serve`."""
    return start_serve()


@pytest.fixture
def run_carpool() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Return what starts `carpool` with arguments, as a process without a terminal or colours."""
    with ExitStack() as stack:

        def start(*arguments: str) -> "subprocess.Popen[str]":
            kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            source = str(Path(carpool.__file__).parents[1])
            process = subprocess.Popen(
                [sys.executable, "-m", "carpool.cli.main", *arguments],
                env={**kept, "PYTHONPATH": source, "TZ": "UTC"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start
