"""The peer link: authenticated TCP connections to the other nodes, over every path, never blocking.

Follows ARCHITECTURE.md "Peer link" and "Who takes over". Runs inside elect's loop: watch the one
descriptor of `filenos()` for reading, call `handle`; call `tick` at `deadline`. The descriptor is
an epoll of our own, so connections may come and go without the loop knowing.

Who connects: every node listens on all its addresses, and whoever sees a path down dials. When both
dial at once, a connection that the other side completed makes the own unfinished dial superfluous
and it is dropped; both dials cannot be dropped, since the dialling side is always established
before the accepting one. Should both complete, both stay: at most one for each direction, a newer
one of the same direction replaces the older. Everything is heard on every connection and sent on
the newest. What is neither sent on nor heard from for the idle time is closed without a word. When
one of several connections ends, the others are probed: a connection that the peer has lost (its
half was reset, it was killed) is reset by the peer's kernel at once and cannot hide a death.

What was sent into a connection that the peer has lost is lost: an order has its own time-out.

Timers, each a sentence:
    dial        a path without a connection is dialled when `peerpath` says so;
    idle        a path from which no message came for that long is closed ("timeout");
    handshake   a connection that is not authenticated by then is closed;
    user time-out   the kernel gives up on unacknowledged bytes ("timeout").
Before any of them judges a connection, what the kernel holds for it is read: our own delay is never
the peer's silence.

Whoever forks must close these sockets in the child: as long as a copy lives, a peer sees nothing
close. `elect` forks nobody.
"""

import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from carpool.base.counters import Counters
from carpool.base.errors import LocalError, Reject
from carpool.base.time import Instant, after
from carpool.drivers.peerlisteners import Listeners
from carpool.drivers.peerpath import LinkTimers, Path, PeerPath
from carpool.drivers.peersocket import Connection, Ending, canonical, prepare, start_connect
from carpool.wire.link import (
    LinkClosed,
    LinkEvent,
    LinkUp,
    MessageHeard,
    PathStatus,
    PeerRefused,
    PeerRestarted,
    Rejected,
)
from carpool.wire.peer import IDENTIFIER_BYTES, Encoded, Message, encode
from carpool.wire.session import Identity, Role, Session

__all__ = ["Identity", "LinkTimers", "PeerLinks", "PeerPath"]

PENDING_MAX: Final = 16  # connections that have not proved anything yet, all sources together
PENDING_PER_SOURCE_MAX: Final = 4  # so that one address cannot take the others' places
READY_MAX: Final = 64  # sockets served in one turn
DEFAULT_TIMERS: Final = LinkTimers()


class PeerLinks:
    """All connections to all other nodes."""

    def __init__(
        self,
        me: Identity,
        keys: Mapping[int, bytes],
        listen: Sequence[tuple[str, int]],
        paths: Sequence[PeerPath],
        random_bytes: Callable[[int], bytes],
        timers: LinkTimers = DEFAULT_TIMERS,
    ) -> None:
        """Listen; the first `tick` dials.

        keys: site keys by id, the preferred one first.
        Raises DriverError when an address cannot be listened on, LocalError for what is no address.
        """
        self.counters = Counters()
        self._me = me
        self._random_bytes = random_bytes
        self._timers = timers
        self._keys = dict(keys)
        self._paths = {path: Path(path) for path in self._checked(paths)}
        self._connections: dict[int, Connection] = {}
        self._pending: list[Connection] = []  # accepted, not established, oldest first
        self._broken: list[Connection] = []  # ended while sending; told at the next tick
        self._instances: dict[str, bytes] = {}
        self._epoll = select.epoll()
        self._listeners = Listeners(self._epoll)
        try:
            self._listeners.replace(_canonical_endpoints(listen))
        except Exception:
            self._epoll.close()
            raise

    def filenos(self) -> dict[int, int]:
        """Return the descriptor to watch and the events to watch it for; it never changes."""
        return {self._epoll.fileno(): select.EPOLLIN}

    @property
    def deadline(self) -> Instant | None:
        """When `tick` has to be called next."""
        if self._broken:
            return Instant(0)
        return min(self._instants(), default=None)

    def handle(self, fileno: int, events: int, now: Instant) -> list[LinkEvent]:
        """Serve every socket that is ready and return what happened, in order."""
        del fileno, events  # there is one descriptor, and only one thing it can say
        happened: list[LinkEvent] = []
        self._finish_broken(now, happened)
        for ready, _ in self._epoll.poll(0, READY_MAX):
            if ready in self._listeners:
                self._accept(ready, now, happened)
            elif ready in self._connections:
                self._service(self._connections[ready], now, happened)
        self._dial_due(now, happened)
        return happened

    def tick(self, now: Instant) -> list[LinkEvent]:
        """Do what time has come for: dials and time-outs."""
        happened: list[LinkEvent] = []
        self._finish_broken(now, happened)
        self._listeners.unmute(now)
        self._expire_handshakes(now, happened)
        for path in self._paths.values():
            self._expire_path(path, now, happened)
        self._dial_due(now, happened)
        return happened

    def send(self, node: str, message: Message) -> int:
        """Send over every live path to `node`; return over how many it was given to the kernel."""
        encoded = encode(message)
        paths = [path for path in self._paths.values() if path.settings.node == node]
        return sum(self._send_over(path, encoded) for path in paths)

    def snapshot(self) -> dict[str, tuple[PathStatus, ...]]:
        """Return every path by node."""
        status: dict[str, tuple[PathStatus, ...]] = {}
        for path in self._paths.values():
            node, remote = path.place
            one = PathStatus(remote, bool(path.links), path.changed_at)
            status[node] = (*status.get(node, ()), one)
        return status

    def reconfigure(
        self,
        paths: Sequence[PeerPath],
        keys: Mapping[int, bytes],
        listen: Sequence[tuple[str, int]],
        now: Instant,
    ) -> list[LinkEvent]:
        """Take new settings. Paths that stay keep their connections, unless their key is withdrawn.

        Raises DriverError or LocalError before anything is changed.
        """
        wanted = self._checked(paths)
        self._listeners.replace(_canonical_endpoints(listen))
        self._drop_unproven()
        happened: list[LinkEvent] = []
        for settings, path in self._paths.items():
            for link in list(path.links):
                if settings not in wanted:
                    reason = "the path was taken out of the configuration"
                elif keys.get(link.session.key_id) != link.session.key:
                    reason = "its key was withdrawn"
                else:
                    continue
                self._part(link, path, reason, now, happened)
        self._keys = dict(keys)
        self._paths = {path: self._paths.get(path, Path(path, dial_at=now)) for path in wanted}
        nodes = {path.node for path in wanted}
        self._instances = {node: old for node, old in self._instances.items() if node in nodes}
        self._broken = [link for link in self._broken if self._path_of(link) is not None]
        return happened

    def close(self, reason: str = "stopping") -> None:
        """Say goodbye on every connection and close everything."""
        self._listeners.close()
        for connection in self._connections.values():
            connection.close(reason)
        self._connections.clear()
        self._pending.clear()
        self._paths.clear()
        self._broken.clear()
        self._epoll.close()

    # Time.

    def _instants(self) -> Iterator[Instant]:
        for path in self._paths.values():
            yield from path.instants(self._timers)
        for connection in self._pending:
            yield after(connection.opened_at, self._timers.handshake_ns)
        if self._listeners.muted_until is not None:
            yield self._listeners.muted_until

    def _expire_handshakes(self, now: Instant, happened: list[LinkEvent]) -> None:
        dials = [path.dial for path in self._paths.values() if path.dial is not None]
        for connection in [*self._pending, *dials]:
            if now < after(connection.opened_at, self._timers.handshake_ns):
                continue
            self._service(connection, now, happened)
            if self._lives(connection) and not connection.session.established:
                self.counters.add("peer.handshake-timeout")
                connection.ending = Ending("timeout", "no handshake")
                self._finish(connection, now, happened)

    def _expire_path(self, path: Path, now: Instant, happened: list[LinkEvent]) -> None:
        idle_ns = self._timers.idle_ns
        if path.links and now >= after(path.heard_at, idle_ns):
            for link in list(path.links):
                self._service(link, now, happened)
            if now >= after(path.heard_at, idle_ns):
                for link in list(path.links):
                    link.ending = Ending("timeout", "nothing heard")
                    self._finish(link, now, happened)
        for spare in path.links[:-1]:
            if now >= after(spare.heard_at, idle_ns):
                path.links.remove(spare)
                self._drop(spare)

    # Dialling and accepting.

    def _dial_due(self, now: Instant, happened: list[LinkEvent]) -> None:
        for path in self._paths.values():
            if not path.links and path.dial is None and now >= path.dial_at:
                self._dial(path, now, happened)

    def _dial(self, path: Path, now: Instant, happened: list[LinkEvent]) -> None:
        settings = path.settings
        begun = start_connect(
            settings.local, settings.remote, settings.port, self._timers.user_timeout_ns
        )
        if isinstance(begun, Ending):
            self._dial_failed(path, begun, now, happened)
            return
        session = self._new_session(Role.INITIATOR, {settings.node})
        path.dial = Connection(begun, session, settings.remote, dialled=True, now=now)
        self._watch_new(path.dial)

    def _dial_failed(
        self, path: Path, ending: Ending, now: Instant, happened: list[LinkEvent]
    ) -> None:
        if path.failed(ending, now, self._random_bytes):
            happened.append(PeerRefused(*path.place))

    def _accept(self, listener: int, now: Instant, happened: list[LinkEvent]) -> None:
        for endpoint, source in self._listeners.accept(listener, now):
            expected = {path.node for path in self._paths if path.remote == source}
            if expected:
                self._welcome(endpoint, source, expected, now, happened)
            else:
                endpoint.close()
                self.counters.add("peer.stranger")
                happened.append(Rejected(Reject.SOURCE, source))

    def _welcome(
        self,
        endpoint: socket.socket,
        source: str,
        expected: set[str],
        now: Instant,
        happened: list[LinkEvent],
    ) -> None:
        try:
            prepare(endpoint, self._timers.user_timeout_ns)
        except OSError:
            self.counters.add("peer.accept-failed")
            endpoint.close()
            return
        self._make_room(source)
        session = self._new_session(Role.ACCEPTOR, expected)
        connection = Connection(endpoint, session, source, dialled=False, now=now)
        self._pending.append(connection)
        self._watch_new(connection)
        self._service(connection, now, happened)

    def _make_room(self, source: str) -> None:
        """Drop the oldest unproven connection: a genuine handshake is over in milliseconds."""
        same = [connection for connection in self._pending if connection.source == source]
        if len(same) >= PENDING_PER_SOURCE_MAX:
            self.counters.add("peer.evicted")
            self._drop(same[0])
        elif len(self._pending) >= PENDING_MAX:
            self.counters.add("peer.evicted")
            self._drop(self._pending[0])

    def _new_session(self, role: Role, expected: set[str]) -> Session:
        nonce = self._random_bytes(IDENTIFIER_BYTES)
        return Session(role, self._me, nonce, self._keys, expected)

    # Connections.

    def _service(self, connection: Connection, now: Instant, happened: list[LinkEvent]) -> None:
        if not self._lives(connection):
            return  # dropped while another one was served
        fresh = not connection.session.established
        messages = connection.service(now)
        if fresh and connection.session.established:
            self._establish(connection, now, happened)
        path = self._path_of(connection)
        if path is not None:
            path.heard_at = max(path.heard_at, connection.heard_at)
            happened.extend(MessageHeard(*path.place, message) for message in messages)
        if connection.ending is not None:
            self._finish(connection, now, happened)
        else:
            self._epoll.modify(connection.fileno(), connection.wanted)

    def _establish(self, link: Connection, now: Instant, happened: list[LinkEvent]) -> None:
        peer = link.peer
        path = self._path_for(link, peer.node)
        if path.dial is not None and path.dial is not link:
            self._drop(path.dial)
        path.dial = None
        if link in self._pending:
            self._pending.remove(link)
        known = self._instances.get(peer.node)
        if known is not None and known != peer.instance:
            self._forget(peer.node, now, happened)
            happened.append(PeerRestarted(*path.place, known, peer.instance))
            path.short_lives = 0
        self._instances[peer.node] = peer.instance
        for older in [each for each in path.links if each.dialled == link.dialled]:
            path.links.remove(older)
            self._drop(older)
        if path.opened(link, now):
            happened.append(LinkUp(*path.place, peer.instance, peer.version))

    def _forget(self, node: str, now: Instant, happened: list[LinkEvent]) -> None:
        """Close what is left of a node's former process, which is known to be gone."""
        for path in self._paths.values():
            if path.settings.node == node:
                for link in list(path.links):
                    link.ending = Ending("reset", "the peer's process was replaced")
                    self._finish(link, now, happened)
                path.unconfirmed = False

    def _finish(self, connection: Connection, now: Instant, happened: list[LinkEvent]) -> None:
        """Take an ended connection out and say what that means."""
        ending = connection.ending
        assert ending is not None
        if ending.reject is not None:
            happened.append(Rejected(ending.reject, connection.source))
        path = self._path_of(connection)
        self._drop(connection)
        if path is not None and connection in path.links:
            path.links.remove(connection)
            self._tell_closed(path, connection, now, happened)
        elif path is not None:
            path.dial = None
            self._dial_failed(path, ending, now, happened)

    def _tell_closed(
        self, path: Path, link: Connection, now: Instant, happened: list[LinkEvent]
    ) -> None:
        if path.links:
            self._probe(path)  # does the path still carry messages?
            return
        ending = link.ending
        assert ending is not None
        happened.append(LinkClosed(*path.place, ending.how, link.peer.instance, ending.detail))
        path.closed(ending, now, self._random_bytes)

    def _probe(self, path: Path) -> None:
        for link in path.links:
            if link.ending is None:
                link.write(link.session.probe())
            if link.ending is None:
                self._epoll.modify(link.fileno(), link.wanted)
            elif link not in self._broken:
                self._broken.append(link)

    def _part(
        self, link: Connection, path: Path, reason: str, now: Instant, happened: list[LinkEvent]
    ) -> None:
        """Close an established connection on purpose."""
        path.links.remove(link)
        self._drop(link, goodbye=reason)
        link.ending = Ending("goodbye", reason)
        self._tell_closed(path, link, now, happened)

    def _drop_unproven(self) -> None:
        """Drop handshakes that began with the old settings; either side dials again."""
        for connection in list(self._pending):
            self._drop(connection)
        for path in self._paths.values():
            if path.dial is not None:
                self._drop(path.dial)
                path.dial = None

    def _drop(self, connection: Connection, goodbye: str | None = None) -> None:
        """Close without an event."""
        del self._connections[connection.fileno()]
        if connection in self._pending:
            self._pending.remove(connection)
        connection.close(goodbye)

    def _send_over(self, path: Path, encoded: Encoded) -> int:
        for link in reversed(path.links):
            if link.ending is None:
                link.write(link.session.send(encoded))
            if link.ending is None:
                self._epoll.modify(link.fileno(), link.wanted)
                return 1
            if link not in self._broken:
                self._broken.append(link)
        return 0

    def _finish_broken(self, now: Instant, happened: list[LinkEvent]) -> None:
        broken, self._broken = self._broken, []
        for link in broken:  # what it said before it ended is still to be read
            self._service(link, now, happened)

    def _watch_new(self, connection: Connection) -> None:
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), connection.wanted)

    def _lives(self, connection: Connection) -> bool:
        return connection.fileno() in self._connections

    def _path_of(self, connection: Connection) -> Path | None:
        for path in self._paths.values():
            if path.dial is connection or connection in path.links:
                return path
        return None

    def _path_for(self, link: Connection, node: str) -> Path:
        """Return the path of an authenticated connection; its session has checked the node."""
        own = self._path_of(link)
        if own is not None:
            return own
        return next(path for path in self._paths.values() if path.place == (node, link.source))

    def _checked(self, paths: Sequence[PeerPath]) -> list[PeerPath]:
        checked = []
        for path in paths:
            if path.node == self._me.node:
                raise LocalError(f"a peer path from {path.node} to itself")
            local = None if path.local is None else canonical(path.local)
            checked.append(PeerPath(path.node, local, canonical(path.remote), path.port))
        return checked


def _canonical_endpoints(listen: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(canonical(address), port) for address, port in listen]
