"""Both gates in a real kernel: who is heard when, and what ends it. The bench is in conftest.py."""

import json
import os
import select
import signal
import statistics
import sys

import pytest

from carpool.drivers.clock import boottime_ns

MS = 10**6
KNOCKS = ("arp", "neighbour", "neighbour-local", "echo4", "echo6")
# How long after the deadline a knock may still be answered: BPF compares the clock itself, nft's
# timeouts are counted in jiffies of up to 10 ms.
SLACK_NS = {"bpf": 0, "nft": 12 * MS}

pytestmark = pytest.mark.lab


@pytest.fixture(params=[pytest.param("bpf", marks=pytest.mark.bpf), "nft"])
def kind(request):
    """Return which gate."""
    return request.param


@pytest.fixture
def holder(bench, kind):
    """Return a holder with the usual group installed, shut."""
    holder = bench.hold(kind)
    holder.do("install", groups=[bench.group()])
    return holder


def heard(bench):
    """Return which knocks at the shared addresses are answered; one way has to be all or none."""
    counts = {kind: bench.wire.answers(kind) for kind in KNOCKS}
    assert set(counts.values()) <= {0, 5}
    return {kind for kind, count in counts.items() if count}


def watch(bench, kind="echo4"):
    """Return a record of knocks."""
    return sys.modules[type(bench).__module__].Watch(bench.wire, kind)


def refused(call):
    """Return the name of the error that the holder's gate raised."""
    try:
        call()
    except Exception as exc:  # noqa: BLE001  the holder's error class lives in conftest.py
        return exc.args[0]
    return None


def test_shut_is_silent_open_answers(bench, holder):
    """A new group is silent on every way to ask, answers when opened, is silent when shut."""
    assert heard(bench) == set()
    holder.open()
    assert heard(bench) == set(KNOCKS)
    holder.do("shut", group="edge")
    assert heard(bench) == set()
    assert holder.do("drops")["edge"] >= 50


@pytest.mark.parametrize("asked", ["arp", "neighbour", "echo4"])
def test_the_deadline_shuts_without_the_process(bench, kind, holder, asked):
    """A frozen holder's group is silent from its deadline on and stays so when it thaws."""
    seen = watch(bench, asked)
    deadline = holder.open(milliseconds=200)
    holder.signal(signal.SIGSTOP)
    seen.until(deadline + 60 * MS)
    seen.settle()
    assert deadline - 60 * MS < seen.last_answered <= deadline + SLACK_NS[kind]
    sys.stdout.write(f"{kind} {asked} last answer {(seen.last_answered - deadline) / MS:+.2f} ms\n")
    holder.signal(signal.SIGCONT)
    until = boottime_ns() + 1000 * MS
    renewal = {"group": "edge", "serve": until, "advertise": until}
    assert refused(lambda: holder.do("renew", **renewal)) == "LeaseExpiredError"
    assert heard(bench) == set()


def test_what_a_thawed_process_writes_is_past(bench, kind, holder):
    """Deadlines computed before a freeze and written after it open nothing (the double freeze)."""
    deadline = boottime_ns() + 40 * MS
    holder.open(milliseconds=20)
    holder.signal(signal.SIGSTOP)
    holder.send("open", group="edge", serve=deadline, advertise=deadline)
    seen = watch(bench)
    seen.until(deadline + 20 * MS)
    holder.signal(signal.SIGCONT)
    holder.answer()
    seen.until(boottime_ns() + 20 * MS)
    seen.settle()
    assert seen.last_answered <= deadline - 20 * MS + SLACK_NS[kind]


def test_renewal_keeps_the_gate_open(bench, holder):
    """Renewed each 20 ms, a lease of 80 ms answers every knock for half a second."""
    seen = watch(bench)
    holder.open(milliseconds=80)
    start = boottime_ns()
    while boottime_ns() < start + 500 * MS:
        until = boottime_ns() + 80 * MS
        holder.do("renew", group="edge", serve=until, advertise=until)
        seen.until(boottime_ns() + 20 * MS)
    seen.settle()
    assert len(seen.answered) == len(seen.sent) > 40


def test_renewal_revives_nothing(bench, holder):
    """A lease that ran out or was shut is not renewed; only a new election opens the gate."""
    until = boottime_ns() + 60_000 * MS
    renewal = {"group": "edge", "serve": until, "advertise": until}
    assert refused(lambda: holder.do("renew", **renewal)) == "LeaseExpiredError"
    deadline = holder.open(milliseconds=30)
    watch(bench).until(deadline + 30 * MS)
    assert refused(lambda: holder.do("renew", **renewal)) == "LeaseExpiredError"
    assert heard(bench) == set()
    holder.do("open", **renewal)
    assert heard(bench) == set(KNOCKS)
    holder.do("shut", group="edge")
    assert refused(lambda: holder.do("renew", **renewal)) == "LeaseExpiredError"
    assert refused(lambda: holder.do("renew", **renewal | {"group": "none"})) == "LocalError"


def test_death_shuts_at_once(bench, kind):
    """After kill -9 of the holder the group is silent within 20 ms, whatever the deadline."""
    last = []
    for _ in range(5):
        holder = bench.hold(kind)
        holder.do("install", groups=[bench.group()])
        holder.open()
        seen = watch(bench)
        seen.until(boottime_ns() + 20 * MS)
        killed = boottime_ns()
        holder.signal(signal.SIGKILL)
        seen.until(killed + 60 * MS)
        seen.settle()
        last.append((seen.last_answered - killed) / MS)
        assert seen.answered
        assert heard(bench) == set()
    sys.stdout.write(f"{kind} last answer after kill -9, ms: {[f'{ms:+.2f}' for ms in last]}\n")
    assert statistics.median(last) <= 10
    assert max(last) <= 20


def test_the_gate_is_shut_before_the_peer_hears_of_the_death(bench, kind):
    """No knock is answered that was sent after the dead holder's connection was seen to close."""
    margins = []
    with bench.listen() as listener:
        for _ in range(10):
            holder = bench.hold(kind)
            holder.do("install", groups=[bench.group()])
            holder.open()
            holder.do("connect", address="192.0.2.2", port=listener.getsockname()[1])
            connection = listener.accept()[0]
            seen = watch(bench)
            seen.until(boottime_ns() + 5 * MS)
            holder.signal(signal.SIGKILL)
            while not select.select([connection], [], [], 0.0003)[0]:
                seen.knock()
            closed = boottime_ns()
            connection.close()
            seen.until(closed + 20 * MS)
            seen.settle()
            margins.append((seen.last_answered - closed) / MS)
    text = [f"{margin:+.2f}" for margin in margins]
    sys.stdout.write(f"{kind} last answer after the peer link closed, ms: {text}\n")
    assert max(margins) <= 0


def test_a_forked_child_holds_nothing(bench, holder):
    """A child that outlives the holder does not keep the gate open."""
    holder.open()
    assert heard(bench) == set(KNOCKS)
    holder.send("fork_and_die")
    os.waitid(os.P_PID, holder.process.pid, os.WEXITED | os.WNOWAIT)
    seen = watch(bench)
    seen.until(boottime_ns() + 40 * MS)
    assert heard(bench) == set()


def test_a_successor_takes_over_without_a_hole(bench, kind):
    """What a killed holder left stays shut until and while the next holder replaces it."""
    first = bench.hold(kind)
    first.do("install", groups=[bench.group()])
    first.open()
    first.signal(signal.SIGKILL)
    first.process.wait(10)
    seen = watch(bench)
    seen.until(boottime_ns() + 40 * MS)
    quiet_from = boottime_ns()
    second = bench.hold(kind)
    second.send("install", groups=[bench.group()])
    while not select.select([second.process.stdout], [], [], 0.0005)[0]:
        seen.knock()
    second.answer()
    seen.settle()
    assert seen.last_answered < quiet_from
    second.open()
    assert heard(bench) == set(KNOCKS)


def test_install_does_not_touch_an_open_group(bench, holder):
    """Groups come and go twenty times beside an open one that answers every knock meanwhile."""
    other = bench.group(group="other", slot=1, vhid=8, v4=["192.0.2.11"], v6=["2001:db8::11"])
    holder.open()
    seen = watch(bench)
    usual = [bench.group()]
    holder.send("install_many", first=usual, second=[*usual, other], count=20)
    seen.until(boottime_ns() + 400 * MS)
    holder.answer()
    seen.settle()
    assert len(seen.answered) == len(seen.sent) > 40
    assert heard(bench) == set(KNOCKS)


def test_groups_that_contradict_each_other_are_refused(bench, holder):
    """An address or slot in two groups changes nothing and is a LocalError."""
    holder.open()
    twin = bench.group(group="twin", slot=1, vhid=8, v6=[])
    groups = [bench.group(), twin]
    assert refused(lambda: holder.do("install", groups=groups)) == "LocalError"
    moved = [bench.group(slot=5)]
    assert refused(lambda: holder.do("install", groups=moved)) == "LocalError"
    assert heard(bench) == set(KNOCKS)


def test_a_group_taken_out_is_no_longer_guarded(bench, holder):
    """Without the group its addresses are everybody's again; installed anew it is shut."""
    holder.open()
    holder.do("install", groups=[])
    assert heard(bench) == set(KNOCKS)
    holder.do("install", groups=[bench.group()])
    assert heard(bench) == set()


def test_remove_leaves_nothing(bench, kind):
    """After a clean stop the node's tc and nft look as they did before."""
    before = bench.traces()
    holder = bench.hold(kind)
    holder.do("install", groups=[bench.group(firewall=True, virtual_mac="00005e000107")])
    holder.open()
    assert bench.traces() != before
    holder.do("remove")
    assert bench.traces() == before


def test_remove_after_a_killed_predecessor_leaves_nothing(bench, kind):
    """Also what a killed holder left is gone, on interfaces the successor does not use, too."""
    before = bench.traces()
    first = bench.hold(kind)
    first.do("install", groups=[bench.group()])
    first.signal(signal.SIGKILL)
    first.process.wait(10)
    second = bench.hold(kind)
    second.do("install", groups=[bench.group(interface="side0", ifindex=bench.side_ifindex)])
    second.do("remove")
    assert bench.traces() == before


def test_renewal_is_cheap(kind, holder):
    """A renewal is a store to memory with BPF and one short transaction with nft."""
    holder.open()
    taken = holder.do("time_renewals", group="edge", count=500)
    sys.stdout.write(f"{kind} renewal, us: {json.dumps(taken)}\n")
    assert taken["median"] < {"bpf": 10, "nft": 5000}[kind]


def test_a_thousand_addresses(bench, kind):
    """A group of 1000 v4 and 250 v6 addresses is installed, opened and removed like any other."""
    many = bench.group(
        v4=[f"203.0.{number // 250}.{number % 250 + 1}" for number in range(999)] + ["192.0.2.10"],
        v6=[f"2001:db8:1::{number:x}" for number in range(1, 250)] + ["2001:db8::10", "fe80::10"],
    )
    holder = bench.hold(kind)
    start = boottime_ns()
    holder.do("kind")
    installed = boottime_ns()
    holder.do("install", groups=[many])
    opened = boottime_ns()
    holder.open()
    done = boottime_ns()
    times = [(installed - start) / MS, (opened - installed) / MS, (done - opened) / MS]
    sys.stdout.write(f"{kind} start, install, open of 1250 addresses, ms: {times}\n")
    assert heard(bench) == set(KNOCKS)
    holder.do("shut", group="edge")
    assert heard(bench) == set()
