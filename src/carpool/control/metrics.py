"""Prometheus text from a status answer: `carpool metrics` and whoever scrapes it.

Pure. Follows the text exposition format 0.0.4: a HELP and a TYPE line a family, its samples
together, label values with backslash, quote and line end escaped. Times are seconds.

The brain's counters have dots in their names; the first part says which family they belong to:

    sent.GROUP  heard.GROUP        advertisements, by group
    send-error.GROUP               advertisements the kernel did not take, by group
    reject.REASON                  packets not accepted, by reason (base/errors.py Reject)
    gate.drop.GROUP                packets the shut gate dropped, by group
    elect.lateness-ns-STATISTIC    how late the election's process woke up ("max", "last" ...)
    anything else                  carpool_events_total{name="..."}
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from carpool.base.time import NS_PER_S
from carpool.control.messages import Json
from carpool.control.verdict import lease_left_ns, masters, standby

STATES: Final = ("INIT", "BACKUP", "MASTER")


class Sample(NamedTuple):
    """One line: labels and a value."""

    labels: Mapping[str, object]
    value: float


class _Family(NamedTuple):
    """Samples of one name."""

    name: str
    kind: str  # "gauge" | "counter"
    help: str
    samples: list[Sample]


def render_metrics(status: Json, now: int) -> str:
    """Return the metrics page of one node; `now` is the answer's instant."""
    families = [
        *_node(status, now),
        *_roles(status, now),
        *_leases(status),
        *_peers(status),
        *_counters(status["counters"]),
    ]
    return "".join(line for family in families for line in _lines(family))


def _lines(family: _Family) -> Iterator[str]:
    """Give a family's lines; none for a family without samples."""
    if not family.samples:
        return
    explained = family.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {family.name} {explained}\n"
    yield f"# TYPE {family.name} {family.kind}\n"
    for labels, value in family.samples:
        inner = ",".join(f'{name}="{escape(str(text))}"' for name, text in labels.items())
        yield (
            f"{family.name}{{{inner}}} {_number(value)}\n"
            if inner
            else (f"{family.name} {_number(value)}\n")
        )


def escape(text: str) -> str:
    """Return a label's value as it stands between the quotes."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    """Return a value as Prometheus reads it, whole numbers without a fraction."""
    return str(int(value)) if value == int(value) else repr(value)


def _gauge(name: str, explained: str, samples: Iterable[Sample]) -> _Family:
    """Return a family of values that go up and down."""
    return _Family(f"carpool_{name}", "gauge", explained, list(samples))


def _node(status: Json, now: int) -> Iterator[_Family]:
    """Give what concerns the node as a whole."""
    info = {"site": status["site"], "node": status["node"], "revision": status["revision"]}
    yield _gauge("config_info", "The configuration in use.", [Sample(info, 1)])
    up_s = (status["at"] - status["started_at"]) / NS_PER_S
    yield _gauge("uptime_seconds", "Time since the election started.", [Sample({}, up_s)])
    age_s = max(0, now - status["at"]) / NS_PER_S
    yield _gauge("status_age_seconds", "Age of the state shown here.", [Sample({}, age_s)])
    yield _gauge("node_paused", "1 while an operator keeps it out.", [Sample({}, status["paused"])])
    yield _gauge("warnings", "What the operator should look at.", [Sample({}, _warnings(status))])
    yield _gauge(
        "process_info",
        "The daemon's processes and how they are.",
        [Sample({"process": name, "state": s}, 1) for name, s in status["processes"].items()],
    )


def _warnings(status: Json) -> int:
    """Return how many warnings the node and its groups have."""
    return len(status["warnings"]) + sum(len(group["warnings"]) for group in status["groups"])


def _by_group(status: Json, member: str, scale: int = 1) -> list[Sample]:
    """Return one sample a group: the member's value divided by `scale`."""
    return [Sample({"group": g["group"]}, g[member] / scale) for g in status["groups"]]


def _roles(status: Json, now: int) -> Iterator[_Family]:
    """Give roles and what decides about them."""
    groups = status["groups"]
    yield _gauge(
        "group_state",
        "1 for the state this node is in.",
        (
            Sample({"group": g["group"], "state": s}, s == g["state"])
            for g in groups
            for s in STATES
        ),
    )
    yield _gauge(
        "group_masters",
        "Machines that claim to be master, as this node sees it; 1 is right.",
        (Sample({"group": g["group"]}, len(masters(status, g))) for g in groups),
    )
    changes = _by_group(status, "changes")
    yield _Family("carpool_group_changes_total", "counter", "Changes of role.", changes)
    yield _gauge(
        "group_state_age_seconds",
        "Time since the last change of role.",
        (Sample({"group": g["group"]}, max(0, now - g["since"]) / NS_PER_S) for g in groups),
    )
    yield _gauge("group_demotion", "Demotion counter.", _by_group(status, "demotion"))
    yield _gauge("group_paused", "1 while an operator keeps it out.", _by_group(status, "paused"))
    yield _gauge(
        "group_standby",
        "Live standby nodes, this one among them when it is one.",
        (Sample({"group": g["group"]}, len(standby(status, g))) for g in groups),
    )
    yield _gauge(
        "group_conflicts",
        "Addresses another machine answers for.",
        (Sample({"group": g["group"]}, len(g["conflict"])) for g in groups),
    )


def _leases(status: Json) -> Iterator[_Family]:
    """Give intervals, leases and gates."""
    groups = status["groups"]
    yield _gauge(
        "lease_remaining_seconds",
        "How long the gate stays open without a further advertisement; 0: it is shut.",
        (Sample({"group": g["group"]}, lease_left_ns(status, g) / NS_PER_S) for g in groups),
    )
    lease = _by_group(status, "lease_ns", NS_PER_S)
    yield _gauge("lease_seconds", "The lease an advertisement gives.", lease)
    yield _gauge(
        "advertisement_interval_seconds",
        "Time between two advertisements of this node.",
        _by_group(status, "interval_ns", NS_PER_S),
    )
    yield _gauge(
        "master_down_seconds",
        "Silence after which this node takes over.",
        _by_group(status, "master_down_ns", NS_PER_S),
    )
    kinds = (Sample({"group": g["group"], "gate": g["gate"]}, 1) for g in groups)
    yield _gauge("gate_info", "What shuts a dead master off.", kinds)


def _peers(status: Json) -> Iterator[_Family]:
    """Give the peer link's state."""
    peers = status["peers"]
    yield _gauge(
        "peer_up",
        "1 while the path of the peer link works.",
        (
            Sample({"node": peer["node"], "path": path["path"]}, path["up"])
            for peer in peers
            for path in peer["paths"]
        ),
    )
    yield _gauge(
        "peer_node_up",
        "1 while any path to the node works.",
        (Sample({"node": peer["node"]}, peer["up"]) for peer in peers),
    )
    yield _gauge(
        "peer_revision_same",
        "1 when the node has the same configuration as this one.",
        (
            Sample({"node": peer["node"]}, peer["revision"] == status["revision"])
            for peer in peers
            if peer["revision"]
        ),
    )


_FAMILIES: Final = (  # prefix, family, label, explained
    ("sent.", "advertisements_sent", "group", "CARP advertisements sent."),
    ("heard.", "advertisements_received", "group", "CARP advertisements accepted."),
    ("reject.", "rejected", "reason", "Packets not accepted."),
    ("send-error.", "send_errors", "group", "CARP advertisements the kernel refused."),
    ("gate.drop.", "gate_dropped", "group", "Packets dropped by the gate."),
    ("", "events", "name", "Everything else that is counted."),
)
_LATENESS: Final = "elect.lateness-ns-"


def _counters(counters: Mapping[str, int]) -> Iterator[_Family]:
    """Give the brain's counters, each in the family its name says."""
    late = {n.removeprefix(_LATENESS): v for n, v in counters.items() if n.startswith(_LATENESS)}
    yield _gauge(
        "elect_lateness_seconds",
        "How late the election's process woke up.",
        (Sample({"statistic": name}, value / NS_PER_S) for name, value in late.items()),
    )
    left = {name: value for name, value in counters.items() if not name.startswith(_LATENESS)}
    for prefix, family, label, explained in _FAMILIES:
        mine = {name: left.pop(name) for name in list(left) if name.startswith(prefix)}
        samples = [Sample({label: name.removeprefix(prefix)}, v) for name, v in mine.items()]
        yield _Family(f"carpool_{family}_total", "counter", explained, samples)
