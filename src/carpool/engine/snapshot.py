"""The whole state of one node as one frozen value, for `status`, `explain`, metrics and tests."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """One hot group as this node sees it. Instants are boot-time ns of this node."""

    group: str
    state: str  # "INIT" | "BACKUP" | "MASTER"
    reason: str  # sentence of the last change of role
    cause: str
    since: int  # instant of the last change of role
    changes: int  # changes of role since start
    interface: str
    vhid: int
    addresses: tuple[str, ...]
    advbase: int
    advskew: int
    demotion: int
    interval_ns: int
    master_down_ns: int
    lease_ns: int  # L: how long the gate stays open after an advertisement
    lease_until: int  # the gate's deadline, 0 when it is shut
    gate: str  # "bpf" | "nft" | "none"
    master: str  # node name or source address of the master last heard, "" if none
    master_heard_at: int  # instant of its last advertisement, 0 if none
    standby: tuple[str, ...]  # live standby nodes, best first
    paused: bool
    preempt: bool
    moves_with: tuple[str, ...]
    conflict: Mapping[str, str]  # address -> MAC of another owner seen lately
    warnings: tuple[str, ...]  # what the operator should know now
    # (advbase, advskew, demotion) in the last advertisement of `master`
    master_claims: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class ClaimSnapshot:
    """What another node said last about itself in a group, over the peer link."""

    advbase: int
    advskew: int
    demotion: int
    paused: bool
    ready: bool
    hears: str  # the master it hears, "" if none


@dataclass(frozen=True, slots=True)
class PathSnapshot:
    """One path of the peer link."""

    path: str  # address
    up: bool
    since: int


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """Another node, as the peer link shows it."""

    node: str
    up: bool
    revision: str
    paths: tuple[PathSnapshot, ...]
    heard_at: int  # instant of its last heartbeat, 0 if never
    states: Mapping[str, str]  # group -> state as that node reported it
    claims: Mapping[str, ClaimSnapshot] = field(default_factory=dict)  # group -> its latest report


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """Everything."""

    site: str
    node: str
    revision: str
    at: int  # instant of the snapshot
    started_at: int
    paused: bool
    groups: tuple[GroupSnapshot, ...]
    peers: tuple[PeerSnapshot, ...]
    counters: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    processes: Mapping[str, str] = field(default_factory=dict)  # filled in by the daemon's parent


def to_json(snapshot: NodeSnapshot) -> dict[str, object]:
    """Return the snapshot as plain JSON values."""
    return asdict(snapshot)
