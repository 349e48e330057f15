"""What the demo promises and how its table says whether that was kept."""

from carpool.base.time import NS_PER_MS
from carpool.lab.demo import SINGLE_RUN, Act, report
from carpool.lab.observers import Seen
from carpool.lab.stage import Scene
from carpool.lab.verdicts import Gap


def played(gap_ms: int, *, answered_twice: int = 0) -> tuple[Act, Scene]:
    """Return an act with a bound of 30 ms, and a scene with that gap."""
    act = Act("kill -9 alpha", ("alpha", "bravo"), 30 * NS_PER_MS, lambda: 0, lambda: None)
    gap = Gap(0, gap_ms * NS_PER_MS)
    seen = Seen("192.0.2.10", (), gap, 0, answered_twice, (), 100)
    return act, Scene(act.title, list(act.path), 0, 1, (seen,))


def test_kept_bound() -> None:
    """A gap within its bound and one owner at every instant is a kept promise."""
    text, kept = report([played(11)])
    assert kept
    assert text.splitlines()[1].split() == (
        ["kill", "-9", "alpha", "alpha", "bravo", "11.0", "ms", "<", "30.0", "ms", "0", "kept"]
    )


def test_broken_bound_or_two_owners() -> None:
    """One gap too long, or one instant with two owners, breaks the promise of the whole demo."""
    for bad in (played(31), played(11, answered_twice=1)):
        text, kept = report([played(11), bad])
        assert not kept
        assert [line.split()[-1] for line in text.splitlines()[1:]] == ["kept", "BROKEN"]


def test_single_run_is_not_sold_as_the_promise() -> None:
    """The demo says that its bounds are for one run, and which medians are promised elsewhere."""
    for words in ("single run", "make bench-hot", "at most 30 ms", "at most 5 ms"):
        assert words in SINGLE_RUN
