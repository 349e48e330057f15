"""carpoold and Debian's ucarp in one group, everything that can happen between the two.

alpha  uma   client  asker  watcher
==+=====+======+=======+======+==  lan0

What the client sees of it, and a wrong password, stands in test_scenes_foreign.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from carpool.lab import facts
from carpool.lab.nodes import Daemon
from carpool.lab.peers import Ucarp, UcarpOptions
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.taps import tap
from carpool.lab.waiting import wait_for

pytestmark = pytest.mark.lab

Build = Callable[..., Stage]
PASSWORD = "nineteen-characters"
SHARED = "192.0.2.10"
MASTER_DOWN_S = 3.4  # three intervals of one second and the skew
SLACK_S = 2.5  # ucarp reads packets up to a second late, and wakes up once a second
UMA_SKEW = 50


def shape(alpha_skew: int) -> Shape:
    """Return a site of alpha with this advskew, and a member that is declared as ucarp."""
    return Shape(
        nodes=("alpha",),
        addresses=(f"{SHARED}/24",),
        interval="1s",
        heartbeat=False,
        more=f'peers = [{{kind = "ucarp", advbase = 1, advskew = {UMA_SKEW}}}]',
        tables=f"[hot.edge.node.alpha]\nadvskew = {alpha_skew}",
    )


def mixed(build: Build, alpha_skew: int) -> Stage:
    """Build alpha with this advskew and room for uma."""
    return build(shape(alpha_skew), foreign=("uma",), password=PASSWORD)


def uma(stage: Stage, *, source: str = "192.0.2.20") -> Ucarp:
    """Return the ucarp on uma, who gets the address it sends from."""
    stage.lab.run("uma", ["ip", "address", "add", f"{source}/24", "dev", "eth0"])
    options = UcarpOptions("eth0", source, 1, PASSWORD, SHARED, 1, UMA_SKEW)
    return Ucarp(stage.lab, "uma", options)


def mac(stage: Stage, host: str) -> str:
    """Return a host's MAC."""
    port = stage.topology.switches[0].port(host)
    assert port is not None
    return port.mac


def owners(stage: Stage) -> set[str]:
    """Return the MACs that answer the client's question for the shared address."""
    with tap(stage.lab, "client") as client:
        return client.owners((SHARED,))[SHARED]


def holds(stage: Stage, host: str) -> bool:
    """Return whether the shared address stands on a host."""
    return SHARED in facts.addresses(stage, host)["eth0"]


def test_better_ucarp_comes_and_dies(build: Build) -> None:
    """A carpool master yields to a better ucarp and takes over after its death, address and all.

    The kernel of the dead ucarp goes on answering: that is said, with its MAC.
    """
    stage = mixed(build, 100)
    stage.start_daemons()
    alpha, other = stage.daemon("alpha"), uma(stage)
    other.start()
    other.wait_state("MASTER")
    stage.wait_role("alpha", "BACKUP")
    assert not holds(stage, "alpha")
    wait_for(lambda: owners(stage) == {mac(stage, "uma")}, SLACK_S, "uma alone to answer")
    other.kill()
    taken = facts.timed(lambda: alpha.role("edge") == "MASTER", 10.0, "alpha to be master")
    facts.show(f"carpool took over {taken:.0f} ms after kill -9 of ucarp")
    assert taken < (MASTER_DOWN_S + SLACK_S) * 1000
    wait_for(lambda: holds(stage, "alpha"), SLACK_S, "the address")
    expected = {SHARED: mac(stage, "uma")}
    wait_for(lambda: alpha.group("edge")["conflict"] == expected, 10.0, "the dead one's kernel")


def test_worse_ucarp_is_master(build: Build) -> None:
    """A worse ucarp hands over to carpool, and takes over when that is killed; one owner each."""
    stage = mixed(build, 0)
    other = uma(stage)
    other.start()
    other.wait_state("MASTER")
    alpha = stage.daemon("alpha")
    alpha.start()
    alpha.wait_ready()
    taken = facts.timed(lambda: alpha.role("edge") == "MASTER", 10.0, "alpha to be master")
    facts.show(f"carpool preempted ucarp {taken:.0f} ms after its start")
    other.wait_state("BACKUP")
    wait_for(lambda: owners(stage) == {mac(stage, "alpha")}, SLACK_S, "alpha alone to answer")
    since = alpha.kill()
    other.wait_state("MASTER")
    facts.show(f"ucarp took over {facts.milliseconds(since):.0f} ms after kill -9 of carpool")
    assert facts.milliseconds(since) < (MASTER_DOWN_S + SLACK_S) * 1000
    wait_for(lambda: owners(stage) == {mac(stage, "uma")}, SLACK_S, "uma alone to answer")


def test_equal_times() -> None:
    """With equal times exactly one of both is master and stays it, whichever address is lower."""
    with ExitStack() as stack:
        places = [(facts.place(f"equal{number}"), number) for number in (5, 250)]
        pairs = [stack.enter_context(equals(place, number)) for place, number in places]
        for pair in pairs:
            fact = facts.lasting(lambda each=pair: one_master(*each), 3.0)
            wait_for(fact, 15.0, "one master for three intervals")
        for alpha, other in pairs:
            assert other.pids()
            assert alpha.group("edge")["changes"] <= 3  # both at once at most once
            assert facts.said(alpha, "loop") == []


@contextmanager
def equals(directory: Path, number: int) -> Iterator[tuple[Daemon, Ucarp]]:
    """Start alpha and an equal ucarp that sends from 192.0.2.`number`, at the same time."""
    with Stage.build(directory, shape(UMA_SKEW), foreign=("uma",), password=PASSWORD) as stage:
        other = uma(stage, source=f"192.0.2.{number}")
        alpha = stage.daemon("alpha")
        other.start()
        alpha.start()
        alpha.wait_ready()
        yield alpha, other


def one_master(alpha: Daemon, other: Ucarp) -> bool:
    """Return whether exactly one of the two says that it is master."""
    return [alpha.role("edge"), other.state].count("MASTER") == 1
