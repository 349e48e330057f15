"""Scenes in which the nodes' files differ, as they do while a reload goes from node to node.

And those in which two masters know each other by the peer link only: files that make different
authenticators do that, like a cut wire. The worlds judge that never two serve.
"""

import pytest
from tests.unit.pair.sites import FAST, SLOW, site
from tests.unit.pair.test_scenes import gap, running, unit
from tests.unit.pair.world import World

from carpool.base.journal import Noted
from carpool.base.time import NS_PER_MS

QUICK = (0, 15, 1)  # 60 ms: more than half of FAST, so nobody is patient with the slower master
HALF = (0, 128, 1)  # 500 ms, the same to SLOW
SPEEDS = {"1s": SLOW, "500ms": HALF, "100ms": FAST, "60ms": QUICK}


def reload_all(world, setups, pause_ns):
    """Reload one node after the other; the master last, so that the others are ahead of it."""
    for setup in reversed(setups):
        world.machines[setup.node].reload(setup)
        world.run(pause_ns)


@pytest.mark.parametrize("theirs", SPEEDS)
@pytest.mark.parametrize("ours", SPEEDS)
def test_frozen_master_among_other_intervals(ours, theirs):
    """The lease ends before the most hasty linked member acts, whatever the master's file says."""
    for seed in range(6):
        master = site(2, SPEEDS[ours], preempt=False)[0]
        world = World(seed, [master, site(2, SPEEDS[theirs], preempt=False)[1]])
        world.machines["alpha"].start()
        world.run(2 * unit(SPEEDS[ours]))
        world.machines["bravo"].start()
        world.run(2 * unit(SPEEDS[theirs]) + world.random.randint(0, unit(SPEEDS[ours])))
        assert world.owners("edge") == ["alpha"]
        world.freeze(world.machines["alpha"], 20_000 * NS_PER_MS)
        gap(world)
        world.run(2 * unit(SPEEDS[ours]))


@pytest.mark.parametrize("to", SPEEDS)
@pytest.mark.parametrize("old", SPEEDS)
def test_rolling_reload_of_the_interval(old, to):
    """It moves nothing, and a master that freezes at any moment of it has shut before another."""
    for seed in range(6):
        world = running(seed, 3, SPEEDS[old], preempt=False)
        setups = site(3, SPEEDS[to], preempt=False, revision="8")
        if seed % 3:
            when = world.now + world.random.randint(0, 30 * NS_PER_MS)
            alpha = world.machines["alpha"]
            world.at(when, lambda w=world, a=alpha: w.freeze(a, 20_000 * NS_PER_MS))
            reload_all(world, setups, world.random.randint(0, 20 * NS_PER_MS))
            world.run_until(lambda w=world: w.owners("edge") not in ([], ["alpha"]), 10 * 10**9)
        else:
            changes = [standing(machine).changes for machine in world.machines.values()]
            reload_all(world, setups, 3 * unit(SPEEDS[old]))
            assert world.owners("edge") == ["alpha"]
            assert changes == [standing(machine).changes for machine in world.machines.values()]


def standing(machine):
    """Return what the machine's election remembers."""
    return machine.process.engine.node.groups["edge"].election.standing


@pytest.mark.parametrize("speed", [SLOW, FAST])
@pytest.mark.parametrize("cause", ["kill", "bow-out"])
def test_forestalled_successor(speed, cause):
    """Who waits for its turn stays out when the link says that a better one has taken over."""
    for seed in range(5):
        world = running(seed, 3, speed)
        world.network.wire_cut |= {("bravo", "charlie"), ("charlie", "bravo")}
        if cause == "kill":
            world.kill(world.machines["alpha"])
        else:
            for machine in ("bravo", "charlie"):  # nobody is told to succeed: the wire tells all
                world.freeze(world.machines[machine], 700 * NS_PER_MS)
            world.machines["alpha"].stop()
        gap(world)
        world.run(4 * unit(speed))
        assert world.owners("edge") == ["bravo"]


@pytest.mark.parametrize("speed", [SLOW, FAST])
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("island", ["alpha", "bravo"])
@pytest.mark.parametrize("deaf", ["wire", "both", "password"])
def test_two_masters_that_only_the_link_joins(speed, nodes, island, deaf):
    """After a partition of which only the link heals, the better master is left, and stays."""
    for seed in range(3):
        setups = site(nodes, speed)
        if deaf == "password":
            other = site(nodes, speed, key=b"another", revision="8")
            setups = [s if s.node == "alpha" else o for s, o in zip(setups, other, strict=True)]
        world = World(seed, setups)
        world.split = True
        for name in world.machines:
            if name != island:
                world.network.wire_cut |= {(name, island), (island, name)}
        for path in world.network.of(island):
            world.network.cut(path)
        for machine in world.machines.values():
            machine.start()
        world.run(3 * unit(speed) + 4_000 * NS_PER_MS)
        assert len(world.owners("edge")) == 2
        if deaf == "password":
            world.network.wire_cut.clear()
        elif deaf == "wire":  # one way only: the island hears the others
            world.network.wire_cut = {(island, name) for name in world.machines}
        for path in world.network.paths:
            world.network.mend(path)
        world.run(unit(speed) + 1_000 * NS_PER_MS)
        assert world.owners("edge") == ["alpha"]
        world.split = False
        world.run(2 * unit(speed) + 4_000 * NS_PER_MS)
        # Two standbys with the master's own file that hear nothing of it ask for a hand-over.
        unheard = nodes == 3 and island == "alpha" and deaf != "password"
        assert world.owners("edge") == ["bravo" if unheard else "alpha"]
        before = [standing(machine).changes for machine in world.machines.values()]
        world.run(3 * unit(speed))
        assert before == [standing(machine).changes for machine in world.machines.values()]


@pytest.mark.parametrize("speed", [SLOW, FAST])
def test_standbys_with_another_file_are_no_proof_of_deafness(speed):
    """A reload that changes the authenticator makes standbys deaf: the master keeps the group."""
    world = running(1, 3, speed)
    for setup in site(3, speed, key=b"another", revision="8")[1:]:
        world.machines[setup.node].reload(setup)
    world.run(4 * unit(speed) + 4_000 * NS_PER_MS)
    assert world.owners("edge") == ["alpha"]
    assert not [e for _, e in world.machines["alpha"].entries if isinstance(e, Noted) and e.group]
