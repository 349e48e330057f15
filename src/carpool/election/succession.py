"""Who takes over when a master is certainly gone and several standbys know it at once.

Every standby sees the closed peer link within a millisecond of the others; a bow-out makes every
CARP backup master. So only the best-ranked live standby acts at once and the others defer by their
place: they act only if the better ones stay silent (DESIGN 4, "Who takes over").
"""

from collections.abc import Mapping
from dataclasses import dataclass

from carpool.base.time import Instant
from carpool.election.parameters import Parameters, State
from carpool.wire.carp import interval_ns


@dataclass(frozen=True, slots=True)
class PeerView:
    """What the peer link says about another member of the group."""

    state: State
    advbase: int
    advskew: int
    demote: int
    ready: bool
    hears: str
    same_file: bool = True  # it runs the same revision of the configuration as we do


_Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Rivalry:
    """Another master beside us that the peer link tells of: how good both are, and since when."""

    mine: _Key
    theirs: _Key
    since: Instant


def merit(demote: int, advbase: int, advskew: int, rank: int) -> _Key:
    """Return a member's place: less demoted first, then faster, then named first."""
    return demote, interval_ns(advbase, advskew), rank


def live_standbys(parameters: Parameters, peers: Mapping[str, PeerView]) -> list[tuple[_Key, str]]:
    """Return the other members that could take over now, best first."""
    found = []
    for member in parameters.members:
        view = peers.get(member.name)
        if view is not None and view.ready and view.state is State.BACKUP:
            key = merit(view.demote, view.advbase, view.advskew, member.rank)
            found.append((key, member.name))
    return sorted(found)


def place(
    parameters: Parameters, mine: _Key, peers: Mapping[str, PeerView] | None, gone: str
) -> int:
    """Return how many live standbys stand before us, 0 = we act now.

    peers: None when there is no peer link at all. Then nobody is known to live, and every
    better-ranked member counts, so that two standbys that only share the wire do not act at once.
    """
    if peers is not None:
        better = [name for key, name in live_standbys(parameters, peers) if key < mine]
        return sum(1 for name in better if name != gone)
    return sum(1 for m in parameters.members if m.rank < mine[2] and m.name != gone)
