"""A swarm of faults from one seed: what may happen to a site, and what must hold afterwards.

Safety is judged by the world at every opening of a gate. Liveness is judged here: after the last
fault exactly one machine serves each group within two master-down times, all groups that move
together on one machine, and then nothing moves any more.
"""

from dataclasses import dataclass
from random import Random

from tests.unit.pair.machine import Machine
from tests.unit.pair.sites import FAST, SLOW, TINY, master_down, site
from tests.unit.pair.world import World

from carpool.base.time import NS_PER_MS
from carpool.election.parameters import SETTLE_NS, DemoteMode

SLACK_NS = 300 * NS_PER_MS  # a hand-over that is refused or not answered, before the next is asked
CALM_NS = 1_200 * NS_PER_MS  # requests and links are not faster where the interval is short
FAULTS_MAX = 7
KINDS = ("kill", "freeze", "freeze", "plan", "plan", "order", "order", "stop", "off", "cable")
ORDERS = ("step-down", "step-down", "demote", "pause")


@dataclass(slots=True)
class Swarm:
    """One run: a world and the faults that its seed draws."""

    seed: int
    world: World
    random: Random
    unit_ns: int  # the master-down time of the last rank
    interval_ns: int
    log: list[str]

    def someone(self) -> Machine:
        """Return a machine, the master more often than the others."""
        machines = list(self.world.machines.values())
        owners = self.world.owners(self.world.groups[0])
        if owners and self.random.random() < 0.6:
            return self.world.machines[owners[0]]
        return self.random.choice(machines)

    def pause_length(self) -> int:
        """Return how long until the next fault: mostly short, so that faults meet."""
        unit = self.random.choice((2 * NS_PER_MS, 20 * NS_PER_MS, self.interval_ns, self.unit_ns))
        return self.random.randint(0, unit)

    def freeze_length(self) -> int:
        """Return how long a freeze lasts: around every length that means something."""
        edge = self.random.choice(
            (
                3 * NS_PER_MS,
                12 * NS_PER_MS,
                60 * NS_PER_MS,
                160 * NS_PER_MS,
                self.interval_ns,
                self.unit_ns,
                2 * self.unit_ns,
            )
        )
        return edge + self.random.randint(-edge // 5, edge // 5)

    def fault(self) -> None:
        """Let one thing happen."""
        machine = self.someone()
        kinds = (
            "kill",
            "freeze",
            "freeze",
            "plan",
            "plan",
            "order",
            "order",
            "stop",
            "off",
            "cable",
        )
        kind = self.random.choice(kinds)
        if machine.process is None:
            self.log.append(f"{machine.name} starts")
            self.world.power_on(machine)
            return
        self.log.append(
            f"{(self.world.now - self.world.started_at) / 1e6:.3f} {machine.name} {kind}"
        )
        match kind:
            case "kill":
                self.world.kill(machine)
                if self.random.random() < 0.5:
                    self._restart_later(machine)
            case "freeze":
                self.world.freeze(machine, self.freeze_length())
            case "plan":
                machine.process.freeze_after = self.random.randint(1, 14)
                machine.process.freeze_for = self.freeze_length()
            case "order":
                self._order(machine)
            case "stop":
                machine.stop()
            case "cable":
                machine.plug(carrier=not machine.carrier)
            case "off":
                self.world.power_off(machine)

    def _restart_later(self, machine: Machine) -> None:
        """Restart as the parent does, some ten milliseconds after the crash."""
        delay = self.random.randint(5 * NS_PER_MS, 60 * NS_PER_MS)
        self.world.at(self.world.now + delay, lambda: self.start(machine))

    def start(self, machine: Machine) -> None:
        """Start what does not run."""
        if machine.process is None:
            self.world.power_on(machine)

    def _order(self, machine: Machine) -> None:
        group = self.random.choice(self.world.groups)
        verb = self.random.choice(ORDERS)
        if verb == "pause":
            machine.order("pause", argument=self.random.choice(("", "force")))
        elif verb == "demote":
            machine.order("demote", group, str(self.random.choice((0, 1, 5))))
        else:
            others = [name for name in self.world.machines if name != machine.name]
            machine.order("step-down", group, self.random.choice(["", *others]))

    def heal(self) -> None:
        """End every fault: everybody runs, nobody is paused or demoted."""
        self.world.run(self.random.randint(0, self.unit_ns))
        for machine in self.world.machines.values():
            self.world.thaw(machine)
            if not machine.carrier:
                machine.plug(carrier=True)
            if machine.process is not None:
                machine.process.freeze_after = None
        limit = 2_000 * NS_PER_MS
        self.world.run(limit if any(self._stopping(m) for m in self.world.machines.values()) else 0)
        for machine in self.world.machines.values():
            self.start(machine)
            machine.order("resume")
            for group in self.world.groups:
                machine.order("demote", group, "0")

    @staticmethod
    def _stopping(machine: Machine) -> bool:
        return machine.process is not None and machine.process.engine.node.stopping

    def judge(self) -> None:
        """Exactly one owner in time, and no change afterwards."""
        # A cable that is in again is not believed for SETTLE_NS.
        self.world.run_until(self._settled, 2 * self.unit_ns + SLACK_NS + SETTLE_NS)
        self.world.run(2 * self.unit_ns + CALM_NS)  # preemption takes its place
        before = self._changes()
        self.world.run(self.unit_ns + CALM_NS)
        assert self._settled(), f"not one owner\n{self.world.story()}"
        assert self._changes() == before, f"it flaps\n{self.world.story()}"

    def _settled(self) -> bool:
        owners = [self.world.owners(group) for group in self.world.groups]
        return all(len(one) == 1 for one in owners) and len({one[0] for one in owners}) == 1

    def _changes(self) -> list[int]:
        return [
            brain.election.standing.changes
            for machine in self.world.machines.values()
            if machine.process is not None
            for brain in machine.process.engine.node.groups.values()
        ]


def make(seed: int, **chosen: object) -> Swarm:
    """Return the run of a seed; `chosen` fixes what the seed would draw."""
    random = Random(seed)
    speed = random.choice((SLOW, FAST, FAST, TINY))
    options = {
        "nodes": random.choice((2, 3, 3)),
        "speed": speed,
        "groups": random.choice((("edge",), ("edge",), ("edge", "inside"))),
        "demote": random.choice((DemoteMode.OPENBSD, DemoteMode.OPENBSD, DemoteMode.FREEBSD)),
        "preempt": random.random() < 0.8,
    }
    options.update(chosen)
    speed = options["speed"]
    world = World(seed, site(**options), paths=random.choice((1, 2)))
    unit = master_down(speed[0], speed[1] + speed[2] * (options["nodes"] - 1))
    return Swarm(seed, world, random, unit, max(unit // 3, NS_PER_MS), [str(options)])


def play(seed: int, **chosen: object) -> Swarm:
    """Start the site, let the swarm loose, heal, judge. A failure names its seed."""
    swarm = make(seed, **chosen)
    world = swarm.world
    try:
        for machine in world.machines.values():
            world.at(world.now + swarm.pause_length(), lambda m=machine: swarm.start(m))
        if swarm.random.random() < 0.7:
            world.run(2 * swarm.unit_ns)
        for _ in range(swarm.random.randint(1, FAULTS_MAX)):
            world.run(swarm.pause_length())
            swarm.fault()
        swarm.heal()
        swarm.judge()
    except AssertionError as failure:
        told = "\n".join(swarm.log)
        raise AssertionError(f"seed {seed}\n{told}\n{failure}") from failure
    return swarm
