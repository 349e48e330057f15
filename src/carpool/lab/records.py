"""The record files of prober and watcher, read while they grow, and cut to a window of time."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reply:
    """Somebody answered for a target. `owner` is a node's name (prober) or a MAC (watcher)."""

    target: int
    received: int  # kernel time stamp, CLOCK_REALTIME ns
    owner: str


@dataclass(frozen=True, slots=True)
class Silence:
    """The prober itself asked nothing between these instants: no verdict about others."""

    begin: int
    end: int


@dataclass(slots=True)
class Records:
    """What is in a record file so far. Call `read` to take in what was added since."""

    path: Path
    replies: list[Reply] = field(default_factory=list)
    announcements: list[Reply] = field(default_factory=list)
    questions: list[tuple[int, int]] = field(default_factory=list)  # (target, asked)
    silences: list[Silence] = field(default_factory=list)
    complete_until: int = 0
    _offset: int = 0

    def read(self) -> None:
        """Take in the complete lines that were added since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].decode().splitlines():
            self._take(line.split(" ", 4))

    def _take(self, words: list[str]) -> None:
        match words:
            case ["R", target, received, _, owner]:
                self.replies.append(Reply(int(target), int(received), owner))
            case ["A", target, received, owner]:
                self.replies.append(Reply(int(target), int(received), owner))
            case ["G", target, received, owner]:
                self.announcements.append(Reply(int(target), int(received), owner))
            case ["Q", target, asked]:
                self.questions.append((int(target), int(asked)))
            case ["L", begin, end]:
                self.silences.append(Silence(int(begin), int(end)))
            case ["T", instant]:
                self.complete_until = int(instant)
            case _:
                raise ValueError(f"{self.path}: not a record: {' '.join(words)}")

    def forget_before(self, instant: int) -> None:
        """Drop what is older, so that a long bench does not grow."""
        self.replies = [each for each in self.replies if each.received >= instant]
        self.announcements = [each for each in self.announcements if each.received >= instant]
        self.questions = [each for each in self.questions if each[1] >= instant]
        self.silences = [each for each in self.silences if each.end >= instant]

    def window(self, begin: int, end: int) -> "Records":
        """Return what lies between two instants."""
        return Records(
            self.path,
            [each for each in self.replies if begin <= each.received <= end],
            [each for each in self.announcements if begin <= each.received <= end],
            [each for each in self.questions if begin <= each[1] <= end],
            [each for each in self.silences if each.end >= begin and each.begin <= end],
            min(end, self.complete_until),
        )
