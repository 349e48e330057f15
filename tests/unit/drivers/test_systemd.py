"""Messages to systemd, received by a stand-in for it."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from carpool.drivers.systemd import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener


def test_every_message(systemd: socket.socket) -> None:
    """Each message arrives in systemd's words; a status stays one line."""
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    assert notifier.ready("MASTER of edge\nand more")
    assert systemd.recv(999) == b"READY=1\nSTATUS=MASTER of edge and more"
    assert notifier.status("idle")
    assert systemd.recv(999) == b"STATUS=idle"
    assert notifier.alive()
    assert systemd.recv(999) == b"WATCHDOG=1"
    assert notifier.stopping()
    assert systemd.recv(999) == b"STOPPING=1"
    assert notifier.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", systemd.recv(999))


def test_abstract_address() -> None:
    """An address that begins with @ is in the abstract namespace."""
    name = f"carpool-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(5)
        assert Notifier({"NOTIFY_SOCKET": "@" + name}).alive()
        assert listener.recv(99) == b"WATCHDOG=1"


def test_nobody_listens() -> None:
    """Outside systemd, or when it is gone, nothing is sent and nothing is raised."""
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": "/nonexistent/notify"}).ready()


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5_000_000_000),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5_000_000_000),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], interval: int | None) -> None:
    """The watchdog is fed twice in the time that systemd waits, if it is meant for us."""
    assert Notifier(environment).watchdog_interval_ns == interval
