"""What a gate is: the groups it stands for and what may be asked of it.

The gate is the kernel's half of the lease (ARCHITECTURE, "The gate"): a node may serve a group only
while its gate is open, and the gate shuts by itself when the deadline passes or when the process
that holds it dies. `bpf_gate` and `nft_gate` keep this contract; `gate` chooses between them.

What an open and a shut gate let through:

    direction   frame                                               shut      open
    egress      ARP whose sender is in the group                    dropped   passes
    egress      IP whose source is in the group                     dropped   passes
    egress      neighbour advertisement whose target is in it       dropped   passes
    egress      frames from the group's virtual MAC                 dropped   passes
    egress      our CARP advertisements of its vhid                 dropped   until advertise_until
    egress      forwarded IP on a firewall group's interface        dropped   passes
    ingress     ARP requests whose target is in the group           dropped   passes
    ingress     IP whose destination is in the group                dropped   passes
    ingress     neighbour solicitation whose target is in it        dropped   passes
    ingress     frames to the group's virtual MAC                   dropped   passes
    both        everything else                                     passes    passes

OURS: DESIGN says "to and from the group's addresses". A standby is often a client of the shared
address it stands by for (a web server that calls the database's address), so a shut gate stops only
what would make this node *be* the address: it may still ask who has the address, send to it, and
hear the true master's answers and announcements. An announcement (an ARP request whose sender is
its own target) is let in for that reason; no stack answers one, and the egress gate would stop it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal, Protocol

from carpool.base.errors import LocalError
from carpool.base.time import Instant

SLOTS: Final = 255  # slots 0..254: as many groups as an interface has virtual host ids
ADDRESSES_MAX: Final = 65536  # of each family on one node; the kernel's maps are made for this many
TRANSIT_GROUPS_MAX: Final = 8  # firewall groups on one interface; the program's loop is this long

GateKind = Literal["bpf", "nft"]


class LeaseExpiredError(LocalError):
    """A lease that has run out is not renewed: only a new election opens the gate again."""


@dataclass(frozen=True, slots=True)
class GateGroup:
    """One group as the gate sees it.

    slot: 0..254, one group each, kept for as long as the group is installed.
    interface, ifindex: where the group lives; with a macvlan this is the parent, which all frames
    pass. An ifindex of 0 means that the interface is absent: the addresses are guarded on the
    other groups' interfaces only.
    virtual_mac: 6 bytes, or None when the interface's own MAC is used.
    firewall: forwarded packets leave by the interface only while a firewall group on it is open.
    """

    group: str
    slot: int
    interface: str
    ifindex: int
    vhid: int
    v4: tuple[IPv4Address, ...]
    v6: tuple[IPv6Address, ...]
    virtual_mac: bytes | None = None
    firewall: bool = False


class Gate(Protocol):
    """A kernel gate. One process holds it; it must not be shared with a forked child.

    The descriptors are close-on-exec, and a child made by `os.fork` closes its copies at once (a
    copy would keep the gate open after the holder's death). Whoever forks by other means after
    making a gate closes every descriptor in the child.
    """

    @property
    def kind(self) -> GateKind:
        """Which gate this is; "nft" is the weaker one."""

    def install(self, groups: Sequence[GateGroup]) -> None:
        """Make the filters stand for exactly these groups; may be repeated.

        Groups already open stay open and lose no packet; new ones are shut; groups that are no
        longer there are taken out, so their addresses must be gone before. Filters left by a killed
        predecessor are replaced in one step; they stay shut until then.
        Raises LocalError for groups that contradict each other, DriverError for the kernel's no.
        """

    def open(self, group: str, serve_until: Instant, advertise_until: Instant) -> None:
        """Set the deadlines, then permit. Only an election won calls this."""

    def renew(self, group: str, serve_until: Instant, advertise_until: Instant) -> None:
        """Move the deadlines of an open group.

        Raises LeaseExpiredError when the lease has run out or the group is shut: nothing revives.
        """

    def shut(self, group: str) -> None:
        """Stop serving at once. A group that is shut or unknown is left as it is."""

    def audit(self) -> list[str]:
        """Compare with the kernel, repair, and return what was missing ("clsact on eth0").

        Also empties the sockets of `filenos`. Costs about a tenth of a millisecond an interface.
        """

    def drops(self) -> dict[str, int]:
        """Return how many packets the gate stopped, by group."""

    def filenos(self) -> list[int]:
        """Return descriptors that become readable when someone else changed tc or nft."""

    def remove(self) -> None:
        """Take out everything (a clean stop). The gate cannot be used afterwards."""


def check_groups(groups: Iterable[GateGroup], before: Iterable[GateGroup]) -> None:
    """Raise LocalError if `groups` contradict each other, or move one of `before` to a new slot."""
    slot_before = {group.group: group.slot for group in before}
    owners: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for group in groups:
        if not 0 <= group.slot < SLOTS:
            raise LocalError(f"gate: {group.group}: slot {group.slot} is not in 0..{SLOTS - 1}")
        if slot_before.get(group.group, group.slot) != group.slot:
            raise LocalError(f"gate: {group.group} cannot change its slot while it is installed")
        for claim in _claims(group):
            if claim in owners:
                raise LocalError(f"gate: {group.group} and {owners[claim]} both have {claim}")
            owners[claim] = group.group
        counts.update({"v4": len(group.v4), "v6": len(group.v6)})
        if group.firewall and group.ifindex:
            counts[f"transit {group.ifindex}"] += 1
            if counts[f"transit {group.ifindex}"] > TRANSIT_GROUPS_MAX:
                raise LocalError(
                    f"gate: {group.interface} has more than {TRANSIT_GROUPS_MAX} firewall groups"
                )
    if max(counts["v4"], counts["v6"]) > ADDRESSES_MAX:
        raise LocalError(f"gate: more than {ADDRESSES_MAX} addresses of one family")


def is_guarded(address: IPv4Address | IPv6Address, ifindex: int) -> bool:
    """Say whether frames can be judged by `address`: a link-local one needs its interface."""
    return ifindex != 0 or not (isinstance(address, IPv6Address) and address.is_link_local)


def _claims(group: GateGroup) -> list[str]:
    """Return what no other group may have as well; addresses are unique on the whole node."""
    claims = [f"the name {group.group}", f"slot {group.slot}"]
    for address in (*group.v4, *group.v6):
        scoped = isinstance(address, IPv6Address) and address.is_link_local
        claims.append(f"address {address}" + (f" on {group.interface}" if scoped else ""))
    if group.ifindex:
        claims.append(f"vhid {group.vhid} on {group.interface}")
    if group.ifindex and group.virtual_mac is not None:
        claims.append(f"virtual MAC {group.virtual_mac.hex(':')} on {group.interface}")
    return claims
