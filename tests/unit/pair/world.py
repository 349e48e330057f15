"""A site in virtual time: N brains, a wire, a peer link, gates, faults; and the safety property.

After quinn's `Pair`. One seed makes one world; nothing here sleeps or reads a clock. The property
that is looked at whenever a gate opens: never two machines open for one group at one instant.
"""

import heapq
from collections.abc import Callable, Sequence
from random import Random

from tests.unit.pair.machine import Machine
from tests.unit.pair.network import Network
from tests.unit.pair.process import Process

from carpool.base.journal import render
from carpool.base.time import NS_PER_MS, NS_PER_US
from carpool.engine.setup import NodeSetup

STEP_NS = (2 * NS_PER_US, 40 * NS_PER_US)
WAKE_NS = (5 * NS_PER_US, 300 * NS_PER_US)
EXPIRE_EVERY_NS = 50 * NS_PER_MS
STEPS_MAX = 400_000  # far more than any scene needs: a brain that spins is found


class World:
    """Everything there is, and the time."""

    def __init__(self, seed: int, setups: Sequence[NodeSetup], paths: int = 1) -> None:
        """Make the machines; none runs yet."""
        self.random = Random(seed)
        self.now = self.random.randint(10**12, 10**12 + 10**9)
        self.started_at = self.now
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.serial = 0
        self.steps = 0
        self.split = False  # a partition: two owners are CARP's nature then
        self.machines = {s.node: Machine(self, s, n) for n, s in enumerate(setups)}
        self.groups = [group.name for group in setups[0].groups]
        self.network = Network(self, list(self.machines), paths)
        self.at(self.now + EXPIRE_EVERY_NS, self._expire)

    # Time.

    def at(self, when: int, action: Callable[[], None]) -> None:
        """Do something at an instant."""
        self.serial += 1
        heapq.heappush(self.queue, (max(when, self.now), self.serial, action))

    def run(self, duration_ns: int) -> None:
        """Let time pass."""
        end = self.now + duration_ns
        while self.queue and self.queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self.queue)
            action()
        self.now = end

    def run_until(self, fact: Callable[[], bool], limit_ns: int) -> int:
        """Let time pass until `fact`; return how long that took."""
        began = self.now
        while not fact():
            assert self.now - began < limit_ns, "it did not happen\n" + self.story()
            self.run(NS_PER_MS)
        return self.now - began

    def _expire(self) -> None:
        self.network.expire()
        self.at(self.now + EXPIRE_EVERY_NS, self._expire)

    # Processes.

    def schedule(self, process: Process) -> None:
        """Let a process take its next step soon."""
        delay = self.random.randint(*STEP_NS)
        self.at(self.now + delay, lambda: self._step(process))

    def _step(self, process: Process) -> None:
        machine = process.machine
        if machine.process is not process:
            return
        if machine.frozen_until > self.now:
            process.stuck = True
            return
        self.steps += 1
        assert self.steps < STEPS_MAX, "a brain spins\n" + self.story()
        what = next(process.steps, "end")
        if what == "end":
            self._ended(process)
        elif what == "sleep":
            self._sleep(process)
        else:
            if what == "effect":
                self._planned_freeze(process)
            self.schedule(process)

    def _planned_freeze(self, process: Process) -> None:
        if process.freeze_after is None:
            return
        process.freeze_after -= 1
        if process.freeze_after <= 0:
            process.freeze_after = None
            self.freeze(process.machine, process.freeze_for)

    def _sleep(self, process: Process) -> None:
        process.asleep = True
        process.naps += 1
        nap = process.naps
        deadline = process.engine.deadline
        if deadline is not None:
            late = self.random.randint(*WAKE_NS)
            self.at(deadline + late, lambda: self._alarm(process, nap))

    def _alarm(self, process: Process, nap: int) -> None:
        if process.naps == nap and process.machine.process is process:
            process.machine.wake()

    def _ended(self, process: Process) -> None:
        """The program ended in order: goodbye, then the kernel takes the gate away."""
        machine = process.machine
        self.network.ended(machine, "goodbye")
        machine.process = None
        self._take_gates(machine)

    @staticmethod
    def _take_gates(machine: Machine) -> None:
        for gate in machine.gates.values():
            gate.shut()

    # Faults.

    def kill(self, machine: Machine) -> None:
        """Kill the process: its permit is gone within 0.8 ms, its connections within 1 ms."""
        if machine.process is None:
            return
        self.network.ended(machine, "fin")
        machine.process = None
        delay = self.random.randint(0, 800 * NS_PER_US)
        gates = [(gate, gate.serve_until) for gate in machine.gates.values()]
        for gate, until in gates:
            gate.advertise_until = 0
            gate.serve_until = min(until, self.now + delay)

    def power_off(self, machine: Machine) -> None:
        """Switch the machine off: nobody is told."""
        machine.process = None
        machine.powered = False
        for path in self.network.of(machine.name):
            path.up[machine.name] = False
        self._take_gates(machine)

    def power_on(self, machine: Machine) -> None:
        """Switch the machine on and start the program."""
        machine.powered = True
        machine.start()

    def freeze(self, machine: Machine, duration_ns: int) -> None:
        """Stop the process for a while; its kernel goes on."""
        machine.frozen_until = max(machine.frozen_until, self.now + duration_ns)
        self.at(machine.frozen_until, lambda: self._thawed(machine))

    def thaw(self, machine: Machine) -> None:
        """End a freeze early."""
        machine.frozen_until = min(machine.frozen_until, self.now)
        self._thawed(machine)

    def _thawed(self, machine: Machine) -> None:
        process = machine.process
        if machine.frozen_until <= self.now and process is not None and process.stuck:
            process.stuck = False
            self._step(process)

    # Judgement.

    def owners(self, group: str) -> list[str]:
        """Return the machines whose gate is open for a group now."""
        return [m.name for m in self.machines.values() if m.gates[group].is_open(self.now)]

    def look_for_two_owners(self) -> None:
        """Fail when a second gate is open for a group."""
        if self.split:
            return
        for group in self.groups:
            owners = self.owners(group)
            assert len(owners) <= 1, f"{group}: {owners} both serve\n{self.story()}"

    def story(self, lines: int = 60) -> str:
        """Return the journals of all machines in the order of time."""
        entries = [
            (at, machine.name, render(entry))
            for machine in self.machines.values()
            for at, entry in machine.entries
        ]
        told = sorted(entries)[-lines:]
        told.append((self.now, "world", "now"))
        start = self.started_at
        return "\n".join(f"{(at - start) / 1e6:12.3f} {who:8} {text}" for at, who, text in told)
