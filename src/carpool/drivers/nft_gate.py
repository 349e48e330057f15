"""The nft gate: the fall-back where BPF is refused, and the weaker one.

What passes when is in `gate_contract`, the rules and how they shut by themselves in `nft_rules`.
Weaker than BPF in this:
- a deadline is handed to the kernel as "so much from now", in steps of 4 ms. A process frozen at
  the very instant between reading the clock and the kernel's commit, twice within one lease,
  could serve longer than it promised; once, it notices on waking and corrects itself;
- `nft flush ruleset` by someone else opens the gate until `audit` repairs it (the notice comes in
  0.2 ms); BPF filters are not touched by that;
- a renewal is a transaction (0.2 to 1 ms; the kernel may let it wait for 5), not a store to memory;
- frames leaving with a VLAN tag and advertisements with IP options are not looked into;
- one bit of the packet mark is ours on the groups' interfaces (`nft_rules.MARK_BIT`).

Kernel 5.16 or newer (netdev egress hook), libnftables 1.0.6, CAP_NET_ADMIN.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from carpool.base.errors import LocalError
from carpool.base.time import NS_PER_MS, Instant
from carpool.drivers.clock import boottime_ns
from carpool.drivers.descriptors import (
    abandon_in_children,
    duplicate_high,
    keep_in_children,
)
from carpool.drivers.gate_contract import (
    GateGroup,
    GateKind,
    LeaseExpiredError,
    check_groups,
)
from carpool.drivers.nft_rules import (
    PERMIT_TABLE,
    Ruleset,
    plan,
    render_change,
    render_open,
    render_removal,
    render_renewal,
    render_shut,
    timeout_ms,
)
from carpool.drivers.nftables import (
    NETLINK_NETFILTER,
    STATELESS,
    TERSE,
    Nftables,
    NftablesError,
)
from carpool.drivers.notices import NoticeSocket, netlink_port

DELAY_NS_MAX: Final = 10 * NS_PER_MS  # half the margin of an nft lease (20 ms)
REPLACE_NS_MAX: Final = 40 * NS_PER_MS  # a thousand addresses; the lease is put back so much short
STARTS_MAX: Final = 3  # then this machine is too slow to promise a deadline: shut

_NFTABLES_GROUP: Final = 7  # NFNLGRP_NFTABLES
_COUNTER: Final = re.compile(r"counter drops_(\d+) \{\s+packets (\d+)")


@dataclass(frozen=True, slots=True)
class _Lease:
    """The deadlines of an open group."""

    serve_until: Instant
    advertise_until: Instant


class NftGate:
    """The gate of `gate_contract.Gate`, in nftables."""

    def __init__(self) -> None:
        """Claim the permission tables; no rules yet. Raises DriverError."""
        with contextlib.ExitStack() as held:
            self._nft = Nftables()
            held.callback(self._nft.close)
            held.callback(os.close, duplicate_high(self._nft.fileno()))
            claim = f"add table netdev {PERMIT_TABLE} {{ flags owner; }}"
            self._nft.run(claim, attempted="claim the nft permission table")
            port = netlink_port(self._nft.fileno())  # it has one since it was used
            self._notices = NoticeSocket(NETLINK_NETFILTER, 1 << (_NFTABLES_GROUP - 1), port)
            held.callback(self._notices.close)
            self._held = held.pop_all()
        self._groups: dict[str, GateGroup] = {}
        self._leases: dict[str, _Lease] = {}
        self._drops_before: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._ruleset: Ruleset = {}
        self._standing: dict[str, str] = {}
        abandon_in_children(self)

    @property
    def kind(self) -> GateKind:
        """Return "nft"."""
        return "nft"

    def install(self, groups: Sequence[GateGroup]) -> None:
        """Make the rules stand for exactly these groups, in one transaction (see the contract)."""
        check_groups(groups, self._groups.values())
        self.audit()  # a change builds on what stands
        names = _present_interfaces(groups)
        after = {group.group: group for group in groups}
        if not self._ruleset:
            self._replace(after, names)
        else:
            try:
                self._update(after, names)
            except NftablesError as exc:
                if not exc.is_absent:
                    raise
                self._replace(after, names)  # something of ours was taken away just now
        self._standing = self._list()

    def _update(self, after: dict[str, GateGroup], names: dict[int, str]) -> None:
        """Go from what stands to what is wanted; the leases that run are not touched."""
        ruleset = plan(list(after.values()), names)
        gone = [group for name, group in self._groups.items() if name not in after]
        ends = "".join(render_shut(group) + "\n" for group in gone)
        change = ends + render_change(self._ruleset, ruleset)
        if change:
            self._nft.run(change, attempted="change the nft gate")
        self._adopt(after, names, ruleset)

    def _replace(self, after: dict[str, GateGroup], names: dict[int, str]) -> None:
        """Write everything anew and put the leases back that still run."""
        counted = self.drops()
        ruleset = plan(list(after.values()), names)
        leases = {name: lease for name, lease in self._leases.items() if name in after}
        groups = [after[name] for name in leases]
        self._start(groups, leases, render_change({}, ruleset), REPLACE_NS_MAX)
        self._drops_before = counted
        self._adopt(after, names, ruleset)

    def _adopt(self, after: dict[str, GateGroup], names: dict[int, str], ruleset: Ruleset) -> None:
        """Take note of what stands now."""
        self._groups, self._names, self._ruleset = after, names, ruleset
        self._leases = {name: lease for name, lease in self._leases.items() if name in after}
        self._drops_before = {name: self._drops_before.get(name, 0) for name in after}

    def open(self, group: str, serve_until: Instant, advertise_until: Instant) -> None:
        """Start the leases. Raises LocalError for a group that is not installed."""
        lease = _Lease(serve_until, advertise_until)
        self._start([self._group(group)], {group: lease})
        self._leases[group] = lease

    def renew(self, group: str, serve_until: Instant, advertise_until: Instant) -> None:
        """Move the deadlines. Raises LeaseExpiredError when the lease has run out."""
        lease = _Lease(serve_until, advertise_until)
        known = self._group(group)
        renewed = self._renew_once(known, lease)
        if not renewed and self.audit():
            # Somebody flushed the table; the audit put the lease back for as long as it had.
            renewed = self._renew_once(known, lease)
        if not renewed:
            self._leases.pop(group, None)
            raise LeaseExpiredError(f"gate: the lease of {group} has run out")
        self._leases[group] = lease

    def shut(self, group: str) -> None:
        """Stop serving at once."""
        if group not in self._groups:
            return
        self._leases.pop(group, None)
        try:
            self._nft.run(render_shut(self._groups[group]), attempted=f"shut the gate of {group}")
        except NftablesError as exc:
            if not exc.is_absent:
                raise
            self.audit()  # the table is gone: put it back, shut

    def audit(self) -> list[str]:
        """Put back what someone took away; return what that was."""
        heard = self._notices.drain()
        names = _present_interfaces(self._groups.values())
        if not heard and names == self._names:
            return []
        present = self._list() if names == self._names else {}
        missing = [what for what, text in self._standing.items() if present.get(what) != text]
        if missing:
            self._replace(self._groups, names)
            self._standing = self._list()
        return missing if present else []  # an interface that came or went took nothing of ours

    def drops(self) -> dict[str, int]:
        """Return how many frames were stopped, by group, since the group was installed."""
        counts = {name: self._drops_before.get(name, 0) for name in self._groups}
        by_slot = {group.slot: name for name, group in self._groups.items()}
        for table in self._ruleset.values():
            if not table.counters:
                continue
            with contextlib.suppress(NftablesError):  # flushed: audit will tell
                command = f"list counters table {table.title}"
                for slot, packets in _COUNTER.findall(self._nft.run(command, attempted=command)):
                    counts[by_slot[int(slot)]] += int(packets)
        return counts

    def filenos(self) -> list[int]:
        """Return the socket that hears of foreign changes to nftables."""
        return [self._notices.fileno()]

    def remove(self) -> None:
        """Take the tables out and let go of everything."""
        try:
            self._nft.run(render_removal(), attempted="remove the nft gate")
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close all descriptors; the kernel deletes the permission with them, the rest is shut."""
        keep_in_children(self)
        self._held.close()

    def _group(self, group: str) -> GateGroup:
        """Return an installed group. Raises LocalError if it is not."""
        try:
            return self._groups[group]
        except KeyError:
            raise LocalError(f"gate: group {group} is not installed") from None

    def _renew_once(self, group: GateGroup, lease: _Lease) -> bool:
        """Renew; say whether there was something to renew."""
        now = boottime_ns()
        standing = self._leases.get(group.group)
        if standing is None or now >= standing.serve_until:
            return False
        if not timeout_ms(lease.serve_until - now):
            return False
        text = render_renewal(group, lease.serve_until - now, lease.advertise_until - now)
        try:
            self._nft.run(text, attempted=f"renew the lease of {group.group}")
        except NftablesError as exc:
            if exc.is_absent:
                return False
            raise
        if (took := boottime_ns() - now) > DELAY_NS_MAX:
            self._start([group], {group.group: lease}, early_ns=2 * took)
        return True

    def _start(
        self,
        groups: Sequence[GateGroup],
        leases: dict[str, _Lease],
        before: str = "",
        early_ns: int = 0,
    ) -> None:
        """Run `before` and start leases in one transaction, again if the machine was too slow.

        The kernel counts from its commit; a process that was held up between the clock and the
        commit has set a deadline too late, sees that here, and sets it right: the next one ends by
        as much too early as it may be late again. After STARTS_MAX the groups are shut.
        """
        for attempt in range(STARTS_MAX + 1):
            now = boottime_ns()
            late = attempt == STARTS_MAX
            opening = [
                render_shut(group)
                if late
                else render_open(
                    group,
                    leases[group.group].serve_until - now - early_ns,
                    leases[group.group].advertise_until - now - early_ns,
                )
                for group in groups
            ]
            self._nft.run(before + "\n".join(opening), attempted="write the nft gate")
            took = boottime_ns() - now
            if took <= max(DELAY_NS_MAX, early_ns):
                return
            before, early_ns = "", 2 * took

    def _list(self) -> dict[str, str]:
        """Return what stands in the kernel, by the words the audit reports it with."""
        wanted: list[tuple[str, int]] = []
        for table in self._ruleset.values():
            wanted.append((f"table {table.title}", TERSE | STATELESS))
            for name in table.maps:
                kind, bare = name.split()
                wanted.append((f"{kind} {table.title} {bare}", 0))
        listed = {}
        for what, flags in wanted:
            with contextlib.suppress(NftablesError):  # not there: the difference is the answer
                listed[what] = self._nft.run(f"list {what}", attempted=f"list {what}", flags=flags)
        return listed


def _present_interfaces(groups: Iterable[GateGroup]) -> dict[int, str]:
    """Return the present names of the groups' interfaces by index."""
    names = {}
    for group in groups:
        with contextlib.suppress(OSError):  # gone, or not there yet
            names[group.ifindex] = socket.if_indextoname(group.ifindex)
    return names
