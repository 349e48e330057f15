"""A process that holds a gate and does what it is told: a JSON line in, a JSON line out.

Started by the gate's tests in a namespace: `python holder.py bpf|nft`. It exists so that the holder
can be killed and frozen while the test goes on looking.
"""

import json
import os
import select
import socket
import statistics
import sys
import time
from ipaddress import IPv4Address, IPv6Address

from carpool.base.errors import CarpoolError
from carpool.base.time import Instant
from carpool.drivers.clock import boottime_ns
from carpool.drivers.gate import Gate, GateGroup, choose_gate

CONNECTIONS: list[socket.socket] = []


def group(given: dict[str, object]) -> GateGroup:
    """Return the group the test described."""
    words = dict(given)
    words["v4"] = tuple(IPv4Address(text) for text in given["v4"])
    words["v6"] = tuple(IPv6Address(text) for text in given["v6"])
    mac = given.get("virtual_mac")
    words["virtual_mac"] = bytes.fromhex(mac) if mac else None
    return GateGroup(**words)


def time_renewals(gate: Gate, name: str, count: int) -> dict[str, float]:
    """Renew many times; return microseconds."""
    taken = []
    for _ in range(count):
        until = Instant(boottime_ns() + 10**9)
        start = time.perf_counter_ns()
        gate.renew(name, until, until)
        taken.append((time.perf_counter_ns() - start) / 1000)
    taken.sort()
    return {"median": statistics.median(taken), "p99": taken[count * 99 // 100], "max": taken[-1]}


def install_many(gate: Gate, first: list[GateGroup], second: list[GateGroup], count: int) -> None:
    """Go back and forth between two lists of groups."""
    for _ in range(count):
        gate.install(second)
        gate.install(first)


def fork_and_die(gate: Gate) -> None:
    """Leave a child behind that lives until its input ends, and die at once."""
    del gate
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    os._exit(1)


def connect(address: str, port: int) -> None:
    """Keep a connection as the peer link does: its end tells the other side that we are dead."""
    CONNECTIONS.append(socket.create_connection((address, port)))


def do(gate: Gate, verb: str, order: dict[str, object]) -> object:
    """Carry out one order."""
    orders = {
        "install": lambda: gate.install([group(given) for given in order["groups"]]),
        "install_many": lambda: install_many(
            gate,
            *([group(given) for given in order[key]] for key in ("first", "second")),
            order["count"],
        ),
        "open": lambda: gate.open(order["group"], order["serve"], order["advertise"]),
        "renew": lambda: gate.renew(order["group"], order["serve"], order["advertise"]),
        "shut": lambda: gate.shut(order["group"]),
        "audit": gate.audit,
        "drops": gate.drops,
        "remove": gate.remove,
        "kind": lambda: gate.kind,
        "connect": lambda: connect(order["address"], order["port"]),
        "readable": lambda: bool(
            select.select(gate.filenos(), [], [], order["milliseconds"] / 1000)[0]
        ),
        "time_renewals": lambda: time_renewals(gate, order["group"], order["count"]),
        "fork_and_die": lambda: fork_and_die(gate),
    }
    return orders[verb]()


def main() -> None:
    """Obey until the input ends."""
    gate, _reason = choose_gate(sys.argv[1])
    for line in sys.stdin:
        try:
            order = json.loads(line)
            answer: dict[str, object] = {"ok": do(gate, order["do"], order)}
        except CarpoolError as exc:
            answer = {"error": type(exc).__name__, "text": str(exc)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
