"""The peer link on loopback addresses: real sockets, processes killed and frozen, garbage.

    alpha 127.77.x.1, 127.78.x.1  ==  two paths  ==  bravo 127.77.x.2, 127.78.x.2

x is a number of this process and test, so that tests never meet each other's listeners. Every wait
is for a fact, with a deadline.
"""

import itertools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from carpool.base.errors import DriverError, LocalError, Reject
from carpool.base.time import NS_PER_MS, NS_PER_S, Instant
from carpool.drivers import peersocket
from carpool.drivers.clock import boottime_ns
from carpool.drivers.peerlink import (
    PENDING_MAX,
    PENDING_PER_SOURCE_MAX,
    Identity,
    LinkTimers,
    PeerLinks,
    PeerPath,
)
from carpool.wire.link import (
    LinkClosed,
    LinkEvent,
    LinkUp,
    MessageHeard,
    PeerRefused,
    PeerRestarted,
    Rejected,
)
from carpool.wire.peer import Accept, Heartbeat, Message

KEYS = {1: b"sixteen bytes or more"}
NEW_KEYS = {2: b"another sixteen bytes"}
PORT = 7112
PROGRAM = Path(__file__).parent / "peer_program.py"
SOURCES = Path(__file__).parents[3] / "src"
LIMIT_NS = 5 * NS_PER_S
QUICK = LinkTimers(idle_ns=300 * NS_PER_MS, handshake_ns=150 * NS_PER_MS)
NUMBERS = itertools.count()
Event = TypeVar("Event")


class Node:
    """One node in this process, with everything that happened to it."""

    def __init__(
        self,
        name: str,
        listen: list[str],
        paths: list[PeerPath],
        *,
        keys: dict[int, bytes] = KEYS,
        timers: LinkTimers = LinkTimers(),  # noqa: B008  frozen
        site: str = "example",
    ) -> None:
        """Listen and dial."""
        self.me = Identity(site, name, os.urandom(16))
        self.events: list[LinkEvent] = []
        self.told_at: list[Instant] = []
        endpoints = [(address, PORT) for address in listen]
        self.links = PeerLinks(self.me, keys, endpoints, paths, os.urandom, timers)

    def turn(self) -> None:
        """Do what is to be done now."""
        now = boottime_ns()
        happened = self.links.handle(0, 0, now) + self.links.tick(now)
        self.events += happened
        self.told_at += [boottime_ns()] * len(happened)

    def heard(self, kind: type[Event]) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def messages(self) -> list[Message]:
        """Return the messages heard."""
        return [event.message for event in self.heard(MessageHeard)]

    def up(self) -> list[bool]:
        """Return which paths are up."""
        return [path.up for paths in self.links.snapshot().values() for path in paths]

    def restart(self, listen: list[str], paths: list[PeerPath]) -> "Node":
        """Close every socket as a kill does, and return the next process."""
        abandon(self)
        return Node(self.me.node, listen, paths)


def abandon(node: Node) -> None:
    """Close every socket of `node` without a goodbye."""
    node.links._listeners.close()
    for connection in node.links._connections.values():
        connection.close()
    node.links._connections.clear()
    node.links.close()


class Network:
    """Two names with two addresses each."""

    def __init__(self) -> None:
        """Take addresses that nobody else has."""
        number = (os.getpid() * 7 + next(NUMBERS)) % 250 + 1
        self.alpha = [f"127.77.{number}.1", f"127.78.{number}.1"]
        self.bravo = [f"127.77.{number}.2", f"127.78.{number}.2"]
        self.stranger = f"127.79.{number}.3"
        self.nodes: list[Node] = []

    def paths(self, peer: str, count: int = 1) -> list[PeerPath]:
        """Return the paths to `peer`."""
        pairs = list(zip(self.alpha, self.bravo, strict=True))[:count]
        if peer == "bravo":
            return [PeerPath("bravo", ours, theirs, PORT) for ours, theirs in pairs]
        return [PeerPath("alpha", ours, theirs, PORT) for theirs, ours in pairs]

    def node(self, name: str, count: int = 1, **more: object) -> Node:
        """Start alpha or bravo in this process."""
        listen, peer = (self.alpha, "bravo") if name == "alpha" else (self.bravo, "alpha")
        node = Node(name, listen[:count], self.paths(peer, count), **more)  # type: ignore[arg-type]
        self.nodes.append(node)
        return node

    def pump(self, until: Callable[[], bool], limit_ns: int = LIMIT_NS) -> None:
        """Run every node until a fact holds; fail when it does not in time."""
        end = boottime_ns() + limit_ns
        while not until():
            now = boottime_ns()
            assert now < end, [node.events for node in self.nodes]
            wake_at = min([end, *(node.links.deadline or end for node in self.nodes)])
            poller = select.poll()
            for node in self.nodes:
                for fileno, events in node.links.filenos().items():
                    poller.register(fileno, events)
            poller.poll(min(20, max(0, (wake_at - now) // NS_PER_MS)))
            for node in self.nodes:
                node.turn()

    def connected(self, count: int = 1) -> tuple[Node, Node]:
        """Start both nodes and wait until every path is up on both."""
        alpha, bravo = self.node("alpha", count), self.node("bravo", count)
        self.pump(lambda: all(alpha.up()) and all(bravo.up()))
        return alpha, bravo


class Process:
    """Bravo as a process of its own."""

    def __init__(self, network: Network) -> None:
        """Start it and wait until it listens."""
        self.popen = subprocess.Popen(
            [
                *(sys.executable, str(PROGRAM), "bravo", network.bravo[0], str(PORT)),
                *("alpha", network.alpha[0]),
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
        )
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == b"listening\n"

    def end(self) -> None:
        """Kill it, thawed or not, and wait for it."""
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def network() -> Iterator[Network]:
    """Addresses for one test; closes what the test started."""
    network = Network()
    try:
        yield network
    finally:
        for node in network.nodes:
            if not node.links._epoll.closed:
                node.links.close()


@pytest.fixture
def bravo_process(network: Network) -> Iterator[Process]:
    """Bravo as a process, killed at the end in any case."""
    process = Process(network)
    try:
        yield process
    finally:
        process.end()


def reset(node: Node) -> None:
    """Make the other side of every connection of `node` see a RST, as a forger would."""
    for connection in node.links._connections.values():
        linger = struct.pack("ii", 1, 0)
        connection.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()
    node.links._connections.clear()
    for path in node.links._paths.values():
        path.links.clear()


def test_link_and_messages(network: Network) -> None:
    """Both come up, know each other's instance, and messages arrive, in order."""
    alpha, bravo = network.connected()
    assert alpha.heard(LinkUp)[0].instance == bravo.me.instance
    assert bravo.heard(LinkUp)[0].node == "alpha"
    sent: list[Message] = [Heartbeat("7", 1, ()), Accept("edge", 1), Accept("edge", 2)]
    assert [alpha.links.send("bravo", message) for message in sent] == [1, 1, 1]
    network.pump(lambda: bravo.messages() == sent)
    assert alpha.links.send("charlie", sent[0]) == 0


def test_several_paths(network: Network) -> None:
    """A message goes over every path; when one is closed the other one carries on."""
    alpha, bravo = network.connected(2)
    assert alpha.links.send("bravo", Accept("edge", 1)) == 2
    network.pump(lambda: len(bravo.messages()) == 2)
    assert {event.path for event in bravo.heard(MessageHeard)} == set(network.alpha)
    now = boottime_ns()
    gone = alpha.links.reconfigure(network.paths("bravo"), KEYS, [(network.alpha[0], PORT)], now)
    assert [(event.path, event.how) for event in gone if isinstance(event, LinkClosed)] == [
        (network.bravo[1], "goodbye")
    ]
    network.pump(lambda: bravo.up() == [True, False])
    assert bravo.heard(LinkClosed)[0].how == "goodbye"
    assert alpha.links.send("bravo", Accept("edge", 2)) == 1
    assert bravo.links.send("alpha", Accept("edge", 3)) == 1
    network.pump(lambda: Accept("edge", 2) in bravo.messages())
    network.pump(lambda: alpha.messages() == [Accept("edge", 3)])


def test_both_dial_at_once(network: Network) -> None:
    """However the dials cross, both stay up, hear each other, and few connections remain."""
    for _ in range(20):
        alpha, bravo = network.connected()
        alpha.links.send("bravo", Accept("edge", 1))
        bravo.links.send("alpha", Accept("edge", 2))
        network.pump(lambda: bool(alpha.messages() and bravo.messages()))  # noqa: B023  run at once
        assert len(alpha.heard(LinkUp)) == len(bravo.heard(LinkUp)) == 1
        assert not alpha.heard(LinkClosed)
        assert len(alpha.links._connections) <= 2
        for node in network.nodes:
            abandon(node)
        network.nodes.clear()


def test_spare_connection_is_closed_quietly(network: Network) -> None:
    """A second connection that nobody uses goes after the idle time, and nobody is told."""
    alpha = network.node("alpha", timers=QUICK)
    bravo = network.node("bravo", timers=QUICK)
    network.pump(lambda: all(alpha.up()) and all(bravo.up()))
    path = next(iter(alpha.links._paths.values()))
    dialler, other = (alpha, bravo) if path.links[0].dialled else (bravo, alpha)
    other_path = next(iter(other.links._paths.values()))
    other.links._dial(other_path, boottime_ns(), [])

    def beat() -> None:
        alpha.links.send("bravo", Accept("edge", 1))
        bravo.links.send("alpha", Accept("edge", 2))

    def links(count: int) -> bool:
        beat()
        return len(dialler.links._connections) == len(other.links._connections) == count

    network.pump(lambda: links(2))
    network.pump(lambda: links(1))
    assert len(alpha.heard(LinkUp)) == len(bravo.heard(LinkUp)) == 1
    assert not alpha.heard(LinkClosed) + bravo.heard(LinkClosed)


def test_kill_is_proved_at_once(network: Network, bravo_process: Process) -> None:
    """After kill -9 the connection closes and the reconnect is refused, within milliseconds."""
    alpha = network.node("alpha")
    network.pump(lambda: bool(alpha.messages()))
    killed_at = boottime_ns()
    bravo_process.popen.kill()
    network.pump(lambda: bool(alpha.heard(PeerRefused)))
    (closed,) = alpha.heard(LinkClosed)
    assert closed.how in ("fin", "reset")
    assert closed.instance == alpha.heard(LinkUp)[0].instance
    assert alpha.heard(PeerRefused) == [PeerRefused("bravo", network.bravo[0])]
    refused_at = alpha.told_at[alpha.events.index(alpha.heard(PeerRefused)[0])]
    closed_at = alpha.told_at[alpha.events.index(closed)]
    assert refused_at - closed_at < 100 * NS_PER_MS  # about 0.1 ms; a loaded machine may be slow
    assert refused_at - killed_at < NS_PER_S


def test_goodbye_is_no_proof(network: Network, bravo_process: Process) -> None:
    """A clean stop is told as such, and no refusal is reported afterwards."""
    alpha = network.node("alpha")
    network.pump(lambda: bool(alpha.messages()))
    bravo_process.popen.terminate()
    network.pump(lambda: bool(alpha.heard(LinkClosed)))
    bravo_process.popen.wait(5)
    assert (alpha.heard(LinkClosed)[0].how, alpha.heard(LinkClosed)[0].detail) == (
        "goodbye",
        "stopping",
    )
    path = next(iter(alpha.links._paths.values()))
    network.pump(lambda: path.step > 8)
    assert not alpha.heard(PeerRefused)


def test_freeze_is_no_proof(network: Network, bravo_process: Process) -> None:
    """A frozen process times out, is not refused, and is the same one when it thaws."""
    alpha = network.node("alpha", timers=QUICK)
    network.pump(lambda: bool(alpha.messages()))
    bravo_process.popen.send_signal(signal.SIGSTOP)
    network.pump(lambda: bool(alpha.heard(LinkClosed)))
    assert alpha.heard(LinkClosed)[0].how == "timeout"
    network.pump(lambda: alpha.links.counters.get("peer.handshake-timeout") >= 2)
    bravo_process.popen.send_signal(signal.SIGCONT)
    network.pump(lambda: len(alpha.heard(LinkUp)) >= 2)
    assert alpha.heard(LinkUp)[0].instance == alpha.heard(LinkUp)[1].instance
    assert not alpha.heard(PeerRefused) + alpha.heard(PeerRestarted)


def test_own_delay_is_not_the_peers_silence(network: Network, bravo_process: Process) -> None:
    """A process that was held up reads what has come before it judges."""
    alpha = network.node("alpha", timers=QUICK)
    network.pump(lambda: bool(alpha.messages()))
    (fileno,) = alpha.links.filenos()
    while select.select([fileno], [], [], 0.01)[0]:
        alpha.turn()
    assert select.select([fileno], [], [], 5)[0]  # a heartbeat lies there, unread
    late = Instant(boottime_ns() + 10 * NS_PER_S)
    assert not [event for event in alpha.links.tick(late) if isinstance(event, LinkClosed)]
    assert bravo_process.popen.poll() is None


@pytest.mark.parametrize("victim", ["alpha", "bravo"])
def test_forged_close_moves_nothing(network: Network, victim: str) -> None:
    """A reset connection is replaced at once by one to the same instance; nobody is refused."""
    alpha, bravo = network.connected()
    hurt, other = (alpha, bravo) if victim == "alpha" else (bravo, alpha)
    for round_number in range(2, 7):
        reset(other)
        wanted = round_number

        def back(wanted: int = wanted) -> bool:
            return len(hurt.heard(LinkUp)) == wanted

        network.pump(back)
        assert hurt.heard(LinkClosed)[-1].how == "reset"
        assert hurt.heard(LinkUp)[-1].instance == other.me.instance
    assert not hurt.heard(PeerRefused) + hurt.heard(PeerRestarted)
    assert hurt.links.send(other.me.node, Accept("edge", 1)) == 1
    network.pump(lambda: Accept("edge", 1) in other.messages())


def test_shut_down_connection_is_replaced(network: Network) -> None:
    """A forged FIN moves nothing either."""
    alpha, bravo = network.connected()
    for connection in bravo.links._connections.values():
        connection.endpoint.shutdown(socket.SHUT_WR)
    network.pump(lambda: len(alpha.heard(LinkUp)) == 2)
    assert alpha.heard(LinkClosed)[0].how == "fin"
    assert not alpha.heard(PeerRefused)


def test_restart_is_told_by_the_instance(network: Network) -> None:
    """Another process under the same name is a restart, told before the link is up."""
    alpha, bravo = network.connected(2)
    network.nodes.remove(bravo)
    again = bravo.restart(network.bravo, network.paths("alpha", 2))
    network.nodes.append(again)
    network.pump(lambda: all(alpha.up()) and all(again.up()))
    (restarted,) = alpha.heard(PeerRestarted)
    assert (restarted.old_instance, restarted.new_instance) == (
        bravo.me.instance,
        again.me.instance,
    )
    later = alpha.events[alpha.events.index(restarted) :]
    assert [event.instance for event in later if isinstance(event, LinkUp)] == [
        again.me.instance,
        again.me.instance,
    ]


def test_wrong_key_is_counted(network: Network) -> None:
    """A node with another secret is refused with its reason and its address."""
    alpha = network.node("alpha")
    network.node("bravo", keys={1: b"not the site's secret"})
    network.pump(lambda: bool(alpha.heard(Rejected)))
    assert alpha.heard(Rejected)[0] == Rejected(Reject.PEER_MAC, network.bravo[0])
    assert not alpha.heard(LinkUp)


def test_wrong_site_is_counted(network: Network) -> None:
    """A node of another site is refused."""
    alpha = network.node("alpha")
    network.node("bravo", site="other")
    network.pump(lambda: bool(alpha.heard(Rejected)))
    assert alpha.heard(Rejected)[0].reason is Reject.SOURCE


def call(source: str, target: str) -> socket.socket:
    """Connect from an address of our choice."""
    caller = socket.socket()
    caller.bind((source, 0))
    caller.settimeout(5)
    caller.connect((target, PORT))
    caller.setblocking(False)
    return caller


def test_stranger_is_turned_away(network: Network) -> None:
    """An address that is no peer's is closed at accept and counted."""
    alpha = network.node("alpha")
    with call(network.stranger, network.alpha[0]):
        network.pump(lambda: bool(alpha.heard(Rejected)))
    assert alpha.heard(Rejected) == [Rejected(Reject.SOURCE, network.stranger)]
    assert not alpha.links._pending


def test_silent_caller_is_timed_out(network: Network) -> None:
    """A connection that proves nothing is closed after the handshake time."""
    alpha = network.node("alpha", timers=QUICK)
    with call(network.bravo[0], network.alpha[0]):
        network.pump(lambda: len(alpha.links._pending) == 1)
        network.pump(lambda: not alpha.links._pending)
    assert alpha.links.counters.get("peer.handshake-timeout") >= 1


def test_flood_of_garbage(network: Network) -> None:
    """Many connections with garbage hold few descriptors, and the true peer still gets in."""
    alpha = network.node("alpha")
    callers = []
    try:
        for number in range(200):
            caller = call(network.bravo[0], network.alpha[0])
            callers.append(caller)
            if number % 2:
                caller.send(os.urandom(4000))
            alpha.turn()
            assert len(alpha.links._pending) <= min(PENDING_MAX, PENDING_PER_SOURCE_MAX)
            assert len(alpha.links._connections) <= PENDING_PER_SOURCE_MAX + 1
        bravo = network.node("bravo")
        network.pump(lambda: all(alpha.up()) and all(bravo.up()))
    finally:
        for caller in callers:
            caller.close()
    assert {event.reason for event in alpha.heard(Rejected)} <= {
        Reject.PEER_MAGIC,
        Reject.PEER_VERSION,
    }
    assert alpha.links.counters.get("peer.evicted") > 0


def test_peer_that_does_not_read(network: Network, bravo_process: Process) -> None:
    """The queue to a frozen peer is bounded: it overflows, the path closes, nothing blocks."""
    alpha = network.node("alpha")
    network.pump(lambda: bool(alpha.messages()))
    bravo_process.popen.send_signal(signal.SIGSTOP)
    big = Heartbeat("7" * 64, 1, ())
    count = 0
    while alpha.links.send("bravo", big):
        count += 1
        assert count < 100_000
    assert alpha.links.deadline == 0
    (connection,) = alpha.links._broken
    assert len(connection._queue) <= peersocket.QUEUE_BYTES_MAX
    alpha.turn()
    assert alpha.heard(LinkClosed)[0].how == "timeout"
    assert not any(alpha.up())


def test_bad_frame_ends_the_link(network: Network) -> None:
    """Bytes that do not authenticate end an established connection; a new one replaces it."""
    alpha, bravo = network.connected()
    (connection,) = bravo.links._connections.values()
    connection.endpoint.send(b"cp\x01\x06\x00\x00\x00\x01" + bytes(24))
    network.pump(lambda: len(alpha.heard(LinkUp)) == 2)
    assert alpha.heard(Rejected) == [Rejected(Reject.PEER_MAC, network.bravo[0])]
    assert alpha.heard(LinkClosed)[0].how == "error"
    assert not alpha.heard(PeerRefused) + bravo.heard(PeerRefused)


def test_reconfigure_keeps_what_stays(network: Network) -> None:
    """The same settings, or an added key, path or listener, touch no connection."""
    alpha, bravo = network.connected()
    before = [list(path.links) for path in alpha.links._paths.values()]
    more = {**NEW_KEYS, **KEYS}
    now = boottime_ns()
    endpoints = [(address, PORT) for address in network.alpha]
    assert alpha.links.reconfigure(network.paths("bravo"), KEYS, endpoints[:1], now) == []
    assert alpha.links.reconfigure(network.paths("bravo", 2), more, endpoints, now) == []
    assert [list(path.links) for path in alpha.links._paths.values()][:1] == before
    bravo.links.reconfigure(
        network.paths("alpha", 2), more, [(address, PORT) for address in network.bravo], now
    )
    network.pump(lambda: alpha.up() == bravo.up() == [True, True])
    assert not alpha.heard(LinkClosed) + bravo.heard(LinkClosed)


def test_withdrawn_key_ends_its_sessions(network: Network) -> None:
    """A session made with a key that is taken out is closed politely and made anew."""
    alpha, bravo = network.connected()
    both = {**NEW_KEYS, **KEYS}
    now = boottime_ns()
    bravo.links.reconfigure(network.paths("alpha"), both, [(network.bravo[0], PORT)], now)
    closed = alpha.links.reconfigure(
        network.paths("bravo"), NEW_KEYS, [(network.alpha[0], PORT)], now
    )
    assert [type(event) for event in closed] == [LinkClosed]
    network.pump(lambda: len(alpha.heard(LinkUp)) == len(bravo.heard(LinkUp)) == 2)
    assert {one.session.key_id for one in alpha.links._connections.values()} == {2}
    assert bravo.heard(LinkClosed)[0].how == "goodbye"


def test_broken_settings_change_nothing(network: Network) -> None:
    """A port that is taken or an address that is none leaves the old settings in force."""
    alpha, bravo = network.connected()
    taken = socket.socket()
    taken.bind((network.stranger, PORT))
    taken.listen()
    now = boottime_ns()
    with taken, pytest.raises(DriverError, match="Address already in use"):
        alpha.links.reconfigure([], KEYS, [(network.stranger, PORT)], now)
    with pytest.raises(LocalError, match="IP address"):
        alpha.links.reconfigure([PeerPath("bravo", None, "bravo.example", PORT)], KEYS, [], now)
    with pytest.raises(LocalError, match="itself"):
        alpha.links.reconfigure([PeerPath("alpha", None, "192.0.2.1", PORT)], KEYS, [], now)
    assert alpha.links.send("bravo", Accept("edge", 1)) == 1
    network.pump(lambda: bool(bravo.messages()))


def test_missing_addresses_do_not_matter() -> None:
    """Listening on an address that no interface has works; dialling from one only fails quietly."""
    me = Identity("example", "alpha", os.urandom(16))
    paths = [PeerPath("bravo", "192.0.2.11", "192.0.2.12", PORT)]
    listen = [("192.0.2.11", PORT), ("2001:db8::11", PORT)]
    links = PeerLinks(me, KEYS, listen, paths, os.urandom)
    now = boottime_ns()
    assert links.tick(now) == []
    assert links.deadline is not None
    assert 30 * NS_PER_MS <= links.deadline - now <= NS_PER_S
    links.close()


def test_link_over_ipv6() -> None:
    """Two nodes on ::1, told apart by their ports, come up."""
    nodes = []
    for name, peer, own_port, port in (
        ("alpha", "bravo", 7113, 7114),
        ("bravo", "alpha", 7114, 7113),
    ):
        me = Identity("example", name, os.urandom(16))
        path = PeerPath(peer, "::1", "0:0:0:0:0:0:0:1", port)
        nodes.append(PeerLinks(me, KEYS, [("::1", own_port)], [path], os.urandom))
    end = boottime_ns() + LIMIT_NS
    try:
        while not all(
            node.send(peer, Accept("e", 1))
            for node, peer in zip(nodes, ("bravo", "alpha"), strict=True)
        ):
            assert boottime_ns() < end
            for node in nodes:
                now = boottime_ns()
                node.handle(0, 0, now)
                node.tick(now)
    finally:
        for node in nodes:
            node.close()


def test_listeners_take_high_descriptors(network: Network) -> None:
    """The kernel closes listeners before connections: they have the higher numbers."""
    alpha, _ = network.connected()
    lowest_listener = min(alpha.links._listeners._by_fileno)
    assert lowest_listener >= peersocket.LISTENER_FD_MIN > max(alpha.links._connections)


def test_nothing_is_left_open(network: Network) -> None:
    """close() gives every descriptor back."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    alpha, bravo = network.connected(2)
    alpha.links.close()
    bravo.links.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
