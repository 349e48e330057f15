"""Scenes with two and three brains: who serves, since when, and that never two serve.

The worlds' own judgement (world.py) runs in every one of them: a second open gate fails the scene.
"""

import pytest
from tests.unit.pair.sites import FAST, SLOW, master_down, site
from tests.unit.pair.world import World

from carpool.base.time import NS_PER_MS

SPEEDS = {"1s": SLOW, "100ms": FAST}


def running(seed, nodes, speed, *, paths=1, **options):
    """Return a world in which alpha serves and everybody knows everybody."""
    world = World(seed, site(nodes, speed, **options), paths=paths)
    for machine in world.machines.values():
        machine.start()
    world.run(2 * unit(speed))
    assert world.owners("edge") == ["alpha"]
    return world


def unit(speed):
    """Return the longest master-down time of three nodes."""
    return master_down(speed[0], speed[1] + 2 * speed[2])


def gap(world, successor="bravo", limit=None):
    """Return how long it takes until the successor serves alone."""
    return world.run_until(lambda: world.owners("edge") == [successor], limit or 10 * 10**9)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("paths", [1, 2])
def test_kill(speed, nodes, paths):
    """The best standby serves within 12 ms of a kill -9, at any interval."""
    for seed in range(5):
        world = running(seed, nodes, SPEEDS[speed], paths=paths)
        world.kill(world.machines["alpha"])
        assert gap(world) <= 12 * NS_PER_MS


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("first", ["alpha", "bravo", "charlie"])
@pytest.mark.parametrize("second", ["alpha", "bravo", "charlie"])
def test_kill_two_of_three(speed, first, second):
    """Whoever is killed, in whatever order: the best one left serves."""
    world = running(1, 3, SPEEDS[speed])
    world.kill(world.machines[first])
    world.run(20 * NS_PER_MS)
    world.kill(world.machines[second])
    left = [name for name in ("alpha", "bravo", "charlie") if name not in {first, second}]
    world.run(20 * NS_PER_MS)
    assert world.owners("edge") == left[:1]


@pytest.mark.parametrize("speed", SPEEDS)
def test_kill_while_the_best_standby_is_frozen(speed):
    """The second-best standby acts 50 ms later, and the best one stays out when it thaws."""
    world = running(1, 3, SPEEDS[speed])
    world.freeze(world.machines["bravo"], 200 * NS_PER_MS)
    world.kill(world.machines["alpha"])
    assert 50 * NS_PER_MS <= gap(world, "charlie") <= 62 * NS_PER_MS
    world.run(3 * unit(SPEEDS[speed]))
    assert world.owners("edge") == ["bravo"]  # asked for, and handed over


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("nodes", [2, 3])
def test_freeze(speed, nodes):
    """A frozen master is silent before the standby serves; thawed it serves only when elected."""
    down = master_down(SPEEDS[speed][0], SPEEDS[speed][1] + SPEEDS[speed][2])
    for seed in range(8):
        world = running(seed, nodes, SPEEDS[speed], preempt=False)
        world.run(world.random.randint(0, unit(SPEEDS[speed])))
        world.freeze(world.machines["alpha"], 3 * down)
        silent = world.run_until(lambda w=world: not w.owners("edge"), 2 * down)
        assert silent <= down
        assert gap(world) <= 10 * NS_PER_MS  # the margin of 5 ms and 3 ms of listening
        world.run(5 * down)
        assert world.owners("edge") == ["bravo"]
        standing = world.machines["alpha"].process.engine.node.groups["edge"].election.standing
        assert standing.cause == "lease-expired"


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("to", ["", "bravo", "charlie"])
def test_step_down(speed, to):
    """The group moves within 4 ms, to whom it was ordered, and a better node leaves it there."""
    for seed in range(8):
        world = running(seed, 3, SPEEDS[speed])
        world.machines["alpha"].order("step-down", "edge", to)
        assert gap(world, to or "bravo") <= 4 * NS_PER_MS
        world.run(2 * unit(SPEEDS[speed]))
        assert world.owners("edge") == [to or "bravo"]
        assert [answer.ok for answer in world.machines["alpha"].answers] == [True]


@pytest.mark.parametrize("speed", SPEEDS)
def test_stop_and_return(speed):
    """A stop hands over to the best standby; the restart comes back as backup, then preempts."""
    world = running(1, 3, SPEEDS[speed])
    world.machines["alpha"].stop()
    assert gap(world) <= 4 * NS_PER_MS
    world.run(50 * NS_PER_MS)
    assert world.machines["alpha"].process is None
    world.machines["alpha"].start()
    world.run(10 * NS_PER_MS)
    assert world.owners("edge") == ["bravo"]
    world.run(2 * unit(SPEEDS[speed]))
    assert world.owners("edge") == ["alpha"]


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("mode", ["openbsd", "freebsd"])
def test_demotion_moves_the_group_and_back(speed, mode):
    """A demoted master loses the group to a standby and gets it back when it recovers."""
    world = running(1, 2, SPEEDS[speed], demote=mode)
    alpha = world.machines["alpha"]
    alpha.order("demote", "edge", "100")
    assert gap(world) <= unit(SPEEDS[speed])
    alpha.order("demote", "edge", "0")
    assert gap(world, "alpha") <= unit(SPEEDS[speed])


@pytest.mark.parametrize("speed", SPEEDS)
def test_cable(speed):
    """Without a carrier the group is handed over by the peer link, and comes back with it."""
    world = running(1, 2, SPEEDS[speed])
    world.machines["alpha"].plug(carrier=False)
    assert gap(world) <= 6 * NS_PER_MS
    world.machines["alpha"].plug(carrier=True)
    assert gap(world, "alpha") <= 2 * unit(SPEEDS[speed])


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("offset", range(-300, 301, 50))
def test_two_timers_at_one_instant(speed, offset):
    """Two nodes whose master-down times end together never serve together: they listen first."""
    setups = site(2, SPEEDS[speed])
    world = World(7, setups)
    wait = [setup.groups[0].parameters.master_down_ns() for setup in setups]
    for path in world.network.paths:
        world.network.cut(path)
    world.machines["bravo"].start()
    world.run(wait[1] - wait[0] + offset * 1000)
    world.machines["alpha"].start()
    world.run(unit(SPEEDS[speed]) + 500 * NS_PER_MS)
    assert world.owners("edge") == ["alpha"]


@pytest.mark.parametrize("speed", SPEEDS)
def test_groups_move_together(speed):
    """Groups tied by `with` change the machine together, by kill, step-down and cable."""
    groups = ("edge", "inside")
    world = running(1, 3, SPEEDS[speed], groups=groups)
    both = lambda name: lambda: all(world.owners(group) == [name] for group in groups)  # noqa: E731  a question to wait for
    world.run_until(both("alpha"), 10 * NS_PER_MS)
    world.machines["alpha"].order("step-down", "inside")
    world.run_until(both("bravo"), 20 * NS_PER_MS)
    world.run(2 * unit(SPEEDS[speed]))
    assert both("bravo")()
    world.kill(world.machines["bravo"])
    world.run_until(both("alpha"), 20 * NS_PER_MS)
    world.machines["alpha"].plug(carrier=False)
    world.run_until(both("charlie"), 30 * NS_PER_MS)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("nodes", [2, 3])
def test_peer_link_cut(speed, nodes):
    """Without the link CARP goes on: nothing moves, a kill is noticed by the timer, it heals."""
    world = running(1, nodes, SPEEDS[speed])
    for path in world.network.paths:
        world.network.cut(path)
    world.run(4_000 * NS_PER_MS)
    assert world.owners("edge") == ["alpha"]
    world.kill(world.machines["alpha"])
    assert gap(world) <= unit(SPEEDS[speed]) + 10 * NS_PER_MS
    world.machines["alpha"].start()
    world.run(3 * unit(SPEEDS[speed]))
    assert world.owners("edge") == ["alpha"]  # claimed: advertised, bowed out, served
    for path in world.network.paths:
        world.network.mend(path)
    world.run(2 * unit(SPEEDS[speed]))
    assert world.owners("edge") == ["alpha"]


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("lame", ["alpha", "bravo"])
def test_wire_cut_link_alive(speed, lame):
    """A cut wire makes no second master while the link lives, one-way or both ways."""
    world = running(1, 2, SPEEDS[speed])
    other = "bravo" if lame == "alpha" else "alpha"
    world.network.wire_cut.add((lame, other))
    world.run(3 * unit(SPEEDS[speed]))
    assert world.owners("edge") == ["alpha"]
    world.network.wire_cut.add((other, lame))
    world.run(3 * unit(SPEEDS[speed]))
    assert world.owners("edge") == ["alpha"]
    world.kill(world.machines["alpha"])
    assert gap(world) <= 12 * NS_PER_MS


@pytest.mark.parametrize("speed", SPEEDS)
def test_unheard_master_gives_up(speed):
    """A master that two live standbys do not hear hands over, and does not take it back."""
    world = running(1, 3, SPEEDS[speed])
    world.network.wire_cut |= {("alpha", "bravo"), ("alpha", "charlie")}
    assert gap(world) <= 3 * unit(SPEEDS[speed]) + 2_000 * NS_PER_MS
    world.run(3 * unit(SPEEDS[speed]))
    assert world.owners("edge") == ["bravo"]


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("island", ["alpha", "bravo"])
def test_partition_heals_to_one(speed, nodes, island):
    """A whole partition makes two masters, as in every CARP; one is left within an interval."""
    for seed in range(4):
        world = running(seed, nodes, SPEEDS[speed])
        world.split = True
        for name in world.machines:
            if name != island:
                world.network.wire_cut |= {(name, island), (island, name)}
        for path in world.network.of(island):
            world.network.cut(path)
        world.run(3 * unit(SPEEDS[speed]) + 4_000 * NS_PER_MS)
        assert len(world.owners("edge")) == 2
        world.network.wire_cut.clear()
        for path in world.network.paths:
            world.network.mend(path)
        world.run(unit(SPEEDS[speed]))
        assert world.owners("edge") == ["alpha"]


def test_power_off():
    """A machine that is gone without a word is replaced by the timer."""
    world = running(1, 3, SLOW)
    world.power_off(world.machines["alpha"])
    assert gap(world) <= unit(SLOW) + 10 * NS_PER_MS
    world.power_on(world.machines["alpha"])
    world.run(2 * unit(SLOW))
    assert world.owners("edge") == ["alpha"]


def test_alone_again():
    """A node alone in its group serves again within 100 ms of its own crash."""
    world = running(1, 2, SLOW)
    world.kill(world.machines["bravo"])
    world.run(4_000 * NS_PER_MS)
    alpha = world.machines["alpha"]
    alone = frozenset(alpha.process.engine.alone_groups(alpha.process.now))
    assert alone == {"edge"}
    world.kill(alpha)
    world.run(30 * NS_PER_MS)
    alpha.start(alone=alone)
    assert gap(world, "alpha") <= 10 * NS_PER_MS
