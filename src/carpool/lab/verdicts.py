"""From recorded answers to verdicts: longest gap, who served when, instants with two owners. Pure.

An instant with two owners is one who-has that is answered by two MACs, or an answer of the old
owner after the first of the new. The second needs to know where the address was meant to go:
the meant path of owners is given, and every answer that does not follow it is such an instant.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from carpool.lab.records import Records, Reply


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive answers of one owner."""

    owner: str
    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without an answer."""

    begin: int
    end: int

    @property
    def length_ns(self) -> int:
        """How long it was."""
        return self.end - self.begin


def of_target(replies: Iterable[Reply], target: int) -> list[Reply]:
    """Return the answers for one target in the order of their arrival."""
    return sorted(
        (reply for reply in replies if reply.target == target), key=lambda reply: reply.received
    )


def runs(replies: Sequence[Reply]) -> list[Run]:
    """Return the runs of one owner; `replies` are of one target, in order."""
    found: list[Run] = []
    for reply in replies:
        if found and found[-1].owner == reply.owner:
            last = found[-1]
            found[-1] = Run(last.owner, last.first, reply.received, last.count + 1)
        else:
            found.append(Run(reply.owner, reply.received, reply.received, 1))
    return found


def longest_gap(replies: Sequence[Reply], begin: int, end: int) -> Gap:
    """Return the longest time without an answer between two instants, the edges included."""
    instants = [begin, *(each.received for each in replies if begin <= each.received <= end), end]
    first, second = max(pairwise(instants), key=lambda pair: pair[1] - pair[0])
    return Gap(first, second)


def answered_twice(records: Records, target: int) -> int:
    """Return how many questions for `target` were answered by two MACs."""
    asked = sorted(instant for number, instant in records.questions if number == target)
    owners: dict[int, set[str]] = {}
    for reply in of_target(records.replies, target):
        question = bisect_right(asked, reply.received)
        owners.setdefault(question, set()).add(reply.owner)
    return sum(len(each) > 1 for question, each in owners.items() if question)


def out_of_turn(replies: Iterable[Reply], path: Sequence[str]) -> list[Reply]:
    """Return the answers that came from somebody whose turn was over, or never came.

    replies: of one target, in order. path: the owners in the order that was meant, by the same
    names as in the replies. An owner's turn ends with the first answer of the next.
    """
    place = 0
    found: list[Reply] = []
    for reply in replies:
        if reply.owner == path[place]:
            continue
        if place + 1 < len(path) and reply.owner == path[place + 1]:
            place += 1
        else:
            found.append(reply)
    return found


def named(replies: Iterable[Reply], names: Mapping[str, str]) -> list[Reply]:
    """Return the answers with the owners' MACs replaced by the nodes' names."""
    return [replace(reply, owner=names.get(reply.owner, reply.owner)) for reply in replies]
