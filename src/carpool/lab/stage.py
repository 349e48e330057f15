"""A site that really runs: topology, daemons, responders, observers, and the faults to play.

with Stage.build(directory, Shape()) as stage:
    stage.start()
    with stage.scene("kill -9 alpha", ["alpha", "bravo"]) as scene:
        scene.began = stage.kill("alpha")
    scene.seen[0].gap
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.config.model import Config
from carpool.config.timing import GroupTiming, group_timing, lease_ns, margin_ns
from carpool.lab import site
from carpool.lab.netns import Lab
from carpool.lab.network import Network
from carpool.lab.nodes import Daemon
from carpool.lab.observers import Observers, Seen
from carpool.lab.plan import topology_of
from carpool.lab.site import Shape
from carpool.lab.topology import Topology
from carpool.lab.waiting import LabError, realtime_ns, wait_for

CONFIG_FACT: Final = "config"  # in the registry: the text that the lab plays
ORDER_FACT: Final = "reversed"
FOREIGN_FACT: Final = "foreign"
SETTLE_S: Final = 20.0  # an election of seconds, on a busy machine
TAIL_NS: Final = 300_000_000  # how long a scene goes on after the last fact, to see stale answers

STALE_SHOWN_MAX: Final = 20  # lines of an account; hundreds say no more


@dataclass(slots=True)
class Scene:
    """One event, and what was seen of it. `began` is set by whoever plays it."""

    title: str
    path: list[str]
    began: int
    ended: int = 0
    seen: tuple[Seen, ...] = ()  # one for each target
    notes: dict[str, int] = field(default_factory=dict)  # further instants, by name

    @property
    def gap_ns(self) -> int:
        """The longest gap of any target."""
        return max((each.gap.length_ns for each in self.seen), default=0)

    @property
    def two_owners(self) -> int:
        """Instants with two owners, of all targets."""
        return sum(each.two_owners for each in self.seen)

    @property
    def takeover_ns(self) -> int:
        """From the event to the first answer of the last owner of the path, the slowest target.

        0 if nobody was meant to take over.
        """
        if len(self.path) == 1:
            return 0
        instants = [
            next((run.first for run in each.runs if run.owner == self.path[-1]), self.ended)
            for each in self.seen
        ]
        return max(instants, default=self.ended) - self.began

    @property
    def handover_ns(self) -> int:
        """From the last answer of the first owner to the first of the last, the slowest target."""
        return max((self._handover(each) for each in self.seen), default=0)

    def account(self) -> str:
        """Return everything there is to say about this scene, for an error's text."""
        lines = [f"{self.title}: {' -> '.join(self.path)}"]
        for seen in self.seen:
            served = " ".join(f"{run.owner}*{run.count}" for run in seen.runs)
            lines.append(f"{seen.target}: client {served}; twice answered {seen.answered_twice}")
            lines += [
                f"  {observer}: {reply.owner} at {self._ms(reply.received):+.2f} ms"
                for observer, reply in seen.stale[:STALE_SHOWN_MAX]
            ]
        return "\n".join(lines)

    def _ms(self, instant: int) -> float:
        """Return an instant in milliseconds after the event."""
        return (instant - self.began) / NS_PER_MS

    def _handover(self, seen: Seen) -> int:
        last = max((run.last for run in seen.runs if run.owner == self.path[0]), default=self.began)
        first = next((run.first for run in seen.runs if run.owner == self.path[-1]), self.ended)
        return first - last


class Stage:
    """A lab with a site in it; a context manager that removes everything."""

    def __init__(self, lab: Lab, config: Config, topology: Topology) -> None:
        self.lab = lab
        self.config = config
        self.topology = topology
        self.network = Network(lab, topology)
        self.observers = Observers(lab, topology)
        self.daemons = {node: Daemon(lab, node) for node in topology.nodes}
        self.listeners: list[Callable[[Scene], None]] = []  # told of every scene when it is over

    @classmethod
    def build(
        cls,
        directory: Path,
        what: Shape | Config,
        *,
        reversed_ports: bool = False,
        password: str = "",
        foreign: tuple[str, ...] = (),
    ) -> Self:
        """Build namespaces, cables and files in `directory`; no daemon runs yet."""
        config = what if isinstance(what, Config) else site.load(site.text_of(what), "lab")
        lab = Lab.create(directory)
        try:
            config = site.with_lab_secrets(config, directory)
            stage = cls(lab, config, _topology(config, foreign, reversed_ports=reversed_ports))
            site.write_secrets(config, password=password)
            lab.registry.facts[ORDER_FACT] = "yes" if reversed_ports else ""
            lab.registry.facts[FOREIGN_FACT] = " ".join(foreign)
            lab.registry.facts[CONFIG_FACT] = str(site.write_config(config, directory))
            for node in stage.topology.nodes:
                site.write_config(config, directory / node)
            stage.network.build()
        except BaseException:
            lab.remove()
            raise
        return stage

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Return the stage that another process built. Raises LabError if there is none."""
        lab = Lab.open(directory)
        path = Path(lab.registry.facts[CONFIG_FACT])
        config = site.load(path.read_text(), str(path))
        order = bool(lab.registry.facts[ORDER_FACT])
        foreign = tuple(lab.registry.facts[FOREIGN_FACT].split())
        return cls(lab, config, _topology(config, foreign, reversed_ports=order))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lab.remove()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes, as the file lists them."""
        return self.topology.nodes

    @staticmethod
    def now() -> int:
        """Return the instant now, on the clock of all records."""
        return realtime_ns()

    def daemon(self, node: str) -> Daemon:
        """Return the daemon of `node`. Raises LabError for an unknown one."""
        if node not in self.daemons:
            raise LabError(f"no node {node!r} (there are {', '.join(self.daemons)})")
        return self.daemons[node]

    def timing(self, group: str = "edge") -> GroupTiming:
        """Return the timers of a group."""
        return group_timing(self.config, group)

    def master_down_ns(self, group: str = "edge") -> int:
        """Return the longest master-down time of a group."""
        return max(self.timing(group).master_down_ns.values())

    def lease_ns(self, node: str, group: str = "edge") -> int:
        """Return how long the gate of `node` stays open after an advertisement."""
        kind = self.daemon(node).group(group).get("gate", "bpf")
        margin = margin_ns(self.config.hot[group], "nft" if kind == "nft" else "bpf")
        return lease_ns(self.timing(group), node, margin)

    def start(self, *, observers: bool = True, client_processor: int | None = None) -> None:
        """Start responders and daemons, wait for masters, then start the observers."""
        self.observers.start_responders()
        self.start_daemons()
        if observers:
            self.observers.start(client_processor=client_processor)
            self._wait_served([self.master(target.group) for target in self.topology.targets])

    def start_daemons(self) -> None:
        """Start every daemon and wait until each group has its master and its standbys.

        Where nobody preempts at once the first to be up stays master, whoever that is; the best
        node of the first group gets a head start.
        """
        first, *others = sorted(self.daemons, key=self._place)
        self.daemons[first].start()
        self.daemons[first].wait_ready()
        for group, hot in self.config.hot.items():
            if hot.nodes[0] == first and group not in self._preempting():
                self.wait_master(first, group)
        for node in others:
            self.daemons[node].start()
        for daemon in self.daemons.values():
            daemon.wait_ready()
        for group in self.config.hot:
            self._wait_elected(group)

    def _preempting(self) -> set[str]:
        """Return the groups whose best node takes over as soon as it is there."""
        hot = self.config.hot
        tied = [{name, *group.with_groups} for name, group in hot.items() if group.with_groups]
        slow = {name for name, group in hot.items() if not group.preempt or group.preempt_delay_ns}
        return set(hot) - slow - {name for each in tied for name in each if each & slow}

    def _wait_elected(self, group: str) -> None:
        """Wait until `group` has its one master, and the other nodes stand by."""
        nodes = self.config.hot[group].nodes
        if group in self._preempting():
            self.wait_master(nodes[0], group)
        else:
            self._wait(lambda: self.master(group), f"one master of {group}", group)
        master = self.master(group)
        for node in nodes:
            if node != master:
                self.wait_standby(node, group)

    def _place(self, node: str) -> int:
        """Return the best place of `node` in any group."""
        return min(
            (hot.nodes.index(node) for hot in self.config.hot.values() if node in hot.nodes),
            default=len(self.nodes),
        )

    def master(self, group: str = "edge") -> str:
        """Return the one node that says MASTER, "" if none or several do."""
        masters = [node for node, daemon in self.daemons.items() if daemon.role(group) == "MASTER"]
        return masters[0] if len(masters) == 1 else ""

    def roles(self, group: str = "edge") -> Mapping[str, str]:
        """Return what each node says of its role."""
        return {node: daemon.role(group) for node, daemon in self.daemons.items()}

    def wait_role(self, node: str, role: str, group: str = "edge") -> None:
        """Wait until `node` says that it has this role."""
        daemon = self.daemon(node)
        self._wait(lambda: daemon.role(group) == role, f"{node} to be {role} of {group}", group)

    def wait_master(self, node: str, group: str = "edge", *, patience_s: float = 0) -> None:
        """Wait until `node` is master and says so, and no other that answers does.

        patience_s: how long; long enough for any election of this site if 0.
        """
        what = f"{node} to be master of {group}"
        self._wait(lambda: self.master(group) == node, what, group, patience_s)

    def wait_standby(self, node: str, group: str = "edge") -> None:
        """Wait until the master counts `node` among its live standbys."""

        def counted() -> bool:
            master = self.master(group)
            return bool(master) and node in self.daemon(master).group(group).get("standby", ())

        self._wait(counted, f"{node} to stand by in {group}", group)

    def _wait(
        self, fact: Callable[[], object], what: str, group: str, patience_s: float = 0
    ) -> None:
        """Wait for a fact about `group`; the error says who is what in it."""
        wait_for(fact, patience_s or self._patience_s(), what, lambda: self._who(group))

    def _who(self, group: str) -> str:
        """Return "web1 is MASTER, web2 does not answer"."""
        roles = {node: self.daemon(node).role(group) for node in self.config.hot[group].nodes}
        return ", ".join(
            f"{node} is {role}" if role else f"{node} does not answer"
            for node, role in roles.items()
        )

    def wait_serving(self, node: str) -> None:
        """Wait until `node` is the one that answers the client, for every target."""
        self._wait_served([node] * len(self.topology.targets))

    def _wait_served(self, owners: Sequence[str]) -> None:
        """Wait until each target is served by its owner."""

        def serve() -> bool:
            return all(
                self.observers.serving(number) == owner for number, owner in enumerate(owners)
            )

        try:
            wait_for(serve, self._patience_s(), f"{', '.join(dict.fromkeys(owners))} to serve")
        except LabError as late:
            raise LabError(f"{late}\n{self.describe()}") from late

    def describe(self) -> str:
        """Return who serves, every role and the end of every log: for the error of a scene."""
        lines = [
            f"{target.address} is served by {self.observers.serving(number) or 'nobody'}"
            for number, target in enumerate(self.topology.targets)
        ]
        lines += [f"{group}: {dict(self.roles(group))}" for group in self.config.hot]
        for node, daemon in self.daemons.items():
            lines += [f"--- {node}", daemon.log_tail()]
        return "\n".join(lines)

    def _patience_s(self) -> float:
        slowest = max(self.master_down_ns(group) for group in self.config.hot)
        return SETTLE_S + 3 * slowest / NS_PER_S

    @contextmanager
    def scene(self, title: str, path: Sequence[str], *, tail_ns: int = TAIL_NS) -> Iterator[Scene]:
        """Play one event: everything inside is measured; `path` are the owners that are meant.

        The scene ends `tail_ns` after the block, when it is in the records.
        """
        opened = realtime_ns()
        scene = Scene(title, list(path), opened)
        yield scene
        self.wait_serving(path[-1])
        scene.ended = realtime_ns() + tail_ns
        self.observers.wait_recorded(scene.ended)
        scene.seen = tuple(
            self.observers.seen(number, opened, scene.ended, scene.path)
            for number in range(len(self.topology.targets))
        )
        for listener in self.listeners:
            listener(scene)

    def pass_time(self, duration_ns: int, meanwhile: Callable[[], Any] = lambda: None) -> None:
        """Let the observers record for `duration_ns` more."""
        until = realtime_ns() + duration_ns

        def over() -> bool:
            meanwhile()
            return realtime_ns() >= until

        wait_for(over, duration_ns / NS_PER_S + SETTLE_S, "time to pass")


def _topology(config: Config, foreign: tuple[str, ...], *, reversed_ports: bool) -> Topology:
    topology = topology_of(config, foreign)
    return topology.reversed_ports() if reversed_ports else topology
