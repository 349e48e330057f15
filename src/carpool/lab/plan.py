"""From an operator's configuration to the lab's topology. Pure.

Interfaces that serve the same group are on one network, and so are groups that share an interface;
every further path of the peer link (`heartbeat`) is a network of its own, unless its address lies
in a network where the node serves a group. Clients are plugged into the networks of the groups,
with addresses that nobody else uses there.
"""

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_interface,
)
from typing import Final

from carpool.config.model import Config, interface_of
from carpool.lab.topology import (
    ASKER,
    CLIENT,
    WATCHER,
    Interface,
    Port,
    Switch,
    Target,
    Topology,
    mac_of,
)
from carpool.lab.waiting import LabError

CLIENTS: Final = (CLIENT, ASKER, WATCHER)
GUESSED_PREFIX: Final = {4: 24, 6: 64}  # of a path's network: the file does not say it
HOSTS_TRIED_MAX: Final = 4096  # addresses looked at for a free one

Place = tuple[str, str]  # node, interface


def networks(config: Config) -> list[dict[str, str]]:
    """Return the networks of the groups: for each, the interface of every node in it."""
    found: list[set[Place]] = []
    for group, hot in config.hot.items():
        places = {(node, interface_of(config, group, node)) for node in hot.nodes}
        joined = [each for each in found if each & places]
        found = [each for each in found if not each & places]
        found.append(places.union(*joined))
    return [_one_interface_each(places) for places in found]


def _one_interface_each(places: set[Place]) -> dict[str, str]:
    result: dict[str, str] = {}
    for node, interface in sorted(places):
        if node in result:
            raise LabError(f"{node} would have two cables in one network; the lab cannot play that")
        result[node] = interface
    return result


def topology_of(config: Config, foreign: tuple[str, ...] = ()) -> Topology:
    """Return the topology that plays `config`, with `foreign` members in every group's network.

    Raises LabError for what the lab cannot build.
    """
    nodes = tuple(config.node)
    lans = networks(config)
    if not lans:
        raise LabError("there is no [hot] group to play")
    hosts = [*nodes, *foreign, *CLIENTS]
    targets = _targets(config, lans)
    switches = [_lan(config, lans, number, hosts) for number in range(len(lans))]
    switches += _heartbeat_switches(config, lans, hosts, switches)
    return Topology(nodes, CLIENTS, tuple(switches), targets, _left_out(config, foreign), foreign)


def _targets(config: Config, lans: list[dict[str, str]]) -> tuple[Target, ...]:
    """Return the first address of each family of each group."""
    targets = []
    for group, hot in config.hot.items():
        number = _lan_of(config, lans, group)
        for version in (4, 6):
            first = next((each for each in hot.addresses if each.version == version), None)
            if first is not None:
                targets.append(Target(group, str(first.ip), number))
    return tuple(targets)


def _lan_of(config: Config, lans: list[dict[str, str]], group: str) -> int:
    node = config.hot[group].nodes[0]
    interface = interface_of(config, group, node)
    return next(number for number, lan in enumerate(lans) if lan.get(node) == interface)


def _shared(config: Config, lans: list[dict[str, str]], number: int) -> list[Interface]:
    """Return every shared address of one network."""
    return [
        address
        for group, hot in config.hot.items()
        if _lan_of(config, lans, group) == number
        for address in hot.addresses
    ]


def _home(config: Config, lans: list[dict[str, str]], node: str) -> int:
    """Return the network in which `node` has its address: where a group's network holds it."""
    found = _lan_with(config, lans, node, config.node[node].address)
    if found is None:
        return next((number for number, lan in enumerate(lans) if node in lan), 0)
    return found


def _lan_with(
    config: Config, lans: list[dict[str, str]], node: str, address: IPv4Address | IPv6Address
) -> int | None:
    """Return the network of a group of `node` that holds `address`, None if there is none."""
    for number, lan in enumerate(lans):
        shared = _shared(config, lans, number) if node in lan else []
        if any(address in each.network for each in shared):
            return number
    return None


def _lan(config: Config, lans: list[dict[str, str]], number: int, hosts: list[str]) -> Switch:
    shared = _shared(config, lans, number)
    wide = [each for each in shared if each.network.num_addresses > 1]
    ports = []
    for node, each in config.node.items():
        at_home = _home(config, lans, node) == number
        interface = lans[number].get(node, "eth0" if at_home else "")
        if interface:
            own = [each.address] if at_home else []
            own += [it for it in each.heartbeat if _lan_with(config, lans, node, it) == number]
            addresses = [_with_prefix(it, wide) for it in own]
            mac = mac_of(hosts.index(node), number)
            ports.append(Port(node, interface, tuple(addresses), mac))
    ports.sort(key=lambda port: hosts.index(port.host))
    taken = {address.ip for address in shared} | {
        address.ip for port in ports for address in port.addresses
    }
    owned = [address for port in ports for address in port.addresses]
    routes = tuple(
        str(address.ip)
        for address in shared
        if not any(address.ip in each.network for each in [*wide, *owned])
    )
    for host in hosts[len(config.node) :]:
        free = tuple(_free_addresses([*wide, *owned], taken))
        taken |= {address.ip for address in free}
        mac = mac_of(hosts.index(host), number)
        ports.append(Port(host, f"eth{number}", free, mac, routes))
    return Switch(f"lan{number}", tuple(ports))


def _with_prefix(address: IPv4Address | IPv6Address, shared: Iterable[Interface]) -> Interface:
    prefix = next(
        (each.network.prefixlen for each in shared if address in each.network),
        GUESSED_PREFIX[address.version],
    )
    return ip_interface(f"{address}/{prefix}")


def _free_addresses(
    around: Iterable[Interface], taken: set[IPv4Address | IPv6Address]
) -> list[Interface]:
    """Return one unused address in each network of `around`, from the network's end."""
    found: list[Interface] = []
    for network in dict.fromkeys(each.network for each in around):
        last = int(network.network_address) + min(network.num_addresses, 1 << 16) - 2
        kind = IPv4Interface if network.version == 4 else IPv6Interface
        for value in range(last, max(last - HOSTS_TRIED_MAX, int(network.network_address)), -1):
            candidate = kind((value, network.prefixlen))
            if candidate.ip not in taken:
                found.append(candidate)
                break
        else:
            raise LabError(f"no free address for a client in {network}")
    return found


def _heartbeat_switches(
    config: Config, lans: list[dict[str, str]], hosts: list[str], lan_switches: Sequence[Switch]
) -> list[Switch]:
    """Return the networks of the further paths: the first ones together, the second ones..."""
    paths: dict[int, dict[str, IPv4Address | IPv6Address]] = {}
    for name, node in config.node.items():
        for path, address in enumerate(node.heartbeat):
            if _lan_with(config, lans, name, address) is None:
                paths.setdefault(path, {})[name] = address
    ports_used = [port for switch in lan_switches for port in switch.ports]
    used = {port.interface for port in ports_used if port.host in config.node}
    spare = [f"eth{number}" for number in range(len(used) + len(paths))]
    spare = [name for name in spare if name not in used]
    switches = []
    for place, path in enumerate(sorted(paths)):
        number = len(lans) + place
        ports = tuple(
            Port(name, spare[place], (_with_prefix(it, ()),), mac_of(hosts.index(name), number))
            for name, it in paths[path].items()
        )
        switches.append(Switch(f"heartbeat{place}", ports))
    return switches


def _left_out(config: Config, foreign: tuple[str, ...]) -> tuple[str, ...]:
    if foreign:
        return ()
    return tuple(
        f"{group}: the foreign member {f'{peer.unicast} ' if peer.unicast else ''}({peer.kind})"
        " is not played"
        for group, hot in config.hot.items()
        for peer in hot.peers
    )
