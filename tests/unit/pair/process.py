"""One `elect` process in virtual time: the real brain, the turn of daemon/elect.py, fake hands.

`life` is a generator that yields after each step that takes time. The world resumes it, and simply
does not while the process is frozen; so a freeze falls between any two steps, and also between two
effects of one list. What an effect brings about (`Sent`) is handled at once, as the daemon does.
"""

from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING

from carpool.base.time import NS_PER_MS, Instant
from carpool.election.effects import Announce, Probe, Serve, ShutGate, Withdraw
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
from carpool.engine.events import Event, FrameHeard, Sent, Tick

if TYPE_CHECKING:
    from tests.unit.pair.machine import Machine

LATE_NS = 5 * NS_PER_MS  # daemon/elect.py: a turn this slow drains once more
Steps = Generator[str, None, None]


class Process:
    """A running brain with its queues."""

    def __init__(self, machine: "Machine", instance: bytes, *, alone: frozenset[str]) -> None:
        """Start with what the machine kept on disk."""
        self.machine = machine
        self.world = machine.world
        self.instance = instance
        self.frames: deque[FrameHeard] = deque()  # the packet socket, not read yet
        self.inbox: deque[Event] = deque()  # peer link, kernel's events, orders
        self.known: dict[str, bytes] = {}  # instance of each node, as the link driver knows it
        self.leased: dict[str, bool] = {}
        self.finished = False
        self.asleep = True  # until the first event wakes it
        self.stuck = False  # a step is owed since a freeze
        self.naps = 0  # which sleep an alarm belongs to
        self.freeze_after: int | None = None  # effects left until a planned freeze
        self.freeze_for = 0
        self.engine = Engine(
            machine.setup,
            now=self.now,
            counter_start=self.world.random.getrandbits(64),
            alone=alone,
            paused=machine.paused,
            demotions=machine.demotions,
        )
        self.steps = self._life()

    @property
    def now(self) -> Instant:
        """Return the world's time."""
        return Instant(self.world.now)

    def has_work(self) -> bool:
        """Return whether a turn would find anything to do."""
        deadline = self.engine.deadline
        return bool(self.frames or self.inbox) or (deadline is not None and deadline <= self.now)

    def _life(self) -> Steps:
        while not self.finished:
            if self.has_work():
                yield from self._turn()
            else:
                yield "sleep"

    def _turn(self) -> Steps:
        """Drain up to the moment of entry, then let time pass (daemon/elect.py, turn)."""
        entered = self.now
        yield "entered"
        while self.frames and self.frames[0].received_at <= entered:
            yield from self.handle(self.frames.popleft(), self.now)
        waiting = list(self.inbox)
        self.inbox.clear()
        for event in waiting:
            self.machine.noticed(event)
            yield from self.handle(event, self.now)
        deadline = self.engine.deadline
        if deadline is not None and deadline <= entered and self.now - entered < LATE_NS:
            yield "judged"
            yield from self.handle(Tick(), entered)

    def handle(self, event: Event, now: Instant) -> Steps:
        """Let the brain handle one event and carry out what it asks for."""
        for effect in self.engine.handle(event, now):
            yield "effect"
            yield from self._apply(effect)

    def _apply(self, effect: Effect) -> Steps:
        machine = self.machine
        match effect:
            case Send():
                yield from self._send(effect)
            case ShutGate(group):
                self.leased[group] = False
                machine.gates[group].shut()
            case Serve(group) | Withdraw(group):
                machine.configured[group] = isinstance(effect, Serve)
            case TellPeer(node, message):
                self.world.network.tell(machine, node, message)
            case Journal(entry):
                machine.record(entry)
            case Answer():
                machine.answers.append(effect)
            case Remember(paused, demotions):
                machine.paused, machine.demotions = paused, dict(demotions)
            case Finished():
                self.finished = True
            case Announce() | Probe():
                pass
            case Rearrange(_, after):
                machine.setup = after

    def _send(self, effect: Send) -> Steps:
        """Window, advertisement, lease: with a point to freeze at between them."""
        gate = self.machine.gates[effect.group]
        if effect.window_until is not None:
            self.leased[effect.group] = False
            gate.open(0, effect.window_until)
            yield "effect"
        out = gate.lets_advertise(self.world.now) and self.machine.can_send()
        if out:
            self.world.network.broadcast(self.machine, effect.payload)
        yield "effect"
        if not effect.lease_until:
            gate.shut()
            return
        error = self._lease(effect) if out else "dropped by the gate"
        families = frozenset({4} if out and not error else ())
        sent = Sent(effect.group, families, effect.lease_until, effect.serve, error)
        yield "effect"
        yield from self.handle(sent, self.now)

    def _lease(self, effect: Send) -> str:
        gate = self.machine.gates[effect.group]
        if self.leased.get(effect.group) and effect.serve:
            error = gate.renew(self.world.now, effect.lease_until, effect.lease_until)
            self.leased[effect.group] = not error
            return error
        gate.open(effect.lease_until if effect.serve else 0, effect.lease_until)
        self.leased[effect.group] = effect.serve
        return ""
