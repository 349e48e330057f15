"""The BPF gate: tc programs that drop by themselves when the deadline passes or the holder dies.

What passes when is in `gate_contract`; the programs are in `bpf/gate.bpf.c`. This file keeps their
maps and attaches them:

    addresses_v4, addresses_v6, macs, vhids   what belongs to which slot
    transit                                   the firewall groups of an interface
    leases    (mapped into this process)      slot -> serve_until, advertise_until, boot time ns
    permits   (a PROG_ARRAY, never pinned)    slot -> the program that lets through
    drops     (mapped into this process)      slot -> frames stopped
    holder    (a SOCKMAP)                     a socket of this process

Why it shuts without help: `permits` is referred to by this process only. When the process ends, for
whatever reason, the kernel empties it. The deadline is absolute, so a frozen process finds it past
when it thaws, and what it may then still write is past as well. A renewal is two stores to memory.

OURS: DESIGN has the PROG_ARRAY alone. The kernel empties it by deferred work, which on a busy
machine comes after the peer has seen our connection close (up to 7 ms were seen). A socket leaves a
sockmap in the very act of closing, and the highest descriptor is closed first (`descriptors`), so
`permit_held` also asks for the holder's socket. Kernels older than 5.15 do without.

Kernel 5.10 or newer, CAP_BPF, CAP_NET_ADMIN (and CAP_PERFMON where the verifier asks for it).
Not covered: a tcx program of someone else (kernel 6.6 and newer) runs before clsact and may take a
frame away; and an interface that carries no group is not watched: set arp_ignore=1 where a second
interface of this machine is in the same segment.
"""

import contextlib
import errno
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from carpool.base.errors import DriverError, LocalError
from carpool.base.time import Instant
from carpool.drivers.bpf.object import LoadedObject, load_object, read_object
from carpool.drivers.bpf.syscall import (
    F_MMAPABLE,
    F_NO_PREALLOC,
    MAP_TYPE_ARRAY,
    MAP_TYPE_HASH,
    MAP_TYPE_PROG_ARRAY,
    MAP_TYPE_SOCKMAP,
    MapShape,
    delete_element,
    program_id,
    update_element,
)
from carpool.drivers.clock import boottime_ns
from carpool.drivers.descriptors import abandon_in_children, duplicate_high, keep_in_children
from carpool.drivers.gate_contract import (
    ADDRESSES_MAX,
    SLOTS,
    TRANSIT_GROUPS_MAX,
    GateGroup,
    GateKind,
    LeaseExpiredError,
    check_groups,
    is_guarded,
)
from carpool.drivers.netlink import RTNLGRP_TC
from carpool.drivers.netlink_socket import NETLINK_ROUTE, NetlinkError
from carpool.drivers.notices import NoticeSocket, netlink_port
from carpool.drivers.tc import Direction, TrafficControl

_U32: Final = struct.Struct("=I")
_KEY_V6: Final = struct.Struct("=16sI")
_KEY_MAC: Final = struct.Struct("=I6sxx")
_KEY_VHID: Final = struct.Struct("=II")
_TRANSIT: Final = struct.Struct(f"=I{TRANSIT_GROUPS_MAX}I")
_LEASE_BYTES: Final = 16
_DROP_BYTES: Final = 8

_SHAPES: Final = (
    MapShape("addresses_v4", MAP_TYPE_HASH, 4, 4, ADDRESSES_MAX, F_NO_PREALLOC),
    MapShape("addresses_v6", MAP_TYPE_HASH, _KEY_V6.size, 4, ADDRESSES_MAX, F_NO_PREALLOC),
    MapShape("macs", MAP_TYPE_HASH, _KEY_MAC.size, 4, SLOTS, F_NO_PREALLOC),
    MapShape("vhids", MAP_TYPE_HASH, _KEY_VHID.size, 4, SLOTS, F_NO_PREALLOC),
    MapShape("transit", MAP_TYPE_HASH, 4, _TRANSIT.size, SLOTS, F_NO_PREALLOC),
    MapShape("leases", MAP_TYPE_ARRAY, 4, _LEASE_BYTES, SLOTS, F_MMAPABLE),
    MapShape("drops", MAP_TYPE_ARRAY, 4, _DROP_BYTES, SLOTS, F_MMAPABLE),
    MapShape("permits", MAP_TYPE_PROG_ARRAY, 4, 4, SLOTS),
)
_HOLDER: Final = MapShape("holder", MAP_TYPE_SOCKMAP, 4, 8, 1)
_PROGRAMS: Final = {Direction.INGRESS: "gate_ingress", Direction.EGRESS: "gate_egress"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One element of a map."""

    name: str
    key: bytes


class _MappedArray:
    """The elements of a BPF array as unsigned 64-bit numbers in this process's memory."""

    def __init__(self, bpf_map: int, length: int) -> None:
        """Map `length` bytes, rounded up to pages. Raises DriverError."""
        size = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        access = mmap.PROT_READ | mmap.PROT_WRITE
        try:
            self._memory = mmap.mmap(bpf_map, size, mmap.MAP_SHARED, access)
        except OSError as exc:
            raise DriverError("map a BPF array", os.strerror(exc.errno or 0)) from exc
        # Stores through this view are single 8-byte stores: the program never sees half a deadline.
        self.cells = memoryview(self._memory).cast("Q")

    def close(self) -> None:
        """Unmap."""
        self.cells.release()
        self._memory.close()


class BpfGate:
    """The gate of `gate_contract.Gate`, in BPF."""

    def __init__(self) -> None:
        """Load the programs; nothing is attached yet. Raises DriverError."""
        with contextlib.ExitStack() as held:
            self._loaded, self._permit = _load(held)
            self._maps = self._loaded.maps
            lease_memory = _MappedArray(self._maps["leases"], SLOTS * _LEASE_BYTES)
            held.callback(lease_memory.close)
            drop_memory = _MappedArray(self._maps["drops"], SLOTS * _DROP_BYTES)
            held.callback(drop_memory.close)
            self._leases, self._drops = lease_memory.cells, drop_memory.cells
            self._tc = TrafficControl()
            held.callback(self._tc.close)
            port = netlink_port(self._tc.fileno())
            self._notices = NoticeSocket(NETLINK_ROUTE, 1 << (RTNLGRP_TC - 1), port)
            held.callback(self._notices.close)
            self._program_ids = {
                direction: program_id(self._loaded.programs[name])
                for direction, name in _PROGRAMS.items()
            }
            self._held = held.pop_all()
        self._groups: dict[str, GateGroup] = {}
        self._serve_cells: dict[str, int] = {}  # group -> index of serve_until in _leases
        self._entries: dict[_Entry, bytes] = {}
        self._interfaces: dict[int, str] = {}
        self._attached: set[int] = set()
        self._foreign_clsact: set[int] = set()  # qdiscs that were there before us
        abandon_in_children(self)

    @property
    def kind(self) -> GateKind:
        """Return "bpf"."""
        return "bpf"

    def install(self, groups: Sequence[GateGroup]) -> None:
        """Make the filters stand for exactly these groups (see the contract)."""
        check_groups(groups, self._groups.values())
        after = {group.group: group for group in groups}
        for name in [name for name in self._groups if name not in after]:
            self.shut(name)
            del self._groups[name], self._serve_cells[name]
        for name, group in after.items():
            if name not in self._groups:
                self._clear_slot(group.slot)
            self._serve_cells[name] = 2 * group.slot
        self._groups = after
        self._write_entries(_entries(groups))
        self._interfaces = {group.ifindex: group.interface for group in groups if group.ifindex}
        self._attach_all()
        for ifindex in self._tc.clsact_interfaces():
            if ifindex not in self._interfaces:
                self._detach(ifindex)

    def open(self, group: str, serve_until: Instant, advertise_until: Instant) -> None:
        """Set the deadlines, then permit. Raises LocalError for a group that is not installed."""
        cell = self._cell(group)
        self._leases[cell + 1] = advertise_until
        self._leases[cell] = serve_until
        permit = _U32.pack(self._permit)
        update_element(self._maps["permits"], _U32.pack(self._groups[group].slot), permit)

    def renew(self, group: str, serve_until: Instant, advertise_until: Instant) -> None:
        """Move the deadlines. Raises LeaseExpiredError when the lease has run out."""
        cell = self._cell(group)
        # A freeze between this look and the stores does no harm: the new deadline was computed from
        # an advertisement sent while the lease ran, and nobody takes over before it has passed.
        if boottime_ns() >= self._leases[cell]:
            raise LeaseExpiredError(f"gate: the lease of {group} has run out")
        self._leases[cell + 1] = advertise_until
        self._leases[cell] = serve_until

    def shut(self, group: str) -> None:
        """Stop serving at once."""
        if group in self._groups:
            cell = self._serve_cells[group]
            self._leases[cell] = 0
            self._leases[cell + 1] = 0
            delete_element(self._maps["permits"], _U32.pack(self._groups[group].slot))

    def audit(self) -> list[str]:
        """Put back what someone took away; return what that was."""
        self._notices.drain()
        return self._attach_all()

    def drops(self) -> dict[str, int]:
        """Return how many frames were stopped, by group, since the group was installed."""
        return {name: self._drops[group.slot] for name, group in self._groups.items()}

    def filenos(self) -> list[int]:
        """Return the socket that hears of foreign changes to tc."""
        return [self._notices.fileno()]

    def remove(self) -> None:
        """Take the filters off and let go of everything."""
        for name in self._groups:
            self.shut(name)
        for ifindex in self._tc.clsact_interfaces():
            self._detach(ifindex)
        self.abandon()

    def abandon(self) -> None:
        """Close all descriptors and leave the kernel's filters as they are: they are shut then."""
        keep_in_children(self)
        self._held.close()

    def _cell(self, group: str) -> int:
        """Return where the group's deadline is. Raises LocalError if it is not installed."""
        try:
            return self._serve_cells[group]
        except KeyError:
            raise LocalError(f"gate: group {group} is not installed") from None

    def _clear_slot(self, slot: int) -> None:
        """Make a slot shut and its counter zero, whatever it was used for before."""
        self._leases[2 * slot] = 0
        self._leases[2 * slot + 1] = 0
        self._drops[slot] = 0
        delete_element(self._maps["permits"], _U32.pack(slot))

    def _write_entries(self, wanted: dict[_Entry, bytes]) -> None:
        """Change the maps to `wanted`: what is new first, so that nothing is unguarded between."""
        for entry, value in wanted.items():
            if self._entries.get(entry) != value:
                update_element(self._maps[entry.name], entry.key, value)
        for entry in self._entries.keys() - wanted.keys():
            delete_element(self._maps[entry.name], entry.key)
        self._entries = wanted

    def _attach_all(self) -> list[str]:
        """Attach everywhere, then raise the first refusal, if any: one interface stops no other."""
        missing: list[str] = []
        refusal: DriverError | None = None
        for ifindex, name in self._interfaces.items():
            try:
                missing += self._attach(ifindex, name)
            except DriverError as exc:
                refusal = refusal or exc
        if refusal is not None:
            raise refusal
        return missing

    def _attach(self, ifindex: int, name: str) -> list[str]:
        """See that both filters stand; return what was missing. An absent interface is left out."""
        missing = []
        for direction, wanted_id in self._program_ids.items():
            found = self._tc.find_filter(ifindex, direction)
            if found is not None and found.program_id == wanted_id and found.direct_action:
                continue
            try:
                made = self._tc.make_clsact(ifindex)
                program = self._loaded.programs[_PROGRAMS[direction]]
                self._tc.replace_filter(ifindex, direction, program)
            except NetlinkError as exc:
                if exc.code == errno.ENODEV:
                    return []
                raise
            if made:
                self._foreign_clsact.discard(ifindex)
                missing.append(f"clsact on {name}")
            elif not missing and found is None and ifindex not in self._attached:
                self._foreign_clsact.add(ifindex)  # it was there, without a filter of ours
            missing.append(f"gate at {name} {direction.name.lower()}")
        self._attached.add(ifindex)
        return missing

    def _detach(self, ifindex: int) -> None:
        """Take our filters off, and the qdisc unless it was there before us or others use it."""
        if not any(entry.is_ours for entry in self._tc.filters(ifindex)):
            return
        for direction in Direction:
            self._tc.delete_filter(ifindex, direction)
        if ifindex not in self._foreign_clsact and not self._tc.filters(ifindex):
            self._tc.delete_clsact(ifindex)
        self._foreign_clsact.discard(ifindex)
        self._attached.discard(ifindex)


def _load(held: contextlib.ExitStack) -> tuple[LoadedObject, int]:
    """Load the programs; return them and the one that permits. `held` closes them."""
    compiled = read_object("gate")
    gates = tuple(_PROGRAMS.values())
    with contextlib.suppress(DriverError), contextlib.ExitStack() as attempt:
        loaded = load_object(compiled.only((*gates, "permit_held")), (*_SHAPES, _HOLDER))
        attempt.callback(loaded.close)
        attempt.callback(os.close, _hold(loaded.maps["holder"]))
        held.push(attempt.pop_all())
        return loaded, loaded.programs["permit_held"]
    loaded = load_object(compiled.only((*gates, "permit")), _SHAPES)
    held.callback(loaded.close)
    return loaded, loaded.programs["permit"]


def _hold(holder: int) -> int:
    """Put a socket of this process into the map; return its descriptor, the highest."""
    try:
        ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError as exc:
        raise DriverError("make the gate's socket", os.strerror(exc.errno or 0)) from exc
    with ours, other:
        update_element(holder, _U32.pack(0), struct.pack("=Q", ours.fileno()))
        return duplicate_high(ours.fileno())


def _entries(groups: Sequence[GateGroup]) -> dict[_Entry, bytes]:
    """Return what the maps must hold for `groups`."""
    entries: dict[_Entry, bytes] = {}
    transit: dict[int, list[int]] = {}
    for group in groups:
        slot = _U32.pack(group.slot)
        for v4 in group.v4:
            entries[_Entry("addresses_v4", v4.packed)] = slot
        for v6 in group.v6:
            if is_guarded(v6, group.ifindex):
                scope = group.ifindex if v6.is_link_local else 0
                entries[_Entry("addresses_v6", _KEY_V6.pack(v6.packed, scope))] = slot
        if not group.ifindex:
            continue
        entries[_Entry("vhids", _KEY_VHID.pack(group.ifindex, group.vhid))] = slot
        if group.virtual_mac is not None:
            entries[_Entry("macs", _KEY_MAC.pack(group.ifindex, group.virtual_mac))] = slot
        if group.firewall:
            transit.setdefault(group.ifindex, []).append(group.slot)
    for ifindex, slots in transit.items():
        padding = [0] * (TRANSIT_GROUPS_MAX - len(slots))
        value = _TRANSIT.pack(len(slots), *slots, *padding)
        entries[_Entry("transit", _U32.pack(ifindex))] = value
    return entries
