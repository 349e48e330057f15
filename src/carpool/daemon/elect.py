"""The election process: sockets, gate, addresses, peer link, and the brain. Nothing else.

It writes no disk, resolves no name, runs no script and forks nobody: it holds the gate's permit,
and a copy of a descriptor would keep the gate open after its death.

One turn of the loop: note the moment of entry, drain the advertisements up to that moment, serve
the peer link, the kernel's events and the parent, and only then let time pass, judged at the moment
of entry. So a packet that had arrived is heard before its absence is judged: our own delay is never
the peer's death.
"""

import os
import select
import signal
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from carpool.base.errors import CarpoolError, DriverError
from carpool.base.journal import Entry, Noted, to_json
from carpool.base.time import NS_PER_MS, NS_PER_S, Instant, after
from carpool.daemon.attachment import NEIGHBOUR_FRAMES_MAX, Attachment
from carpool.daemon.channel import Channel
from carpool.daemon.hands import Hands
from carpool.drivers.clock import BoottimeTimer, boottime_ns, realtime_offset_ns
from carpool.drivers.gate import Gate
from carpool.drivers.links import (
    AddressAdded,
    AddressGone,
    KernelEvents,
    LinkChanged,
    LinkGone,
    Overflowed,
    TcChanged,
)
from carpool.drivers.peerlink import PeerLinks, PeerPath
from carpool.drivers.realtime import become_realtime
from carpool.election.effects import Announce, Probe, Serve, ShutGate, Withdraw
from carpool.engine import snapshot
from carpool.engine.effects import (
    Answer,
    Effect,
    Finished,
    Journal,
    Rearrange,
    Remember,
    Send,
    TellPeer,
)
from carpool.engine.engine import Engine
from carpool.engine.events import (
    Event,
    FrameHeard,
    InterfaceSeen,
    NeighbourHeard,
    Ordered,
    Reconfigured,
    ServeFailed,
    StopOrdered,
    Tick,
)
from carpool.engine.setup import NodeSetup
from carpool.wire.peer import Message
from carpool.wire.session import Identity

CARRIER_POLL_NS: Final = 25 * NS_PER_MS  # the kernel's own event may be a second late
SNAPSHOT_NS: Final = NS_PER_S  # how often the parent hears from us when nothing happens
SNAPSHOT_GAP_NS: Final = 50 * NS_PER_MS  # and how often at most when much happens
SETTLE_NS: Final = 15 * NS_PER_MS  # what belongs together arrives within this time
RETRY_NS: Final = NS_PER_S  # how often what was refused is tried again
LATE_NS: Final = 5 * NS_PER_MS  # a turn this slow drains once more before it judges a silence
ADVERTS_MAX: Final = 64  # heard in one turn, some 4 ms of work: a flood makes no turn a slow one
FLOODED_NS_MAX: Final = NS_PER_S  # who is behind for so long judges by what it could hear
ENTRIES_MAX: Final = 1000  # journal entries that wait for the parent


@dataclass(frozen=True, slots=True)
class ElectOptions:
    """What the election process is started with, beside the setup."""

    keys: Mapping[int, bytes]
    listen: tuple[tuple[str, int], ...]
    paths: tuple[PeerPath, ...]
    alone: frozenset[str] = frozenset()
    paused: bool = False
    demotions: Mapping[str, int] | None = None
    realtime: bool = True


class Elect:
    """The loop and what it holds."""

    def __init__(
        self, channel: Channel, gate: Gate, setup: NodeSetup, options: ElectOptions, reason: str
    ) -> None:
        """Arrange everything, then listen. Raises DriverError."""
        self.channel = channel
        self.setup = setup
        self.hands = Hands(gate)
        self.kernel = KernelEvents()
        self.timer = BoottimeTimer()
        self.entries: deque[dict[str, object]] = deque(maxlen=ENTRIES_MAX)
        self.finished = False
        self.changed_at: Instant | None = None
        self.orphan = False
        self.skipped = False
        self.gate_trouble = ""
        self.retry_gate_at = Instant(0)
        self.stop_wanted = False
        now = boottime_ns()
        self.carrier_at = now
        self.snapshot_at = now
        self.orphan_at: Instant | None = None
        self.behind_since: Instant | None = None
        self.engine = Engine(
            setup,
            now=now,
            counter_start=int.from_bytes(os.urandom(8), "big"),
            alone=options.alone,
            paused=options.paused,
            demotions=options.demotions,
        )
        identity = Identity(
            site=setup.site, node=setup.node, instance=os.urandom(16), version=_version()
        )
        self.options = options
        self.retry_listen_at: Instant | None = None
        self.links = self._open_links(identity, now)
        if reason:
            text = f"the BPF gate is refused, nft is used instead: {reason}"
            self.record(Noted(group="", name="gate", text=text))
        self.hands.arrange(setup)
        self.epoll = select.epoll()
        self._watch_all()
        for name in self.hands.attachments:
            self._see(name)

    def _open_links(self, identity: Identity, now: Instant) -> PeerLinks:
        """Open the peer link; a port that somebody else holds must not keep us from serving."""
        options = self.options
        try:
            return PeerLinks(identity, options.keys, options.listen, options.paths, os.urandom)
        except DriverError as refused:
            self.retry_listen_at = after(now, RETRY_NS)
            self._note("peer-link", f"peers cannot connect to this node: {refused}")
            return PeerLinks(identity, options.keys, (), options.paths, os.urandom)

    # The loop.

    def run(self) -> None:
        """Run until everything is handed over, or nobody needs us any more."""
        while not self.finished:
            self._arm()
            try:
                self.epoll.poll()
            except InterruptedError:
                continue
            self.turn()
        self._snapshot(boottime_ns())
        self.links.close("stopping")
        self.hands.release()
        self._collect()
        self._send_entries()

    def turn(self) -> None:
        """Handle everything that has happened up to now."""
        entered = boottime_ns()
        self.timer.clear()
        self._hear_adverts(entered)
        self._hear_links()
        if not self.hands.busy:  # our own thousand addresses are as many events: they can wait
            self._hear_kernel()
        self._hear_neighbours()
        self._hear_parent()
        self.hands.work()
        self._mind_gate(entered)
        self._retry_listen(entered)
        self._poll_carriers(entered)
        # A slow turn drains once more before silence is judged, but never twice in a row.
        self.skipped = not self.skipped and boottime_ns() - entered >= LATE_NS
        self._pass_time(entered, judge=not self._is_flooded(entered) and not self.skipped)
        self._report()

    def _pass_time(self, entered: Instant, *, judge: bool) -> None:
        deadline = self.engine.deadline
        if deadline is not None and deadline <= entered:
            self.handle(Tick(judge), entered)

    def _is_flooded(self, entered: Instant) -> bool:
        """Return whether advertisements wait that had arrived before this turn; not for ever."""
        held = (attachment.adverts for attachment in self.hands.attachments.values())
        if not any(adverts.behind for adverts in held if adverts is not None):
            self.behind_since = None
            return False
        if self.behind_since is None:
            self.behind_since = entered
        return entered < after(self.behind_since, FLOODED_NS_MAX)

    def _arm(self) -> None:
        """Set the timer to the earliest thing to do."""
        if self.hands.busy:
            self.timer.arm(Instant(1))
            return
        hands = [self.engine.deadline, self.links.deadline, self.carrier_at, self.snapshot_at]
        if self.changed_at is not None:
            hands.append(self.snapshot_due(self.changed_at))
        if self.orphan_at is not None:
            hands.append(self.orphan_at)
        if self.stop_wanted:
            return  # the timer is armed for now
        self.timer.arm(min(hand for hand in hands if hand is not None))

    def snapshot_due(self, changed_at: Instant) -> Instant:
        """Return when the parent is shown a change: settled, and not too soon after the last."""
        last = self.snapshot_at - SNAPSHOT_NS
        return Instant(max(changed_at + SETTLE_NS, last + SNAPSHOT_GAP_NS))

    # Events.

    def handle(self, event: Event, now: Instant | None = None) -> None:
        """Let the brain handle one event and carry out what it asks for."""
        moment = boottime_ns() if now is None else now
        self.apply(self.engine.handle(event, moment))

    def _hear_adverts(self, entered: Instant) -> None:
        for attachment in list(self.hands.attachments.values()):
            if attachment.adverts is None:
                continue
            for received in attachment.adverts.drain(ADVERTS_MAX, until=entered):
                self.handle(FrameHeard(received.interface, received.frame, received.received_at))
            if attachment.adverts.trouble:
                attachment.adverts.trouble = ""
                self._refresh(attachment.name)

    def _hear_neighbours(self) -> None:
        for attachment in list(self.hands.attachments.values()):
            if attachment.neighbours is None:
                continue
            heard = attachment.neighbours.drain(NEIGHBOUR_FRAMES_MAX)
            attachment.neighbours.trouble = ""
            if not self.hands.serving_on(attachment.name):
                continue  # what the true master says is no conflict
            for received in heard:
                self.handle(
                    NeighbourHeard(received.interface, received.frame, received.received_at)
                )

    def _hear_links(self) -> None:
        now = boottime_ns()
        happened = self.links.handle(0, 0, now)
        if self.links.deadline is not None and self.links.deadline <= now:
            happened += self.links.tick(now)
        for event in happened:
            self.handle(event)

    def _hear_kernel(self) -> None:
        touched: set[str] = set()
        bereft: set[int] = set()
        stray: set[int] = set()
        audit = False
        for event in self.kernel.read():
            match event:
                case LinkChanged(link):
                    touched.add(link.name)
                case LinkGone(_, name):
                    touched.add(name)
                case AddressAdded(item) | AddressGone(item) if self.hands.is_shared(item.address):
                    (bereft if isinstance(event, AddressGone) else stray).add(item.ifindex)
                case AddressAdded(item) | AddressGone(item):
                    touched |= self._names(item.ifindex)
                case TcChanged():
                    audit = True
                case Overflowed():
                    audit = True
                    touched |= set(self.hands.attachments)
                    self.hands.audit_addresses()
                    self.engine.node.counters.add("netlink-overflow")
        for name in touched & set(self.hands.attachments):
            self._refresh(name)
        self._mend_addresses(bereft, stray)
        if audit or self._gate_noticed():
            self.hands.audit_gate()

    def _mend_addresses(self, bereft: set[int], stray: set[int]) -> None:
        """Put back what is missing while we serve, take off what is there while we do not."""
        try:
            if bereft:
                self.hands.audit_addresses(bereft)
            if stray:
                self.hands.remove_strays(stray)
        except DriverError as refused:  # the interface is going: its own event follows
            self._note("addresses", str(refused))

    def _gate_noticed(self) -> bool:
        """Return whether somebody else changed tc or nft."""
        watched = self.hands.gate.filenos()
        return bool(watched) and bool(select.select(watched, [], [], 0)[0])

    def _mind_gate(self, now: Instant) -> None:
        """Without a gate nothing is served: say so to the brain, and try again."""
        if self.hands.gate_trouble and now >= self.retry_gate_at:
            self.retry_gate_at = after(now, RETRY_NS)
            self.hands.install_gate()
        if self.hands.gate_trouble == self.gate_trouble:
            return
        self.gate_trouble = self.hands.gate_trouble
        self._note("gate", self.gate_trouble or "the gate stands again")
        for name in list(self.hands.attachments):
            self._refresh(name)

    def _retry_listen(self, now: Instant) -> None:
        """Listen for peers where another program had the port."""
        if self.retry_listen_at is None or now < self.retry_listen_at:
            return
        options = self.options
        try:
            self.links.reconfigure(options.paths, options.keys, options.listen, now)
            self.retry_listen_at = None
        except CarpoolError:
            self.retry_listen_at = after(now, RETRY_NS)

    def _names(self, ifindex: int) -> set[str]:
        return {a.name for a in self.hands.attachments.values() if a.ifindex == ifindex}

    def _refresh(self, name: str) -> None:
        """Follow an interface that changed and tell the brain what is true now."""
        before = self.hands.attachments[name].facts
        try:
            self.hands.refresh(name)
        except DriverError as refused:
            self._note("interface", f"{name}: {refused}")
        self._watch(self.hands.attachments[name])
        if self.hands.attachments[name].facts != before:
            self._see(name)

    def _see(self, name: str) -> None:
        self.handle(InterfaceSeen(name, self.hands.attachments[name].facts))

    def _poll_carriers(self, now: Instant) -> None:
        if now < self.carrier_at:
            return
        self.carrier_at = after(now, CARRIER_POLL_NS)
        for attachment in list(self.hands.attachments.values()):
            if attachment.carrier_changed():
                self._refresh(attachment.name)

    def _hear_parent(self) -> None:
        for message, setup in self.channel.receive():
            match message["type"]:
                case "order":
                    self._order(message)
                case "stop":
                    self.handle(StopOrdered())
                case "setup":
                    assert setup is not None
                    self._reconfigure(setup, message)
                case _:
                    raise AssertionError(message["type"])
        if self.channel.closed:
            self._parent_gone()
        if self.stop_wanted:
            self.stop_wanted = False
            self.handle(StopOrdered())

    def _order(self, message: dict[str, Any]) -> None:
        order = Ordered(
            number=int(message["number"]),
            verb=str(message["verb"]),
            group=str(message.get("group", "")),
            argument=str(message.get("argument", "")),
            who=str(message.get("who", "")),
        )
        self.handle(order)

    def _parent_gone(self) -> None:
        """Hand over when somebody can take over; serve on as an orphan while nobody can.

        A new carpoold finds our process id and ends us properly.
        """
        now = boottime_ns()
        if self.orphan_at is not None and now < self.orphan_at:
            return
        if not self.orphan:
            self.epoll.unregister(self.channel.fileno())
            self.orphan = True
        self.orphan_at = after(now, NS_PER_S)
        if not self.engine.alone_groups(now):
            self.handle(StopOrdered())

    def stop_soon(self) -> None:
        """End in order at the next turn: somebody sent SIGTERM to this process itself."""
        self.stop_wanted = True
        self.timer.arm(Instant(1))

    def _reconfigure(self, setup: NodeSetup, message: dict[str, Any]) -> None:
        keys = {int(key): bytes.fromhex(value) for key, value in message["keys"].items()}
        paths = [PeerPath(*path) for path in message["paths"]]
        listen = [(str(host), int(port)) for host, port in message["listen"]]
        try:
            for event in self.links.reconfigure(paths, keys, listen, boottime_ns()):
                self.handle(event)
        except CarpoolError as refused:
            self._note("peer-link", f"peer link: {refused}")
        self.handle(Reconfigured(setup))

    # Effects.

    def apply(self, effects: list[Effect]) -> None:
        """Carry out effects in order; what they bring about is handled at once."""
        for effect in effects:
            self._apply_one(effect)
        shown = any(isinstance(effect, Journal | Answer | Rearrange) for effect in effects)
        if shown and self.changed_at is None:
            self.changed_at = boottime_ns()

    def _apply_one(self, effect: Effect) -> None:
        match effect:
            case Send():
                if effect.group in self.hands.posts:
                    sent = self.hands.send(effect)
                    if effect.lease_until:
                        self.handle(sent)
            case TellPeer(node, message):
                self._tell(node, message)
            case ShutGate() | Serve() | Withdraw() | Announce() | Probe():
                self._serve(effect)
            case Journal(entry):
                self.record(entry)
            case _:
                self._apply_rare(effect)

    def _serve(self, effect: ShutGate | Serve | Withdraw | Announce | Probe) -> None:
        if effect.group not in self.hands.posts:
            return
        match effect:
            case ShutGate(group):
                self.hands.shut(group)
            case Serve(group):
                failure = self.hands.serve(group)
                if failure:
                    self.handle(ServeFailed(group, failure))
            case Withdraw(group):
                self.hands.withdraw(group)
            case Announce(group):
                self.hands.announce(group)
            case Probe(group):
                self.hands.probe(group)

    def _apply_rare(self, effect: Effect) -> None:
        match effect:
            case Answer(number, ok, text):
                answer = {"type": "answer", "number": number, "ok": ok, "text": text}
                self.channel.send(answer)
            case Remember(paused, demotions):
                self.channel.send(
                    {"type": "remember", "paused": paused, "demotions": dict(demotions)}
                )
            case Rearrange(_, after_setup):
                self.setup = after_setup
                self.hands.arrange(after_setup)
                self._watch_all()
                for name in self.hands.attachments:
                    self.engine.node.facts[name] = self.hands.attachments[name].facts
                for name, post in self.hands.posts.items():
                    if post.serving:
                        self.hands.announce(name)
            case Finished():
                self.finished = True
            case _:
                raise AssertionError(effect)

    def _tell(self, node: str, message: Message) -> None:
        for name in [node] if node else [name for name, _ in self.setup.nodes]:
            self.links.send(name, message)

    # Watching and reporting.

    def _watch_all(self) -> None:
        fixed = [
            self.timer.fileno(),
            self.kernel.fileno(),
            self.channel.fileno(),
            *self.links.filenos(),
            *self.hands.gate.filenos(),
        ]
        for descriptor in fixed:
            self._register(descriptor)
        for attachment in self.hands.attachments.values():
            self._watch(attachment)

    def _watch(self, attachment: Attachment) -> None:
        for held in (attachment.adverts, attachment.neighbours):
            if held is not None:
                self._register(held.fileno())

    def _register(self, descriptor: int) -> None:
        """Watch a descriptor; a closed one has left the epoll set by itself."""
        if descriptor >= 0:
            try:
                self.epoll.register(descriptor, select.EPOLLIN)
            except FileExistsError:
                return

    def _note(self, name: str, text: str) -> None:
        self.record(Noted(group="", name=name, text=text))

    def record(self, entry: Entry) -> None:
        """Keep a journal entry, with the wall clock for people, until the parent takes it."""
        at = boottime_ns() + realtime_offset_ns()
        self.entries.append({"at": at, "entry": to_json(entry)})

    def _collect(self) -> None:
        for entry in self.hands.journal:
            self.record(entry)
        self.hands.journal.clear()

    def _report(self) -> None:
        """Tell the parent what happened, not more often than it can read."""
        self._collect()
        now = boottime_ns()
        self.channel.flush()
        self._send_entries()
        changed = self.changed_at is not None and now >= self.snapshot_due(self.changed_at)
        if changed or now >= self.snapshot_at:
            self._snapshot(now)

    def _send_entries(self) -> None:
        if self.entries:
            self.channel.send({"type": "entries", "data": list(self.entries)})
            self.entries.clear()

    def _snapshot(self, now: Instant) -> None:
        self.changed_at = None
        self.snapshot_at = after(now, SNAPSHOT_NS)
        view = self.engine.snapshot(now, self.hands.gate.kind)
        data = snapshot.to_json(view)
        counters = dict(view.counters)
        counters.update(self.hands.counters.snapshot())
        counters.update(self.links.counters.snapshot())
        for group, count in self.hands.gate.drops().items():
            counters[f"gate.drop.{group}"] = count
        data["counters"] = counters
        alone = sorted(self.engine.alone_groups(now))
        gate = self.hands.gate.kind
        self.channel.send({"type": "snapshot", "data": data, "alone": alone, "gate": gate})


def _version() -> str:
    from carpool import __version__  # noqa: PLC0415  one word for the handshake

    return __version__


def run_elect(
    channel: Channel,
    gate_wanted: str,
    build: Any,
    options: ElectOptions,
    claim: Callable[[], None],
) -> NoReturn:
    """Be the election process; call it in a fresh child of the parent.

    claim: makes sure that it is the only one; raises LocalError.
    build: (gate kind) -> NodeSetup, because the lease depends on the gate that is to be had.
    """
    from carpool.drivers.gate import choose_gate  # noqa: PLC0415  loads BPF: only in this process

    status = 1
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        claim()
        # Real-time first: a lone node must serve again within 500 ms, however busy it is.
        lacking = become_realtime() if options.realtime else []
        gate, reason = choose_gate(gate_wanted)  # type: ignore[arg-type]
        elect = Elect(channel, gate, build(gate.kind), options, reason)
        signal.signal(signal.SIGTERM, lambda *_: elect.stop_soon())
        for missing in lacking:
            if missing.capability != "CAP_SYS_RESOURCE":  # the unit sets OOMScoreAdjust itself
                elect.record(Noted(group="", name="realtime", text=str(missing)))
        elect.run()
        status = 0
    except CarpoolError as refused:
        channel.send({"type": "fatal", "text": str(refused)})
    except BaseException:  # noqa: BLE001  a child must never return into its parent's program
        channel.send({"type": "fatal", "text": traceback.format_exc()[-4000:]})
    finally:
        os._exit(status)
