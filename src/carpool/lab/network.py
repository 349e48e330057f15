"""A topology built in a lab, and everything that can be done to its cables.

Unplug and plug take and give the carrier; partition, one-way cut and loss drop frames inside the
switch while every carrier stays.
"""

from collections.abc import Iterable, Sequence

from carpool.lab import faults, wiring
from carpool.lab.netns import Lab
from carpool.lab.shell import ip_batch
from carpool.lab.topology import SWITCH_HOST, Port, Topology, bridge, port_device
from carpool.lab.waiting import LabError


class Network:
    """The switches of a lab."""

    def __init__(self, lab: Lab, topology: Topology) -> None:
        self.lab = lab
        self.topology = topology

    def build(self) -> None:
        """Make every namespace, cable and switch."""
        for host in (SWITCH_HOST, *self.topology.hosts):
            self.lab.add_host(host)
        names = self.lab.registry.namespaces
        ip_batch(wiring.cable_lines(self.topology, names))
        ip_batch(wiring.switch_lines(self.topology), namespace=names[SWITCH_HOST])
        for host in self.topology.hosts:
            ip_batch(wiring.host_lines(self.topology, host), namespace=names[host])

    def unplug(self, host: str, interface: str = "") -> list[str]:
        """Pull the cables of `host` (all, or the one of `interface`); return the interfaces."""
        return self._set_ports(host, interface, "down")

    def plug(self, host: str, interface: str = "") -> list[str]:
        """Plug the cables of `host` in again; return the interfaces."""
        return self._set_ports(host, interface, "up")

    def _set_ports(self, host: str, interface: str, state: str) -> list[str]:
        ports = [
            (number, port)
            for number, port in self.topology.ports_of(host)
            if interface in ("", port.interface)
        ]
        if not ports:
            raise LabError(f"{host} has no cable {interface}".rstrip())
        ip_batch(
            [
                f"link set dev {port_device(self.topology, number, host)} {state}"
                for number, port in ports
            ],
            namespace=self.lab.namespace(SWITCH_HOST),
        )
        return [port.interface for _, port in ports]

    def remove_cable(self, host: str, interface: str) -> None:
        """Take a cable away altogether: the interface is gone from `host`."""
        number, _ = self._cable(host, interface)
        name = port_device(self.topology, number, host)
        ip_batch([f"link del dev {name}"], namespace=self.lab.namespace(SWITCH_HOST))

    def restore_cable(self, host: str, interface: str) -> None:
        """Put a removed cable back: an interface of the same name, with the host's addresses."""
        number, port = self._cable(host, interface)
        names = self.lab.registry.namespaces
        ip_batch([wiring.cable_line(self.topology, number, port, names)])
        name = port_device(self.topology, number, host)
        ip_batch(wiring.plug_lines([name], bridge(number)), namespace=names[SWITCH_HOST])
        ip_batch(wiring.port_lines(port), namespace=names[host])

    def _cable(self, host: str, interface: str) -> tuple[int, Port]:
        for number, port in self.topology.ports_of(host):
            if port.interface == interface:
                return number, port
        raise LabError(f"{host} has no cable {interface}")

    def flood_order(self, switch_number: int = 0) -> list[str]:
        """Return the hosts of a switch in the order in which their ports were attached."""
        listing = self.lab.run(
            SWITCH_HOST, ["ls", f"/sys/class/net/{bridge(switch_number)}/brif"]
        ).split()
        numbered = {
            int(
                self.lab.run(
                    SWITCH_HOST,
                    ["cat", f"/sys/class/net/{bridge(switch_number)}/brif/{name}/port_no"],
                ),
                16,
            ): name
            for name in listing
        }
        devices = {
            port_device(self.topology, switch_number, port.host): port.host
            for port in self.topology.switches[switch_number].ports
        }
        return [devices[numbered[number]] for number in sorted(numbered)]

    def partition(self, sides: Iterable[Sequence[str]], switches: Sequence[int] = ()) -> None:
        """Let no frame pass between nodes of different sides; clients still reach everybody."""
        self.cut(faults.partition_pairs(sides), switches)

    def cut(self, pairs: Iterable[tuple[str, str]], switches: Sequence[int] = ()) -> None:
        """Drop frames from the first to the second host of each pair (one way)."""
        numbers = switches or range(len(self.topology.switches))
        cuts = self.lab.registry.cuts
        for source, target in pairs:
            for number in numbers:
                each = self.topology.switches[number]
                if each.port(source) and each.port(target):
                    cut = [
                        port_device(self.topology, number, source),
                        port_device(self.topology, number, target),
                    ]
                    if cut not in cuts:
                        cuts.append(cut)
        self._apply()

    def lose(self, host: str, share: float, switch_number: int = 0) -> None:
        """Drop this share (0..1) of the frames that `host` sends into the switch."""
        name = port_device(self.topology, switch_number, host)
        self.lab.registry.losses[name] = share
        self._apply()

    def heal(self) -> None:
        """Take back every cut and loss."""
        self.lab.registry.cuts.clear()
        self.lab.registry.losses.clear()
        self._apply()

    def _apply(self) -> None:
        self.lab.save()
        registry = self.lab.registry
        self.lab.run(
            SWITCH_HOST, ["nft", "-f", "-"], text=faults.rules(registry.cuts, registry.losses)
        )
