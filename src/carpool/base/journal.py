"""The journal: what happened, as typed entries, and the one renderer.

The brain returns entries; the log line, `carpool history`, `status` and later the dashboard all
print what `render` says. Levels: ERROR = call someone, WARNING = look tomorrow, INFO = a role
changed, DEBUG = detail. Secrets never.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeAlias

from carpool.base.time import human_duration


class Level(StrEnum):
    """How loud an entry is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """A group changed its role on this node, and why."""

    level: ClassVar[Level] = Level.INFO
    group: str
    before: str
    after: str
    cause: str  # a short word for machines: "master-down", "preempt" ...
    reason: str  # a sentence for the operator


@dataclass(frozen=True, slots=True)
class HandoverEnded:
    """A planned move of a group finished, well or not."""

    level: ClassVar[Level] = Level.INFO
    group: str
    successor: str
    outcome: str  # "taken" | "refused" | "timeout"
    took_ns: int


@dataclass(frozen=True, slots=True)
class DemotionChanged:
    """The demotion counter of a group changed."""

    level: ClassVar[Level] = Level.INFO
    group: str
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """Something of ours that another program removed was put back."""

    level: ClassVar[Level] = Level.WARNING
    what: str  # "gate", "address" ...
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class ConflictSeen:
    """Another machine answers for an address that this node serves."""

    level: ClassVar[Level] = Level.ERROR
    group: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class LoopSeen:
    """Our own advertisement came back to us."""

    level: ClassVar[Level] = Level.WARNING
    group: str
    source: str


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """The peer link to another node came up or went away."""

    level: ClassVar[Level] = Level.INFO
    node: str
    path: str
    state: str  # "up" | "closed" | "refused" | "restarted"
    detail: str


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """A new configuration was taken, or refused."""

    level: ClassVar[Level] = Level.INFO
    revision: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProcessChanged:
    """One of our processes started or ended."""

    level: ClassVar[Level] = Level.WARNING
    process: str
    detail: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Anything else worth a line: `name` is a constant of the program."""

    level: ClassVar[Level] = Level.WARNING
    group: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class OrderTaken:
    """An operator asked for something, and what came of it."""

    level: ClassVar[Level] = Level.INFO
    verb: str
    who: str
    outcome: str


Entry: TypeAlias = (
    RoleChanged
    | HandoverEnded
    | DemotionChanged
    | Repaired
    | ConflictSeen
    | LoopSeen
    | PeerChanged
    | ConfigChanged
    | ProcessChanged
    | Noted
    | OrderTaken
)

_KINDS: Final = {
    kind.__name__: kind
    for kind in (
        RoleChanged,
        HandoverEnded,
        DemotionChanged,
        Repaired,
        ConflictSeen,
        LoopSeen,
        PeerChanged,
        ConfigChanged,
        ProcessChanged,
        Noted,
        OrderTaken,
    )
}


def render(entry: Entry) -> str:  # noqa: PLR0911  one line a kind: the table is the function
    """Return the one sentence that every surface shows for `entry`."""
    match entry:
        case RoleChanged():
            return f"{entry.group}: {entry.before} -> {entry.after}: {entry.reason}"
        case HandoverEnded():
            took = human_duration(entry.took_ns)
            return f"{entry.group}: hand-over to {entry.successor}: {entry.outcome} after {took}"
        case DemotionChanged():
            return f"{entry.group}: demotion {entry.before} -> {entry.after}: {entry.reason}"
        case Repaired():
            return f"{entry.what} on {entry.where} was taken away and is restored: {entry.detail}"
        case ConflictSeen():
            return f"{entry.group}: {entry.mac} answers for {entry.address} as well"
        case LoopSeen():
            return f"{entry.group}: our own advertisement came back from {entry.source}: a loop"
        case PeerChanged():
            return f"peer {entry.node} over {entry.path}: {entry.state}: {entry.detail}"
        case ConfigChanged():
            return f"configuration {entry.revision}: {entry.detail}"
        case ProcessChanged():
            return f"process {entry.process}: {entry.detail}"
        case Noted():
            return f"{entry.group}: {entry.text}" if entry.group else entry.text
        case OrderTaken():
            return f"{entry.verb} by {entry.who}: {entry.outcome}"


def to_json(entry: Entry) -> dict[str, object]:
    """Return `entry` as plain JSON values, with its kind and level."""
    return {"kind": type(entry).__name__, "level": str(entry.level), **asdict(entry)}


def from_json(value: Mapping[str, object]) -> Entry:
    """Return the entry that `to_json` wrote.

    Raises ValueError for an unknown kind or a missing field.
    """
    kind = _KINDS.get(str(value.get("kind")))
    if kind is None:
        raise ValueError(f"unknown journal entry: {value.get('kind')!r}")
    try:
        values: dict[str, Any] = {field.name: value[field.name] for field in fields(kind)}
        return kind(**values)
    except KeyError as missing:
        raise ValueError(f"journal entry {kind.__name__} lacks {missing}") from missing
