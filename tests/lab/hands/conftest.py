"""Two machines on one cable, for the tests of the hands.

    [near] hand0 ------ hand0 [far]      192.0.2.1/24, 2001:db8::1/64 at near; .2 and ::2 at far

Each machine is a network namespace; a test steps into one with `with pair.inside(pair.near)`.
"""

import ctypes
import itertools
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

CLONE_NEWNET = 0x40000000
NUMBERS = itertools.count(1)
INTERFACE = "hand0"


def ip(*words: str) -> None:
    """Call iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Pair:
    """The names of the two namespaces, and what one does with them."""

    near: str
    far: str
    interface: str = INTERFACE

    @contextmanager
    def inside(self, namespace: str) -> Iterator[None]:
        """Be in a namespace: sockets that are opened stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            assert libc.setns(there, CLONE_NEWNET) == 0
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0
            os.close(home)
            os.close(there)

    def ip(self, namespace: str, *words: str) -> None:
        """Call iproute2 in a namespace."""
        ip("-n", namespace, *words)

    def output(self, namespace: str, *words: str) -> str:
        """Run a program in a namespace and return what it prints."""
        command = ["ip", "netns", "exec", namespace, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def wait_for(self, fact: Callable[[], object], seconds: float = 5) -> None:
        """Wait until `fact` holds; fail when it does not in time."""
        deadline = time.monotonic() + seconds
        while not fact():
            assert time.monotonic() < deadline, "the fact did not come true in time"
            select.select([], [], [], 0.002)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two namespaces joined by a cable, with addresses, removed at the end."""
    names = [f"cp-{os.getpid()}-h{next(NUMBERS)}" for _ in range(2)]
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        near, far = names
        ip("-n", near, "link", "add", INTERFACE, "type", "veth",
           "peer", "name", INTERFACE, "netns", far)  # fmt: skip
        for number, name in enumerate(names, start=1):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"192.0.2.{number}/24", "dev", INTERFACE)
            address = f"2001:db8::{number}/64"
            ip("-n", name, "address", "add", address, "dev", INTERFACE, "nodad")
            ip("-n", name, "link", "set", INTERFACE, "up")
        yield Pair(near, far)
    finally:
        for name in made:
            ip("netns", "delete", name)
