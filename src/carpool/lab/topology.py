"""A lab's shape as data: hosts, switches, ports in order, and its drawing.

The order of a switch's ports matters: a bridge floods in that order, and one order can hide a
second owner that the other shows (research: the port order hides dual owners).

    alpha  bravo  charlie   client  asker  watcher
      |      |      |          |      |      |
    ==+======+======+==========+======+======+==   the switch of the shared addresses
      |      |      |
    --+------+------+--                            a second network for heartbeats
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

Interface = IPv4Interface | IPv6Interface

SWITCH_HOST: Final = "switch"  # the namespace that holds every bridge
CLIENT: Final = "client"  # asks each millisecond
ASKER: Final = "asker"  # the same with a short memory: asks ARP again each 100 ms
WATCHER: Final = "watcher"  # asks who has the addresses each 5 ms


@dataclass(frozen=True, slots=True)
class Port:
    """One cable: an interface of a host in a switch."""

    host: str
    interface: str
    addresses: tuple[Interface, ...]
    mac: str
    routes: tuple[str, ...] = ()  # destinations that are reached on this link, though foreign to it


@dataclass(frozen=True, slots=True)
class Target:
    """A shared address that clients ask for."""

    group: str
    address: str
    switch: int  # the number of the switch where it lives


@dataclass(frozen=True, slots=True)
class Switch:
    """One network. `ports` are attached in this order."""

    name: str
    ports: tuple[Port, ...]

    def port(self, host: str) -> Port | None:
        """Return the port of `host`, if it is plugged in here."""
        return next((port for port in self.ports if port.host == host), None)


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything the lab builds."""

    nodes: tuple[str, ...]
    clients: tuple[str, ...]
    switches: tuple[Switch, ...]
    targets: tuple[Target, ...]
    left_out: tuple[str, ...] = ()  # what of the operator's file is not played, in sentences
    foreign: tuple[str, ...] = ()  # members that run something else than carpool

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every machine but the switch."""
        return (*self.members, *self.clients)

    @property
    def members(self) -> tuple[str, ...]:
        """Every machine that can hold a shared address."""
        return (*self.nodes, *self.foreign)

    def reversed_ports(self) -> "Topology":
        """Return the same topology with the ports of each switch attached the other way round."""
        return replace(
            self,
            switches=tuple(
                replace(switch, ports=tuple(reversed(switch.ports))) for switch in self.switches
            ),
        )

    def ports_of(self, host: str) -> list[tuple[int, Port]]:
        """Return the cables of `host` with the number of the switch each is in."""
        return [
            (number, port)
            for number, switch in enumerate(self.switches)
            for port in switch.ports
            if port.host == host
        ]

    def owner_names(self) -> dict[str, str]:
        """Return which node has which MAC, for the watcher's answers."""
        return {
            port.mac: port.host
            for switch in self.switches
            for port in switch.ports
            if port.host in self.members
        }


def mac_of(host_number: int, switch_number: int) -> str:
    """Return a locally administered MAC that says who it is ("cp" is 63:70)."""
    return f"02:63:70:00:{switch_number:02x}:{host_number:02x}"


def device(switch_number: int, port_number: int) -> str:
    """Return the switch's own end of a cable. ip abbreviates keywords, so names are odd."""
    return f"sw{switch_number}pt{port_number}"


def bridge(switch_number: int) -> str:
    """Return the bridge device of a switch."""
    return f"sw{switch_number}bri"


def port_device(topology: Topology, switch_number: int, host: str) -> str:
    """Return the switch's end of the cable of `host`; the name does not depend on the order."""
    return device(switch_number, topology.hosts.index(host))


def draw(topology: Topology) -> str:
    """Return the topology as ASCII art, one switch after the other."""
    width = max(len(host) for host in topology.hosts) + 2
    lines = ["".join(host.center(width) for host in topology.hosts).rstrip()]
    for switch in topology.switches:
        lines += _draw_switch(topology, switch, width)
    return "\n".join(lines)


def _draw_switch(topology: Topology, switch: Switch, width: int) -> list[str]:
    hosts = {port.host for port in switch.ports}
    stems = "".join(("|" if host in hosts else "").center(width) for host in topology.hosts)
    line = "".join(("+" if host in hosts else "=").center(width, "=") for host in topology.hosts)
    order = " ".join(port.host for port in switch.ports)
    return [stems.rstrip(), f"{line}  {switch.name}  (ports: {order})"]
