"""The limits of `serve` that take time or strangers, with a clock and rights of the test's own."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from carpool.base.time import NS_PER_MS, NS_PER_S, Instant
from carpool.control.messages import CONNECTIONS_MAX
from carpool.daemon.channel import pair
from carpool.daemon.serve import PRIVILEGED_RESERVE, Server, listen
from carpool.daemon.serve_connection import Credentials, Rights, credentials_of


class Bench:
    """A server in this process, moved by hand, with a clock that only the test moves."""

    def __init__(self, path: Path, *, stranger: bool) -> None:
        self.now = Instant(1_000 * NS_PER_S)
        self.path = str(path)
        self.parent, channel = pair()
        self.parent.setblocking(False)
        self.clients: list[socket.socket] = []
        self.server = Server(
            channel, listen(self.path), may_order=lambda _who: not stranger, clock=lambda: self.now
        )

    def turn(self, count: int = 4) -> None:
        """Let the server handle all that is there."""
        for _ in range(count):
            self.server.turn(0)

    def connect(self) -> socket.socket:
        """Return a new client's socket."""
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.connect(self.path)
        client.setblocking(False)
        self.turn()
        return client

    def say(self, **message: object) -> None:
        """Send a message as the parent."""
        self.parent.send(json.dumps(message).encode())
        self.turn()

    def ask(self, client: socket.socket, verb: str) -> dict[str, Any]:
        """Send a request and return what came back, {} if nothing did."""
        client.send(json.dumps({"v": 1, "verb": verb}).encode() + b"\n")
        self.turn()
        return heard(client)

    def close(self) -> None:
        """Close everything."""
        for client in self.clients:
            client.close()
        self.parent.close()
        self.server.close()


def heard(client: socket.socket) -> dict[str, Any]:
    """Return the last line that waits for `client`, {} if there is none."""
    try:
        lines = client.recv(1 << 20).splitlines()
    except BlockingIOError:
        return {}
    return json.loads(lines[-1]) if lines else {"closed": True}


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Return what makes a bench; it is closed afterwards."""
    made: list[Bench] = []

    def make(*, stranger: bool = False) -> Bench:
        made.append(Bench(tmp_path / f"{len(made)}.sock", stranger=stranger))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_a_stranger_reads_but_gives_no_orders(
    make_bench: Callable[..., Bench], status: dict[str, Any]
) -> None:
    """Without the right, orders are refused with 77 and never reach the parent; reading works."""
    bench = make_bench(stranger=True)
    bench.say(type="snapshot", data=status)
    client = bench.connect()
    for verb in ("pause", "resume", "reload"):
        answer = bench.ask(client, verb)
        assert (answer["ok"], answer["code"]) == (False, 77)
        assert "group carpool" in answer["error"]
    assert bench.ask(client, "status")["data"] == status
    with pytest.raises(BlockingIOError):
        bench.parent.recv(100)


@pytest.mark.parametrize(
    ("uid", "groups", "allowed"),
    [
        (0, {0}, True),
        (500, {500}, True),
        (1000, {1000, 77}, True),
        (1000, {1000}, False),
        (65534, {65534}, False),
    ],
)
def test_who_may_order(uid: int, groups: set[int], *, allowed: bool) -> None:
    """Root, the daemon's user and the group's members may; nobody else, with or without a group."""
    who = Credentials(1, uid, frozenset(groups))
    assert Rights(500, 77).allow(who) is allowed
    assert Rights(500, None).allow(who) is (uid in {0, 500})


def test_the_kernel_says_who_connects() -> None:
    """The credentials of a connection are those of the process at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        who = credentials_of(ours)
    assert (who.pid, who.uid) == (os.getpid(), os.getuid())
    assert {os.getgid(), *os.getgroups()} <= who.groups


def test_strangers_leave_room_for_the_operator(make_bench: Callable[..., Bench]) -> None:
    """Strangers get fewer connections than there are."""
    bench = make_bench(stranger=True)
    allowed = CONNECTIONS_MAX - PRIVILEGED_RESERVE
    clients = [bench.connect() for _ in range(allowed + 1)]
    assert heard(clients[0]) == {}
    assert heard(clients[-1])["error"] == "too many connections"


def test_a_silent_connection_is_closed(make_bench: Callable[..., Bench]) -> None:
    """Whoever says nothing for half a minute, or drips bytes without an end, is closed."""
    bench = make_bench()
    silent, dripping = bench.connect(), bench.connect()
    for _ in range(31):
        bench.now = Instant(bench.now + NS_PER_S)
        dripping.send(b"x")
        bench.turn()
    bench.turn()
    assert silent.recv(10) == b""
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        dripping.send(b"x")


def test_a_watcher_may_be_silent_but_has_to_listen(
    make_bench: Callable[..., Bench], status: dict[str, Any]
) -> None:
    """A watcher that reads stays for ever; one that does not take what it is sent is closed."""
    bench = make_bench()
    bench.say(type="snapshot", data=status)
    reading, deaf = bench.connect(), bench.connect()
    for client in (reading, deaf):
        client.send(b'{"v":1,"verb":"watch"}\n')
    bench.turn()
    status["warnings"] = ["x" * 100_000]
    for second in range(80):
        bench.now = Instant(bench.now + NS_PER_S)
        bench.say(type="snapshot", data={**status, "at": second})
        while heard(reading):
            bench.turn()
    assert len(bench.server._connections) == 1


def test_a_watcher_is_not_told_too_often(
    make_bench: Callable[..., Bench], status: dict[str, Any]
) -> None:
    """Changes come at most ten times a second, the clockwork alone once a second."""
    bench = make_bench()
    bench.say(type="snapshot", data=status)
    client = bench.connect()
    assert bench.ask(client, "watch")["data"] == status
    told = 0
    for step in range(100):  # one second, a change each 10 ms
        bench.now = Instant(bench.now + 10 * NS_PER_MS)
        bench.say(type="snapshot", data={**status, "paused": step % 2 == 0})
        told += bool(heard(client))
    assert 8 <= told <= 10
    bench.say(type="snapshot", data=status)
    bench.now = Instant(bench.now + NS_PER_S)
    bench.turn()
    heard(client)
    told = 0
    for step in range(300):  # three seconds in which only the clockwork moves
        bench.now = Instant(bench.now + 10 * NS_PER_MS)
        bench.say(type="snapshot", data={**status, "at": step, "counters": {"sent.edge": step}})
        told += bool(heard(client))
    assert told == 3


def test_an_order_is_not_waited_for_for_ever(make_bench: Callable[..., Bench]) -> None:
    """A parent that does not answer costs the client 15 s and nobody else anything."""
    bench = make_bench()
    client = bench.connect()
    assert bench.ask(client, "pause") == {}
    bench.now = Instant(bench.now + 14 * NS_PER_S)
    bench.turn()
    assert heard(client) == {}
    bench.now = Instant(bench.now + NS_PER_S)
    bench.turn()
    assert heard(client)["error"] == "the daemon did not answer within 15 s"
    bench.say(type="answer", id=1, ok=True, data={})  # too late, and nobody's
    assert heard(client) == {}


def test_a_parent_that_does_not_read_is_said(make_bench: Callable[..., Bench]) -> None:
    """When the channel is full an order is refused at once and was not given."""
    bench = make_bench()
    for end in (bench.server._channel, bench.parent):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    answers = []
    for _ in range(40):
        answers.append(bench.ask(bench.connect(), "reload"))
        if answers[-1]:
            break
    assert answers[0] == {}
    assert "did not take the order" in answers[-1]["error"]


def test_a_packet_too_large_is_dropped_whole(
    make_bench: Callable[..., Bench], status: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """A message longer than the buffer is complained about, and the next one counts."""
    bench = make_bench()
    bench.server._buffer = bytearray(20_000)
    bench.parent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    bench.say(type="snapshot", data={"large": "x" * 30_000})
    bench.say(type="snapshot", data=status)
    assert bench.ask(bench.connect(), "status")["data"] == status
    assert "longer than" in capfd.readouterr().err
