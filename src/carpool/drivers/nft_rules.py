"""The nft gate's rules as text: pure, from groups to what libnftables reads.

One table `netdev carpool_gate` holds the gate, on both hooks of each interface; firewall groups add
`inet carpool_gate` (only its forward hook knows a forwarded packet). The tables outlive the
process, so they stop everything of the groups until two things say otherwise:

    set lease, set advert     slot + 1 with a timeout: the deadlines
    table ... carpool_permit  `flags owner`: the kernel deletes it when the process dies. It sets a
                              bit in each packet's mark, which the gate asks for.

    hook priority    -496 front: clears the bit (nobody else can set it)
                     -495 carpool_permit: sets the bit
                     -490 gate: judges
                     -489 back: clears the bit again
So this gate takes bit MARK_BIT of the packet mark for itself on the groups' interfaces.

Everything is compared by raw offsets: nft 1.0.6 cannot name a neighbour discovery target, its
`ether saddr` never matches at egress (it asks for an input interface first), and a frame from a raw
socket may carry another protocol in its metadata than in its header. Offsets in bits:

    @ll   0 destination MAC, 48 source MAC, 96 ethertype
    @nh   ARP: 48 operation, 112 sender, 192 target; IPv4: 72 protocol, 96 source, 128 destination,
          160 payload; IPv6: 48 next header, 64 source, 192 destination, 320 payload
    CARP  0 version and type, 8 vhid, 24 auth length; ICMPv6: 0 type, 64 target
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from carpool.base.errors import DriverError
from carpool.base.time import NS_PER_MS
from carpool.drivers.gate_contract import GateGroup

GATE_TABLE: Final = "carpool_gate"
PERMIT_TABLE: Final = "carpool_permit"
MARK_BIT: Final = 0x0800_0000
JIFFY_MS: Final = 4  # the kernel's step for timeouts at HZ=250; finer wishes would be rounded

_CLEAR: Final = f"meta mark set meta mark and {~MARK_BIT & 0xFFFF_FFFF:#010x}"
_SET: Final = f"meta mark set meta mark or {MARK_BIT:#010x}"
_UNMARKED: Final = f"meta mark and {MARK_BIT:#010x} == 0"
_TITLES: Final = tuple(
    f"{family} {table}" for family in ("netdev", "inet") for table in (GATE_TABLE, PERMIT_TABLE)
)
_IPV4, _IPV6, _ARP = "@ll,96,16 0x0800", "@ll,96,16 0x86dd", "@ll,96,16 0x0806"


@dataclass(frozen=True, slots=True)
class Table:
    """One table as it should be."""

    family: str
    name: str
    owned: bool = False  # dies with the process that made it
    leases: tuple[str, ...] = ()  # sets with timeouts; what is in them is never touched here
    counters: tuple[str, ...] = ()
    # Name to declaration and elements: "map v4" -> ("typeof ... : verdict", elements).
    maps: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # lines, a hook's first

    @property
    def title(self) -> str:
        """How nft is told which table it is."""
        return f"{self.family} {self.name}"


Ruleset: TypeAlias = Mapping[str, Table]
"""The tables of the gate by title."""


@dataclass(slots=True)
class _Interface:
    """What lives on one interface."""

    name: str
    ifindex: int
    groups: list[GateGroup] = field(default_factory=list)

    @property
    def link_locals(self) -> bool:
        """Whether a group has a link-local address here."""
        return any(address.is_link_local for group in self.groups for address in group.v6)

    @property
    def macs(self) -> bool:
        """Whether a group has a virtual MAC here."""
        return any(group.virtual_mac is not None for group in self.groups)


def plan(groups: Sequence[GateGroup], names: Mapping[int, str]) -> Ruleset:
    """Return the tables that guard `groups`.

    names: present interfaces by index; groups on other interfaces are guarded by address only.
    Raises DriverError for an interface name nft cannot be told.
    """
    interfaces = _by_interface(groups, names)
    tables = [_gate_table(groups, interfaces), _permit_table(interfaces)]
    firewalls = [
        interface for interface in interfaces if any(group.firewall for group in interface.groups)
    ]
    if firewalls:
        tables += _transit_tables(firewalls)
    return {table.title: table for table in tables}


def render_change(before: Ruleset, after: Ruleset) -> str:
    """Return the transaction from one ruleset to another; leases that run go on running.

    An empty `before` replaces whatever stands there, a killed predecessor's included: all shut.
    """
    lines: list[str] = []
    for title in [*before] if before else _TITLES:
        if title not in after:
            lines += _absent(title)
    for title, table in after.items():
        standing = before.get(title)
        if standing is None or (table.owned and table != standing):
            lines += [*_absent(title), *_declaration(Table(table.family, table.name), table)]
        elif table != standing:
            lines += _retraction(standing, table) + _declaration(standing, table)
    return "\n".join(lines) + "\n" if lines else ""


def render_removal() -> str:
    """Return the transaction that takes everything out, whatever of it is there."""
    return "\n".join(line for title in _TITLES for line in _absent(title)) + "\n"


def render_shut(group: GateGroup) -> str:
    """Return the transaction that ends a group's leases, running or not."""
    return "\n".join(
        line
        for where in _sets(group)
        for line in (_element("add", where, group), _gone(where, group))
    )


def render_open(group: GateGroup, serve_ns: int, advertise_ns: int) -> str:
    """Return the transaction that starts a group's leases, whatever was before."""
    return "\n".join([render_shut(group), *_starts(group, serve_ns, advertise_ns)])


def render_renewal(group: GateGroup, serve_ns: int, advertise_ns: int) -> str:
    """Return the transaction that goes on with a group's leases; it fails once they have expired.

    The first `delete` is what fails: an expired element does not exist. `add` before it, as for the
    advertisements, would revive what has expired.
    """
    lines = [_gone("netdev lease", group)]
    for where in _sets(group)[1:]:
        lines += [_element("add", where, group), _gone(where, group)]
    return "\n".join([*lines, *_starts(group, serve_ns, advertise_ns)])


def timeout_ms(duration_ns: int) -> int:
    """Return the timeout for a lease of `duration_ns`, never longer; 0 when there is none left."""
    return max(0, duration_ns // (JIFFY_MS * NS_PER_MS) * JIFFY_MS)


def window_ms(duration_ns: int) -> int:
    """Return the timeout for advertisements alone: not shorter than asked, by up to two jiffies.

    A take-over's window is a few milliseconds: rounded down it would often be none, and the
    advertisement that goes out at once would be dropped. Being a jiffy or two late with it is well
    inside of this gate's margin of 20 ms.
    """
    if duration_ns <= 0:
        return 0
    return (-(-duration_ns // (JIFFY_MS * NS_PER_MS)) + 1) * JIFFY_MS


def _starts(group: GateGroup, serve_ns: int, advertise_ns: int) -> list[str]:
    """Return the lines that put the elements in; a duration of nothing leaves one out."""
    lines = []
    for where in _sets(group):
        is_window = where.endswith("advert")
        milliseconds = window_ms(advertise_ns) if is_window else timeout_ms(serve_ns)
        if milliseconds:
            lines.append(_element("add", where, group, f" timeout {milliseconds}ms"))
    return lines


def _sets(group: GateGroup) -> list[str]:
    """Return the sets a group's leases stand in, "family set", the deciding one first."""
    sets = ["netdev lease", "netdev advert"]
    if group.firewall and group.ifindex:
        sets.append("inet lease")
    return sets


def _element(verb: str, where: str, group: GateGroup, suffix: str = "") -> str:
    """Return one command on a group's element."""
    family, name = where.split()
    return f"{verb} element {family} {GATE_TABLE} {name} {{ {group.slot + 1}{suffix} }}"


def _gone(where: str, group: GateGroup) -> str:
    """Return the command that takes a group's element out."""
    return _element("delete", where, group)


def _absent(title: str) -> list[str]:
    """Return the lines that delete a table whether it is there or not."""
    flags = "flags owner;" if title.endswith(PERMIT_TABLE) else ""
    return [f"add table {title} {{ {flags} }}", f"delete table {title}"]


def _retraction(standing: Table, wanted: Table) -> list[str]:
    """Return the lines that take out of a standing table what is not wanted as it is."""
    title = standing.title
    lines = [f"flush table {title}"] if standing.chains != wanted.chains else []
    changed = [name for name in standing.maps if standing.maps[name] != wanted.maps.get(name)]
    kept = [name for name in changed if name in wanted.maps]
    lines += [f"flush {_object(title, name)}" for name in kept]
    lines += [f"delete {_object(title, name)}" for name in changed if name not in kept]
    lines += [
        f"delete chain {title} {name}" for name in standing.chains if name not in wanted.chains
    ]
    gone = [name for name in standing.counters if name not in wanted.counters]
    return lines + [f"delete counter {title} {name}" for name in gone]


def _declaration(standing: Table, wanted: Table) -> list[str]:
    """Return the lines that add what is wanted and does not stand."""
    lines = [f"table {wanted.title} {{"]
    lines += ["flags owner;"] if wanted.owned else []
    lines += [f"counter {name} {{ }}" for name in wanted.counters if name not in standing.counters]
    lines += [
        f"set {name} {{ type mark; flags timeout; }}"
        for name in wanted.leases
        if name not in standing.leases
    ]
    for name, (kind, elements) in wanted.maps.items():
        if standing.maps.get(name) == (kind, elements):
            continue
        lines += [f"{name} {{", kind]
        lines += [f"elements = {{ {', '.join(elements)} }}"] if elements else []
        lines.append("}")
    if standing.chains != wanted.chains:
        for name, rules in wanted.chains.items():
            lines += [f"chain {name} {{", *rules, "}"]
    return [*lines, "}"]


def _object(title: str, name: str) -> str:
    """Return a map or set as a command names it: "map v4" becomes "map netdev table v4"."""
    kind, bare = name.split()
    return f"{kind} {title} {bare}"


def _by_interface(groups: Sequence[GateGroup], names: Mapping[int, str]) -> list[_Interface]:
    """Return the present interfaces with their groups."""
    found: dict[int, _Interface] = {}
    for group in groups:
        if group.ifindex not in names:
            continue
        name = names[group.ifindex]
        if any(character in name for character in '"*\\'):
            raise DriverError("write nft rules", f"nft cannot name the interface {name}")
        found.setdefault(group.ifindex, _Interface(name, group.ifindex)).groups.append(group)
    return list(found.values())


def _holds(group: GateGroup, set_name: str) -> str:
    """Return the test that the group's element is in a set."""
    return f"meta mark and 0x0 or {group.slot + 1:#x} @{set_name}"


def _drop(group: GateGroup) -> str:
    """Return the counted drop."""
    return f"counter name drops_{group.slot} drop"


def _gate_table(groups: Sequence[GateGroup], interfaces: list[_Interface]) -> Table:
    """Return table netdev carpool_gate."""
    chains: dict[str, tuple[str, ...]] = {}
    for group in groups:
        refuse = f"{_UNMARKED} {_drop(group)}"
        holds = _holds(group, "lease")
        chains[f"group_{group.slot}"] = (refuse, f"{holds} return", _drop(group))
        holds = _holds(group, "advert")
        chains[f"advert_{group.slot}"] = (refuse, f"{holds} accept", _drop(group))
    v4 = {int(address): group.slot for group in groups for address in group.v4}
    v6 = {
        int(address): group.slot
        for group in groups
        for address in group.v6
        if not address.is_link_local
    }
    maps = {
        "map v4": _verdicts("@nh,112,32", v4),
        "map v6": _verdicts("@nh,64,128", v6),
        "set senders": ("typeof @nh,112,32", tuple(f"{address:#x}" for address in v4)),
    }
    for interface in interfaces:
        maps |= _interface_maps(interface)
        for hook, rules in (
            ("ingress", _ingress_rules(interface)),
            ("egress", _egress_rules(interface)),
        ):
            chains |= _hook_chain("front", interface, hook, -496, [_CLEAR])
            chains |= _hook_chain("gate", interface, hook, -490, rules)
            chains |= _hook_chain("back", interface, hook, -489, [_CLEAR])
    return Table(
        "netdev",
        GATE_TABLE,
        leases=("lease", "advert"),
        counters=tuple(f"drops_{group.slot}" for group in groups),
        maps=maps,
        chains=chains,
    )


def _interface_maps(interface: _Interface) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the maps whose keys mean something on one interface only."""
    maps = {}
    if interface.macs:
        macs = {
            int.from_bytes(group.virtual_mac, "big"): group.slot
            for group in interface.groups
            if group.virtual_mac is not None
        }
        maps[f"map macs_{interface.ifindex}"] = _verdicts("@ll,0,48", macs)
    if interface.link_locals:
        addresses = {
            int(address): group.slot
            for group in interface.groups
            for address in group.v6
            if address.is_link_local
        }
        maps[f"map v6_{interface.ifindex}"] = _verdicts("@nh,64,128", addresses)
    return maps


def _verdicts(key: str, slots: Mapping[int, int]) -> tuple[str, tuple[str, ...]]:
    """Return a map from keys to the group's chain."""
    elements = tuple(f"{value:#x} : jump group_{slot}" for value, slot in slots.items())
    return f"typeof {key} : verdict", elements


def _hook_chain(
    name: str, interface: _Interface, hook: str, priority: int, rules: list[str]
) -> dict[str, tuple[str, ...]]:
    """Return a chain on a hook of one interface."""
    head = f'type filter hook {hook} device "{interface.name}" priority {priority}; policy accept;'
    return {f"{name}_{hook}_{interface.ifindex}": (head, *rules)}


def _v6_maps(interface: _Interface) -> list[str]:
    """Return the maps a v6 address is looked up in."""
    return ["v6", f"v6_{interface.ifindex}"] if interface.link_locals else ["v6"]


def _ingress_rules(interface: _Interface) -> list[str]:
    """Return the rules for what comes in: the table in gate_contract, ingress lines."""
    rules = [f"@ll,0,48 vmap @macs_{interface.ifindex}"] if interface.macs else []
    rules += [
        # A request from a group's own address is an announcement; no stack answers it.
        f"{_ARP} @nh,48,16 1 @nh,112,32 != @senders @nh,192,32 vmap @v4",
        f"{_IPV4} @nh,128,32 vmap @v4",
    ]
    for name in _v6_maps(interface):
        rules += [
            f"{_IPV6} meta l4proto ipv6-icmp @th,0,8 135 @th,64,128 vmap @{name}",
            f"{_IPV6} @nh,192,128 vmap @{name}",
        ]
    return rules


def _egress_rules(interface: _Interface) -> list[str]:
    """Return the rules for what goes out: the table in gate_contract, egress lines."""
    rules: list[str] = []
    for group in interface.groups:
        head = f"{0x2100 | group.vhid:#06x}"
        leave = f"goto advert_{group.slot}"
        rules += [
            f"{_IPV4} @nh,72,8 112 @nh,160,16 {head} @nh,184,8 7 {leave}",
            f"{_IPV6} @nh,48,8 112 @nh,320,16 {head} @nh,344,8 7 {leave}",
        ]
    if interface.macs:
        rules.append(f"@ll,48,48 vmap @macs_{interface.ifindex}")
    rules += [f"{_ARP} @nh,112,32 vmap @v4", f"{_IPV4} @nh,96,32 vmap @v4"]
    for name in _v6_maps(interface):
        rules += [
            f"{_IPV6} @nh,48,8 58 @nh,320,8 136 @nh,384,128 vmap @{name}",
            f"{_IPV6} @nh,64,128 vmap @{name}",
        ]
    return rules


def _permit_table(interfaces: list[_Interface]) -> Table:
    """Return table netdev carpool_permit."""
    chains: dict[str, tuple[str, ...]] = {}
    for interface in interfaces:
        for hook in ("ingress", "egress"):
            chains |= _hook_chain("permit", interface, hook, -495, [_SET])
    return Table("netdev", PERMIT_TABLE, owned=True, chains=chains)


def _transit_tables(firewalls: list[_Interface]) -> list[Table]:
    """Return the inet tables: forwarded packets pass while any firewall group there is open."""
    outgoing = ", ".join(f'"{interface.name}"' for interface in firewalls)
    chains: dict[str, tuple[str, ...]] = {}
    counters: list[str] = []
    jumps = []
    for interface in firewalls:
        groups = [group for group in interface.groups if group.firewall]
        counters += [f"drops_{group.slot}" for group in groups]
        returns = [f"{_holds(group, 'lease')} return" for group in groups]
        refuse = _drop(groups[0])
        chains[f"out_{interface.ifindex}"] = (f"{_UNMARKED} {refuse}", *returns, refuse)
        jumps.append(f'oifname "{interface.name}" jump out_{interface.ifindex}')
    wash = f"oifname {{ {outgoing} }} {_CLEAR}"
    for name, priority, rules in (
        ("front", -496, [wash]),
        ("gate", -490, jumps),
        ("back", -489, [wash]),
    ):
        chains[name] = (f"type filter hook forward priority {priority}; policy accept;", *rules)
    mark = (
        "type filter hook forward priority -495; policy accept;",
        f"oifname {{ {outgoing} }} {_SET}",
    )
    return [
        Table("inet", GATE_TABLE, leases=("lease",), counters=tuple(counters), chains=chains),
        Table("inet", PERMIT_TABLE, owned=True, chains={"permit": mark}),
    ]
