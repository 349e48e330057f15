"""The parent of our processes: it reads files, writes the state, and starts the others again.

It decides nothing about addresses. When it dies, `elect` hands over, or serves on while nobody else
can. When `elect` dies, the kernel has shut its gate already; the parent starts it anew.
"""

import contextlib
import gc
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn

from carpool.base.errors import LocalError
from carpool.base.journal import Entry, Noted, ProcessChanged, from_json, render
from carpool.base.journal import to_json as entry_json
from carpool.base.time import NS_PER_MS, NS_PER_S, Instant, after
from carpool.config.model import Config
from carpool.config.problems import ConfigErrors
from carpool.config.revision import revision
from carpool.control.files import Secrets, load_examined, load_secrets
from carpool.daemon.channel import Channel, pair
from carpool.daemon.elect import ElectOptions, run_elect
from carpool.daemon.places import Places
from carpool.daemon.serve import run_serve
from carpool.daemon.state import State
from carpool.daemon.unprivileged import close_other_files
from carpool.drivers.clock import boottime_ns
from carpool.drivers.peerlink import PeerPath
from carpool.drivers.systemd import Notifier
from carpool.engine.setup import NodeSetup, node_setup

RESTART_NS_MIN: Final = 0  # the first restart is at once: a lone node serves again within 500 ms
RESTART_NS_MAX: Final = 5 * NS_PER_S
STABLE_NS: Final = 10 * NS_PER_S  # a process that lived this long starts again without back-off
SILENCE_NS_MAX: Final = 10 * NS_PER_S  # elect speaks each second; then it hangs and is killed
STOP_WITHIN_NS: Final = 8 * NS_PER_S  # elect hands over within one and takes its addresses down
TICK_NS: Final = 200 * NS_PER_MS
STALL_NS: Final = 2 * NS_PER_S  # a tick that comes this late was held up, with everything around it
RESTARTS_SHOWN_NS: Final = 600 * NS_PER_S  # how long `status` shows that a process ended
NEVER: Final = Instant(0)
_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(slots=True)
class Child:
    """One of our processes."""

    name: str
    start: Callable[["Child"], None]
    pid: int = 0
    channel: Channel | None = None
    started_at: Instant = NEVER
    start_at: Instant | None = None
    delay_ns: int = RESTART_NS_MIN
    heard_at: Instant = NEVER
    restarts: int = 0


@dataclass(slots=True)
class Options:
    """What the command line says."""

    config_file: str
    node: str
    places: Places
    gate: str = "auto"
    log_level: str = "info"
    realtime: bool = True


@dataclass(slots=True)
class Loaded:
    """A configuration with its secrets, whole and checked."""

    config: Config
    secrets: Secrets
    revision: str
    warnings: tuple[str, ...] = field(default_factory=tuple)


def load(path: str, node: str) -> Loaded:
    """Read and check everything the file names.

    Raises ConfigErrors with all problems, LocalError when this node is not in it.
    """
    examined = load_examined(path)
    config = examined.config
    if node not in config.node:
        known = ", ".join(config.node)
        raise LocalError(f"{path}: this node is called {node!r}, the file has {known} (--node)")
    secrets = load_secrets(config, examined)
    return Loaded(config, secrets, revision(config))


class Parent:
    """The supervising process."""

    def __init__(self, options: Options, loaded: Loaded) -> None:
        """Start nothing yet."""
        self.options = options
        self.loaded = loaded
        self.state = State(options.places.state)
        self.paused, self.demotions = self.state.orders()
        self.selector = selectors.DefaultSelector()
        self.notifier = Notifier()
        self.alone: frozenset[str] = frozenset()
        self.snapshot: dict[str, Any] | None = None
        self.stopping = False
        self.stop_until: Instant | None = None
        self.ready = False
        self.status = 0
        self.fatal = ""
        self.orders: dict[int, int] = {}  # our number -> serve's
        self.order_number = 0
        self.write_errors = 0
        self.elect = Child("elect", self._start_elect)
        self.serve = Child("serve", self._start_serve)
        self.watchdog_at: Instant | None = None
        self.ticked_at = boottime_ns()
        self.gate: Literal["bpf", "nft"] = "bpf"
        self.refused = ""  # why the file on disk is not what runs

    # The loop.

    def run(self) -> int:
        """Run until a stop is complete; return the exit code."""
        wake_in, wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.selector.register(wake_in, selectors.EVENT_READ, "signal")
        gc.collect()
        gc.freeze()  # what is here now is not looked at again: a child starts 40 ms sooner
        self.elect.start(self.elect)
        self.serve.start(self.serve)
        while self.elect.pid or self.serve.pid or not self.stopping:
            for key, _ in self.selector.select(TICK_NS / NS_PER_S):
                if key.data == "signal":
                    self._signals(os.read(wake_in, 64))
                else:
                    self._hear(key.data)
            self._tick()
        signal.set_wakeup_fd(-1)
        return self.status

    def _signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in {signal.SIGTERM, signal.SIGINT}:
                self.stop()
            elif number == signal.SIGHUP:
                self._reload("SIGHUP")
        self._reap()

    def stop(self) -> None:
        """Begin to stop: elect hands over, then everything ends."""
        if self.stopping:
            return
        self.stopping = True
        self.stop_until = after(boottime_ns(), STOP_WITHIN_NS)
        self.notifier.stopping("handing over")
        if self.elect.channel is not None and self.elect.pid:
            self.elect.channel.send({"type": "stop"})
        elif self.serve.pid:
            self._kill(self.serve, signal.SIGTERM)

    def _tick(self) -> None:
        now = boottime_ns()
        if now > after(self.ticked_at, STALL_NS):
            self.elect.heard_at = now  # we stood still ourselves (freeze, suspend), not elect
        self.ticked_at = now
        self._reap()
        for child in (self.elect, self.serve):
            if child.channel is not None:
                child.channel.flush()
            due = child.start_at is not None and now >= child.start_at
            if due and not self.stopping:
                child.start(child)
        if self.elect.pid and now > after(self.elect.heard_at, SILENCE_NS_MAX):
            self._journal(ProcessChanged("elect", "says nothing: killed"))
            self.elect.heard_at = now
            self._kill(self.elect, signal.SIGKILL)
        if self.stop_until is not None and now >= self.stop_until:
            self.stop_until = None
            self._kill(self.elect, signal.SIGKILL)
            self._kill(self.serve, signal.SIGKILL)
        self._feed_watchdog(now)

    def _feed_watchdog(self, now: Instant) -> None:
        """Tell systemd that we live, as long as elect does."""
        interval = self.notifier.watchdog_interval_ns
        if interval is None or (self.watchdog_at is not None and now < self.watchdog_at):
            return
        if now < after(self.elect.heard_at, SILENCE_NS_MAX):
            self.watchdog_at = after(now, interval // 2)
            self.notifier.alive()

    # Children.

    def _fork(self, child: Child, body: Callable[[Channel], NoReturn]) -> None:
        """Start a child with a channel; in the child, close everything else.

        When the machine has no room for another process or file it is tried again later. SIGTERM is
        held back until the child has forgotten our handler, or it would be lost there.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            ours, theirs = pair()
            pid = os.fork()
        except OSError as exc:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            child.start_at = after(boottime_ns(), NS_PER_S)
            self._journal(ProcessChanged(child.name, f"cannot be started: {exc.strerror}"))
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if pid == 0:
            close_other_files({theirs.fileno()})
            body(Channel(theirs))
        theirs.close()
        child.pid = pid
        child.channel = Channel(ours)
        child.started_at = child.heard_at = boottime_ns()
        child.start_at = None
        self.selector.register(ours, selectors.EVENT_READ, child)
        self.options.places.write_pid(child.name, pid)

    def _start_elect(self, child: Child) -> None:
        options = elect_options(self.loaded, self.options)
        options = ElectOptions(
            keys=options.keys,
            listen=options.listen,
            paths=options.paths,
            alone=self.alone,
            paused=self.paused,
            demotions=self.demotions,
            realtime=options.realtime,
        )
        gate = gate_wanted(self.loaded.config, self.options)

        def build(kind: Literal["bpf", "nft"]) -> NodeSetup:
            return setup_for(self.loaded, self.options.node, kind)

        own = os.getpid()

        def claim() -> None:
            self.options.places.claim_election(own)

        self._fork(child, lambda channel: run_elect(channel, gate, build, options, claim))

    def _start_serve(self, child: Child) -> None:
        path = str(self.options.places.socket)
        self._fork(child, lambda channel: run_serve(channel.socket, path))
        self._send_history()

    def _kill(self, child: Child, number: int) -> None:
        if child.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def _reap(self) -> None:
        """Learn which children ended."""
        for child in (self.elect, self.serve):
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.pid = 0
                self._hear(child)  # its last words
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        """A child ended: start it again, unless we stop."""
        now = boottime_ns()
        child.pid = 0
        if child.channel is not None:
            self.selector.unregister(child.channel.socket)
            child.channel.close()
            child.channel = None
        if child is self.elect:
            self._show_ended()
            for number in self.orders.values():
                self._answer(number, ok=False, text="the election process ended: see the status")
            self.orders.clear()
        if self.stopping:
            if child is self.elect:
                self._kill(self.serve, signal.SIGTERM)
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._journal(ProcessChanged(child.name, f"ended ({how}), started again"))
        if child is self.elect and not self.ready:
            self._give_up()
            return
        if now >= after(child.started_at, STABLE_NS):
            child.delay_ns = RESTART_NS_MIN
        child.restarts += 1
        child.start_at = after(now, child.delay_ns)
        child.delay_ns = min(max(child.delay_ns * 2, 100 * NS_PER_MS), RESTART_NS_MAX)
        if child.start_at <= now:
            child.start(child)

    def _show_ended(self) -> None:
        """Show that nothing is served here: the kernel has shut the gate of the dead process."""
        if self.snapshot is None:
            return
        groups = [
            {
                **group,
                "state": "INIT",
                "cause": "process-ended",
                "reason": "the election process ended and is being started again",
                "lease_until": 0,
                "master": "",
            }
            for group in self.snapshot["groups"]
        ]
        self.snapshot = {**self.snapshot, "groups": groups, "at": boottime_ns()}
        self._tell_serve({"type": "snapshot", "data": self.snapshot})

    def _give_up(self) -> None:
        """`elect` never came up: say why and end, instead of trying for ever."""
        sys.stderr.write(f"carpoold: {self.fatal or 'the election process cannot start'}\n")
        self.status = 77 if "needs CAP_" in self.fatal else 1
        self.stopping = True
        self.stop_until = after(boottime_ns(), STOP_WITHIN_NS)
        self._kill(self.serve, signal.SIGTERM)

    # Messages.

    def _hear(self, child: Child) -> None:
        channel = child.channel
        if channel is None:
            return
        for message, _ in channel.receive():
            child.heard_at = boottime_ns()
            if child is self.elect:
                self._from_elect(message)
            else:
                self._from_serve(message)
        if channel.closed and child.pid:
            # The other end is closed, so the process is ending: its kernel is at it just now.
            self._kill(child, signal.SIGKILL)
            _, status = os.waitpid(child.pid, 0)
            self._ended(child, os.waitstatus_to_exitcode(status))

    def _from_elect(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "snapshot":
                self._snapshot(message)
            case "entries":
                for value in message["data"]:
                    self._journal(from_json(value["entry"]), int(value["at"]))
            case "answer":
                self._answered(message)
            case "remember":
                self.paused = bool(message["paused"])
                self.demotions = {str(k): int(v) for k, v in message["demotions"].items()}
                self.state.remember(paused=self.paused, demotions=self.demotions)
            case "fatal":
                self.fatal = str(message["text"])
                if self.ready:
                    self._journal(ProcessChanged("elect", self.fatal))
            case _:
                raise AssertionError(message["type"])

    def _snapshot(self, message: dict[str, Any]) -> None:
        self.alone = frozenset(message["alone"])
        self.gate = "nft" if message["gate"] == "nft" else "bpf"
        self.snapshot = dict(message["data"])
        self.snapshot["processes"] = {
            child.name: f"ended and was started again ({child.restarts} in all)"
            for child in (self.elect, self.serve)
            if child.restarts and boottime_ns() < after(child.started_at, RESTARTS_SHOWN_NS)
        }
        self.snapshot["counters"]["state.write-errors"] = self.state.write_errors
        warnings = list(self.snapshot["warnings"])
        if self.state.write_errors:
            warnings.append(f"state is not written: {self.state.last_error}")
        if self.refused:
            warnings.append(f"the file on disk is refused, an older one runs: {self.refused}")
        self.snapshot["warnings"] = warnings
        self._tell_serve({"type": "snapshot", "data": self.snapshot})
        if not self.ready:
            self.ready = True
            self.notifier.ready(self._summary())
        else:
            self.notifier.status(self._summary())

    def _summary(self) -> str:
        groups = (self.snapshot or {}).get("groups", [])
        return ", ".join(f"{group['group']} {group['state']}" for group in groups)

    def _answered(self, message: dict[str, Any]) -> None:
        number = self.orders.pop(int(message["number"]), None)
        if number is not None:
            self._answer(number, ok=bool(message["ok"]), text=str(message["text"]))

    def _answer(self, number: int, *, ok: bool, text: str) -> None:
        body: dict[str, Any] = {"type": "answer", "id": number, "ok": ok}
        body.update({"data": {"text": text}} if ok else {"error": text, "code": 1})
        self._tell_serve(body)

    def _from_serve(self, message: dict[str, Any]) -> None:
        if message.get("type") != "order":
            return
        number, verb, args = int(message["id"]), str(message["verb"]), dict(message["args"])
        if verb == "reload":
            ok, text = self._reload(str(message["who"]))
            self._answer(number, ok=ok, text=text)
            return
        if self.elect.channel is None:
            self._answer(number, ok=False, text="the election process is being started again")
            return
        self.order_number += 1
        self.orders[self.order_number] = number
        argument = args.get("to", args.get("n", "force" if args.get("force") else ""))
        self.elect.channel.send(
            {
                "type": "order",
                "number": self.order_number,
                "verb": verb,
                "group": args.get("group", ""),
                "argument": str(argument or ("0" if verb == "demote" else "")),
                "who": str(message["who"]),
            }
        )

    # Reload.

    def _reload(self, who: str) -> tuple[bool, str]:
        """Take a new configuration when all of it is right; otherwise change nothing."""
        self.notifier.reloading()
        try:
            loaded = load(self.options.config_file, self.options.node)
        except (ConfigErrors, LocalError) as wrong:
            first, *more = str(wrong).splitlines()
            self.refused = f"{first} (and more)" if len(more) > 1 else first
            text = f"reload by {who} refused, nothing was changed: {self.refused}"
            self._journal(Noted(group="", name="config-refused", text=text))
            self.notifier.ready(self._summary())
            return False, str(wrong)
        self.loaded = loaded
        self.refused = ""
        if self.elect.channel is not None:
            options = elect_options(loaded, self.options)
            extra = {
                "keys": {str(key): value.hex() for key, value in options.keys.items()},
                "paths": [[p.node, p.local, p.remote, p.port] for p in options.paths],
                "listen": [list(place) for place in options.listen],
            }
            self.elect.channel.send_setup(setup_for(loaded, self.options.node, self.gate), extra)
        self.notifier.ready(self._summary())
        return True, f"configuration {loaded.revision}"

    # Journal.

    def _journal(self, entry: Entry, happened_at: int | None = None) -> None:
        """Write one entry to the log and the history, and show it.

        happened_at: wall clock ns, now if not given.
        """
        at = happened_at or time.time_ns()
        if _LEVELS.index(str(entry.level)) >= _LEVELS.index(self.options.log_level):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // NS_PER_S))
            level = str(entry.level).upper()
            line = f"{stamp}.{at // NS_PER_MS % 1000:03d}Z {level:7} {render(entry)}\n"
            with contextlib.suppress(OSError):  # a full disk behind stderr stops nothing
                sys.stderr.write(line)
                sys.stderr.flush()
        value = {"at": at, "entry": entry_json(entry)}
        self.state.append([value])
        self._tell_serve({"type": "entries", "data": [value]})

    def _send_history(self) -> None:
        """Give a fresh `serve` what it should know, in messages of moderate size."""
        kept = self.state.history()
        for start in range(0, len(kept), 200):
            self._tell_serve({"type": "entries", "data": kept[start : start + 200]})
        if self.snapshot is not None:
            self._tell_serve({"type": "snapshot", "data": self.snapshot})

    def _tell_serve(self, message: dict[str, Any]) -> None:
        if self.serve.channel is not None:
            self.serve.channel.send(message)

    def start_entry(self, entry: Entry) -> None:
        """Write the first line of this run."""
        self._journal(entry)


def gate_wanted(config: Config, options: Options) -> str:
    """Return which gate to take: the command line's, else the strictest that a group asks for."""
    if options.gate != "auto":
        return options.gate
    wanted = {hot.gate for hot in config.hot.values() if options.node in hot.nodes}
    return "nft" if "nft" in wanted else "bpf" if "bpf" in wanted else "auto"


def setup_for(loaded: Loaded, node: str, gate: Literal["bpf", "nft"]) -> NodeSetup:
    """Return the setup of this node with the gate it has."""
    return node_setup(
        loaded.config,
        node,
        revision=loaded.revision,
        passwords=dict(loaded.secrets.passwords),
        gate=gate,
    )


def elect_options(loaded: Loaded, options: Options) -> ElectOptions:
    """Return keys and paths of the peer link: path i of a node belongs to our path i."""
    config = loaded.config
    me = config.node[options.node]
    own = (me.address, *me.heartbeat)
    paths: list[PeerPath] = []
    for name, node in config.node.items():
        if name == options.node:
            continue
        for place, remote in enumerate((node.address, *node.heartbeat)):
            local = own[place] if place < len(own) else None
            fits = local is not None and local.version == remote.version
            paths.append(PeerPath(name, str(local) if fits else None, str(remote), node.port))
    linked = bool(loaded.secrets.keys) and len(config.node) > 1
    return ElectOptions(
        keys=loaded.secrets.keys,
        listen=tuple((str(address), me.port) for address in own) if linked else (),
        paths=tuple(paths) if linked else (),
        realtime=options.realtime,
    )
