"""`serve`: the process that answers the control socket, with no privilege at all.

One thread, one selector. It listens on a unix socket for clients (control/messages.py) and talks to
the daemon's parent over a SOCK_SEQPACKET pair, one JSON object a packet:

    parent -> serve  {"type":"snapshot","data":{...}}       engine/snapshot.py as JSON; each second
                                                            at least, and at every change
                     {"type":"entries","data":[{"at":wall-clock ns,"entry":{...}}, ...]}
                     {"type":"answer","id":7,"ok":true,"data":{"text":"..."}}
                     {"type":"answer","id":7,"ok":false,"error":"...","code":1}
    serve -> parent  {"type":"order","id":7,"verb":"step-down","args":{...},"who":"uid 0 pid 123"}

Reading is answered here, from the latest snapshot; orders go to the parent, and only for root, the
daemon's user and the members of the group `carpool` (exit code 77 otherwise). Its death moves no
address: the parent starts another. It ends when the parent closes its end.

Timers: a connection that is silent for 30 s is closed, also a watcher that does not take what it
is sent; an order not answered within 15 s is refused; a watcher is told at most ten times a second,
and of the clockwork (leases, counters) once a second.
"""

import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from carpool.base.errors import LocalError
from carpool.base.time import NS_PER_MS, NS_PER_S, Instant, after
from carpool.control.messages import (
    CONNECTIONS_MAX,
    HISTORY_ENTRIES_DEFAULT,
    HISTORY_ENTRIES_MAX,
    ORDERS,
    ControlError,
    ExitCode,
    Request,
    answer,
    parse_request,
    refusal,
)
from carpool.daemon.channel import MESSAGE_BYTES_MAX
from carpool.daemon.serve_connection import (
    Connection,
    Credentials,
    Rights,
    Watching,
    credentials_of,
)
from carpool.daemon.serve_state import ServeState
from carpool.daemon.unprivileged import close_other_files, drop_privileges, group_id
from carpool.drivers.clock import boottime_ns

ORDER_GROUP: Final = "carpool"  # its members may give orders
PRIVILEGED_RESERVE: Final = 16  # connections that strangers cannot take away from the operator

IDLE_NS_MAX: Final = 30 * NS_PER_S
ORDER_NS_MAX: Final = 15 * NS_PER_S  # a hand-over that takes longer has failed
WATCH_NS_MIN: Final = 100 * NS_PER_MS
WATCH_CALM_NS: Final = NS_PER_S

_TICK_S: Final = 1.0  # how late a limit of many seconds may be noticed
_PACKETS_A_TURN: Final = 64  # then clients get their turn


class _Order:
    """An order the parent has not answered yet."""

    def __init__(self, connection: Connection, deadline: Instant) -> None:
        self.connection = connection
        self.deadline = deadline


class Server:
    """The control socket's clients, the parent's channel, and the loop between them."""

    def __init__(
        self,
        channel: socket.socket,
        listener: socket.socket,
        *,
        may_order: Callable[[Credentials], bool],
        clock: Callable[[], Instant] = boottime_ns,
    ) -> None:
        """Serve `listener` with what comes over `channel`; both become non-blocking."""
        self.state = ServeState()
        self.running = True
        self._channel = channel
        self._listener = listener
        self._may_order = may_order
        self._clock = clock
        self._buffer = bytearray(MESSAGE_BYTES_MAX)
        self._connections: set[Connection] = set()
        self._orders: dict[int, _Order] = {}
        self._order_id = 0
        self._registered: dict[Connection, int] = {}
        self._selector = selectors.DefaultSelector()
        for endpoint in (channel, listener):
            endpoint.setblocking(False)
            self._selector.register(endpoint, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the parent closes its end."""
        while self.running:
            self.turn(_TICK_S)

    def turn(self, timeout_s: float) -> None:
        """Wait for at most `timeout_s` for something to happen, and handle it."""
        ready = self._selector.select(min(timeout_s, self._watchers_wait_s()))
        now = self._clock()
        for key, mask in ready:
            if key.fileobj is self._channel:
                self._read_channel(now)
            elif key.fileobj is self._listener:
                self._accept(now)
            else:
                self._move_bytes(key.data, mask, now)
        self._expire(now)
        self._tell_watchers(now)
        for connection in list(self._connections):
            self._settle(connection, now)

    def close(self) -> None:
        """Close everything that was opened or handed over."""
        for connection in self._connections:
            connection.socket.close()
        self._connections.clear()
        self._selector.close()
        self._listener.close()
        self._channel.close()

    def _accept(self, now: Instant) -> None:
        """Take one new connection, or refuse it when there are enough."""
        try:
            accepted, _ = self._listener.accept()
        except OSError as failed:  # it hung up already, or we are out of files: the next may do
            _complain(f"accept: {failed.strerror}")
            return
        who = credentials_of(accepted)
        privileged = self._may_order(who)
        connection = Connection(accepted, privileged=privileged, who=str(who), now=now)
        limit = CONNECTIONS_MAX - (0 if privileged else PRIVILEGED_RESERVE)
        if len(self._connections) >= limit:
            connection.refuse_and_close("too many connections", now)
            accepted.close()
            return
        self._connections.add(connection)

    def _move_bytes(self, connection: Connection, mask: int, now: Instant) -> None:
        """Read from and write to a client."""
        if mask & selectors.EVENT_READ:
            connection.receive(now)
        if mask & selectors.EVENT_WRITE and not connection.closed:
            connection.flush(now)

    def _settle(self, connection: Connection, now: Instant) -> None:
        """Answer what can be answered, and wait for what has to be waited for."""
        while connection.requests and connection.idle:
            self._answer(connection, connection.requests.popleft(), now)
        connection.close_if_done()
        wanted = 0 if connection.closed else connection.events()
        registered = self._registered.get(connection, 0)
        if wanted != registered:
            self._register(connection, registered, wanted)
        if connection.closed:
            connection.socket.close()
            self._connections.discard(connection)

    def _register(self, connection: Connection, before: int, wanted: int) -> None:
        """Tell the selector what `connection` waits for now."""
        if not wanted:
            self._selector.unregister(connection.socket)
            del self._registered[connection]
            return
        self._registered[connection] = wanted
        if before:
            self._selector.modify(connection.socket, wanted, connection)
        else:
            self._selector.register(connection.socket, wanted, connection)

    def _answer(self, connection: Connection, line: bytes, now: Instant) -> None:
        """Answer one request, or start what will answer it."""
        try:
            request = parse_request(line)
            if request.verb in ORDERS:
                self._pass_on(connection, request, now)
            elif request.verb == "watch":
                self._watch(connection, request, now)
            else:
                connection.send(answer(self.state.answer(request, now), now), now)
        except ControlError as refused:
            connection.send(refusal(refused.sentence, refused.code), now)

    def _pass_on(self, connection: Connection, request: Request, now: Instant) -> None:
        """Send an order to the parent. Raises ControlError."""
        if not connection.privileged:
            raise ControlError(
                f"{request.verb} is for root and members of the group {ORDER_GROUP}",
                ExitCode.PERMISSION,
            )
        self._order_id += 1
        order = {
            "type": "order",
            "id": self._order_id,
            "verb": request.verb,
            "args": self.state.order(request),
            "who": connection.who,
        }
        try:
            self._channel.send(json.dumps(order).encode("ascii"))
        except OSError as failed:  # the parent does not read: the order was not given
            text = f"the daemon is busy and did not take the order: {failed.strerror}"
            raise ControlError(text) from failed
        connection.order = self._order_id
        self._orders[self._order_id] = _Order(connection, after(now, ORDER_NS_MAX))

    def _watch(self, connection: Connection, request: Request, now: Instant) -> None:
        """Make the client a watcher and send it the present state. Raises ControlError."""
        of = request.args.get("of", "status")
        connection.watching = Watching(of, now)
        if of == "history":
            connection.watching.number = self.state.entries_total
            data = self.state.history(HISTORY_ENTRIES_DEFAULT)
            connection.send(answer(data, now), now)
        elif self.state.snapshot is not None:
            self._push(connection, connection.watching, now)

    def _read_channel(self, now: Instant) -> None:
        """Take what the parent sent."""
        for _ in range(_PACKETS_A_TURN):
            try:
                size, _, flags, _ = self._channel.recvmsg_into([self._buffer])
            except BlockingIOError:
                return
            except OSError:  # reset: the parent is gone
                size, flags = 0, 0
            if not size:
                self.running = False
                return
            if flags & socket.MSG_TRUNC:
                _complain(f"a message from the parent is longer than {MESSAGE_BYTES_MAX} bytes")
                continue
            try:
                self._take(json.loads(self._buffer[:size].decode("utf-8")), now)
            except (ValueError, KeyError, TypeError, AttributeError) as wrong:
                _complain(f"a message from the parent makes no sense: {wrong!r}")

    def _take(self, message: dict[str, Any], now: Instant) -> None:
        """Handle one message of the parent."""
        match message["type"]:
            case "snapshot":
                self.state.take_snapshot(message["data"])
            case "entries":
                self.state.take_entries(message["data"])
            case "answer":
                order = self._orders.pop(message["id"], None)
                if order is not None:  # else it came too late, or its client is gone
                    self._finish(order.connection, message, now)
            case unknown:
                raise ValueError(unknown)

    def _finish(self, connection: Connection, message: dict[str, Any], now: Instant) -> None:
        """Give the parent's answer to the client that gave the order."""
        connection.order = None
        if connection.closed:
            return
        if message["ok"]:
            connection.send(answer(message.get("data") or {}, now), now)
        else:
            code = message.get("code", ExitCode.FAILED)
            connection.send(refusal(str(message.get("error", "refused")), int(code)), now)

    def _expire(self, now: Instant) -> None:
        """End what has waited too long."""
        for number, order in list(self._orders.items()):
            if order.connection.closed:
                del self._orders[number]
            elif now >= order.deadline:
                del self._orders[number]
                text = f"the daemon did not answer within {ORDER_NS_MAX // NS_PER_S} s"
                self._finish(order.connection, {"ok": False, "error": text}, now)
        for connection in self._connections:
            waits = connection.order is not None
            listens = connection.watching is not None and connection.idle
            if not (waits or listens) and now - connection.active_at > IDLE_NS_MAX:
                connection.closed = True

    def _watchers_wait_s(self) -> float:
        """Return how soon a watcher has to be told something that is known already."""
        now = self._clock()
        waits = [
            max(0, connection.watching.sent_at + WATCH_NS_MIN - now) / NS_PER_S
            for connection in self._connections
            if connection.watching and connection.idle and self._has_news(connection.watching)
        ]
        return min(waits, default=_TICK_S)

    def _has_news(self, watching: Watching) -> bool:
        """Tell whether something changed that a watcher does not know."""
        if watching.of == "history":
            return watching.number < self.state.entries_total
        return watching.changes != self.state.changes

    def _tell_watchers(self, now: Instant) -> None:
        """Send each watcher what is new, at its pace."""
        for connection in self._connections:
            watching = connection.watching
            if watching is None or not connection.idle:
                continue
            waited_ns = now - watching.sent_at
            news = self._has_news(watching) and waited_ns >= WATCH_NS_MIN
            beat = watching.of == "status" and waited_ns >= WATCH_CALM_NS
            if news or (beat and watching.snapshots != self.state.snapshots):
                self._push(connection, watching, now)

    def _push(self, connection: Connection, watching: Watching, now: Instant) -> None:
        """Send a watcher the news."""
        if watching.of == "history":
            data = self.state.history(HISTORY_ENTRIES_MAX, after=watching.number)
        else:
            data = dict(self.state.status())
        watching.sent_at = now
        watching.changes = self.state.changes
        watching.snapshots = self.state.snapshots
        watching.number = self.state.entries_total
        connection.send(answer(data, now), now)


def listen(path: str, mode: int = 0o666) -> socket.socket:
    """Return a socket that listens at `path`, in place of whatever was there.

    It appears with its final mode already set. Raises LocalError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = Path(f"{path}.new")
    try:
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(mode)
        listener.listen(CONNECTIONS_MAX)
        fresh.replace(path)
    except OSError as refused:
        listener.close()
        raise LocalError(f"control socket {path}: {refused.strerror or refused}") from refused
    return listener


def run_serve(
    channel: socket.socket,
    socket_path: str,
    socket_group: str = ORDER_GROUP,
    mode: int = 0o666,
) -> NoReturn:
    """Be the `serve` process: listen, drop every privilege, serve, exit.

    channel: serve's end of daemon/channel.py's pair. Call it in a fresh child of the parent.
    socket_group: members may give orders. mode: of the socket's file; reading needs no privilege.
    """
    status = 1
    try:
        _reset_signals()
        rights = Rights(os.getuid(), group_id(socket_group))
        listener = listen(socket_path, mode)
        close_other_files({channel.fileno(), listener.fileno()})
        for kept in drop_privileges():
            _complain(f"could not give up a privilege: {kept}")
        server = Server(channel, listener, may_order=rights.allow)
        server.run()
        status = 0
    except LocalError as refused:
        _complain(str(refused))
    except BaseException:  # noqa: BLE001  a child must never return into its parent's program
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reset_signals() -> None:
    """Forget the parent's handlers; Ctrl-C and a reload are the parent's business."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _complain(text: str) -> None:
    """Write a line to the daemon's log."""
    sys.stderr.write(f"serve: {text}\n")
