"""Who watches while a scene is played: the client, the asker and the watcher, and their records."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from carpool.lab.netns import Lab
from carpool.lab.records import Records, Reply
from carpool.lab.topology import ASKER, CLIENT, WATCHER, Topology
from carpool.lab.verdicts import (
    Gap,
    Run,
    answered_twice,
    longest_gap,
    named,
    of_target,
    out_of_turn,
    runs,
)
from carpool.lab.waiting import realtime_ns, wait_for

RESPONDER: Final = "responder"
REASK_MS: Final = 100  # how often the asker forgets who has an address
ASKER_PERIOD_US: Final = 5000
WATCHER_PERIOD_US: Final = 5000
BACKLOG_S: Final = 5.0  # how far behind a record may be before something is wrong


@dataclass(frozen=True, slots=True)
class Seen:
    """What the observers saw of one target between two instants."""

    target: str
    runs: tuple[Run, ...]  # of the client's answers
    gap: Gap  # of the client
    own_silence_ns: int  # longest time in which the client itself asked nothing
    answered_twice: int  # who-has answered by two MACs
    stale: tuple[tuple[str, Reply], ...]  # (observer, answer of an owner whose turn was over)
    watched: int  # answers that the watcher saw

    @property
    def two_owners(self) -> int:
        """How many instants with two owners there were."""
        return self.answered_twice + len(self.stale)


class Observers:
    """Starts the observers of a lab and reads what they record."""

    def __init__(self, lab: Lab, topology: Topology) -> None:
        self.lab = lab
        self.topology = topology
        self.targets = [target.address for target in topology.targets]
        self.client = Records(self._path(CLIENT))
        self.asker = Records(self._path(ASKER))
        self.watchers = {
            number: Records(self._path(f"{WATCHER}{number}"))
            for number in sorted({target.switch for target in topology.targets})
        }

    def _path(self, name: str) -> Path:
        return self.lab.directory / f"record.{name}"

    def start_responders(self) -> None:
        """Start on every member the service that says who answers."""
        for node in self.topology.members:
            self.lab.python(RESPONDER, node, "carpool.lab.responder", [node])

    def start(self, *, client_processor: int | None = None) -> None:
        """Start the client, the asker and a watcher in each network with targets."""
        pin = [] if client_processor is None else ["--processor", str(client_processor)]
        prober = "carpool.lab.prober"
        record = ["--record", str(self.client.path)]
        self.lab.python("prober", CLIENT, prober, [*record, *pin, *self.targets])
        record = ["--record", str(self.asker.path), "--period-us", str(ASKER_PERIOD_US)]
        reask = ["--reask-ms", str(REASK_MS)]
        self.lab.python("prober", ASKER, prober, [*record, *reask, *self.targets])
        for number, records in self.watchers.items():
            self._start_watcher(number, records.path)

    def _start_watcher(self, number: int, path: Path) -> None:
        port = self.topology.switches[number].port(WATCHER)
        assert port is not None, "a watcher is plugged into every network with targets"
        own = [word for address in port.addresses for word in ("--own", str(address.ip))]
        self.lab.python(
            f"watcher{number}",
            WATCHER,
            "carpool.lab.watcher",
            [
                "--record",
                str(path),
                "--period-us",
                str(WATCHER_PERIOD_US),
                *own,
                port.interface,
                *self._of_switch(number),
            ],
        )

    def _of_switch(self, number: int) -> list[str]:
        return [target.address for target in self.topology.targets if target.switch == number]

    @property
    def records(self) -> list[Records]:
        """Every record file."""
        return [self.client, self.asker, *self.watchers.values()]

    def read(self) -> None:
        """Take in what was recorded since the last time."""
        for records in self.records:
            records.read()

    def wait_recorded(self, until: int) -> None:
        """Wait until everything up to the instant `until` is in the records."""

        def caught_up() -> bool:
            self.read()
            return all(records.complete_until >= until for records in self.records)

        backlog_s = max(0, until - realtime_ns()) / 1e9
        wait_for(caught_up, backlog_s + BACKLOG_S, "the observers' records")

    def serving(self, target: int = 0) -> str:
        """Return who gave the client its latest answer, "" if nobody did in the last 50 ms."""
        self.client.read()
        for reply in reversed(self.client.replies):
            if reply.target == target:
                late = self.client.complete_until - reply.received
                return reply.owner if late < 50_000_000 else ""
        return ""

    def first_reply(self, owner: str, after: int, target: int = 0) -> int:
        """Return when the client got the first answer of `owner` after an instant; 0 if never."""
        self.client.read()
        return next(
            (
                reply.received
                for reply in self.client.replies
                if reply.target == target and reply.owner == owner and reply.received > after
            ),
            0,
        )

    def seen(self, target: int, begin: int, end: int, path: list[str]) -> Seen:
        """Return what was seen of a target; `path` are the owners that were meant, in order."""
        number = self.topology.targets[target].switch
        place = self._of_switch(number).index(self.targets[target])
        names = self.topology.owner_names()
        client = of_target(self.client.window(begin, end).replies, target)
        asker = of_target(self.asker.window(begin, end).replies, target)
        watched = self.watchers[number].window(begin, end)
        answers = named(of_target(watched.replies, place), names)
        silences = self.client.window(begin, end).silences
        return Seen(
            target=self.targets[target],
            runs=tuple(runs(client)),
            gap=longest_gap(client, begin, end),
            own_silence_ns=max((each.end - each.begin for each in silences), default=0),
            answered_twice=answered_twice(watched, place),
            stale=tuple(
                (observer, reply)
                for observer, replies in ((CLIENT, client), (ASKER, asker), (WATCHER, answers))
                for reply in out_of_turn(replies, path)
            ),
            watched=len(answers),
        )

    def owners_by_watcher(self, target: int, begin: int, end: int) -> Mapping[str, int]:
        """Return how many of the watcher's answers each owner gave."""
        number = self.topology.targets[target].switch
        place = self._of_switch(number).index(self.targets[target])
        counts: dict[str, int] = {}
        replies: list[Reply] = of_target(self.watchers[number].window(begin, end).replies, place)
        for reply in named(replies, self.topology.owner_names()):
            counts[reply.owner] = counts.get(reply.owner, 0) + 1
        return counts

    def forget_before(self, instant: int) -> None:
        """Drop old records."""
        for records in self.records:
            records.forget_before(instant)
