"""From a topology to the commands of the ip tool that build it. Pure text; `network` runs it.

A cable is a veth pair: one end is the host's interface, the other a port of the bridge in the
switch's namespace. Setting the switch's end down takes the carrier from the host, as pulling the
cable does.
"""

from collections.abc import Mapping

from carpool.lab.topology import (
    SWITCH_HOST,
    Port,
    Topology,
    bridge,
    port_device,
)


def cable_lines(topology: Topology, namespaces: Mapping[str, str]) -> list[str]:
    """Return the commands that make every cable, run outside of all namespaces."""
    return [
        cable_line(topology, number, port, namespaces)
        for number, each in enumerate(topology.switches)
        for port in each.ports
    ]


def cable_line(
    topology: Topology, switch_number: int, port: Port, namespaces: Mapping[str, str]
) -> str:
    """Return the command that makes one cable."""
    return (
        f"link add name {port.interface} address {port.mac} netns {namespaces[port.host]} "
        f"type veth peer name {port_device(topology, switch_number, port.host)} "
        f"netns {namespaces[SWITCH_HOST]}"
    )


def switch_lines(topology: Topology) -> list[str]:
    """Return the commands for the switch's namespace: bridges, then ports in their order."""
    lines: list[str] = []
    for number, each in enumerate(topology.switches):
        name = bridge(number)
        lines.append(
            f"link add name {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        )
        lines.append(f"link set dev {name} addrgenmode none up")
        lines += plug_lines([port_device(topology, number, port.host) for port in each.ports], name)
    return lines


def plug_lines(devices: list[str], bridge_name: str) -> list[str]:
    """Return the commands that attach ports to a bridge, in this order."""
    return [
        line
        for name in devices
        for line in (
            f"link set dev {name} addrgenmode none",
            f"link set dev {name} master {bridge_name} up",
        )
    ]


def host_lines(topology: Topology, host: str) -> list[str]:
    """Return the commands for the namespace of `host`: addresses and interfaces up."""
    return [line for _, port in topology.ports_of(host) for line in port_lines(port)]


def port_lines(port: Port) -> list[str]:
    """Return the commands for the host's end of one cable."""
    lines = [f"link set dev {port.interface} up"]
    lines += [
        f"address add {address} dev {port.interface}{' nodad' if address.version == 6 else ''}"
        for address in port.addresses
    ]
    return lines + [f"route add {route} dev {port.interface}" for route in port.routes]
