"""From configurations to topologies."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from carpool.lab import site
from carpool.lab.example import EXAMPLE
from carpool.lab.plan import topology_of
from carpool.lab.site import Shape
from carpool.lab.topology import Topology, draw

EXAMPLES = Path(__file__).parents[3] / "examples"


def topology(shape: Shape) -> Topology:
    """Return the topology of a shape."""
    return topology_of(site.load(site.text_of(shape), "test"))


def test_example_is_the_shipped_one() -> None:
    """The example built into the lab is the file of the examples' folder, word for word."""
    assert (EXAMPLES / "three-nodes.toml").read_text() == EXAMPLE


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_every_example_has_a_topology(name: str) -> None:
    """Each shipped example can be played, every node with a cable and every target asked."""
    text = (EXAMPLES / name).read_text()
    found = topology_of(site.load(text, name))
    assert found.targets
    assert all(found.ports_of(node) for node in found.nodes)
    addresses = [
        address.ip
        for switch in found.switches
        for port in switch.ports
        for address in port.addresses
    ]
    assert len(addresses) == len(set(addresses))


def test_three_nodes() -> None:
    """One network for the addresses with clients in it, one for heartbeats without."""
    found = topology(Shape())
    assert [switch.name for switch in found.switches] == ["lan0", "heartbeat0"]
    lan, heartbeat = found.switches
    assert [port.host for port in lan.ports] == [
        "alpha",
        "bravo",
        "charlie",
        "client",
        "asker",
        "watcher",
    ]
    assert [port.interface for port in heartbeat.ports] == ["eth1"] * 3
    assert [target.address for target in found.targets] == ["192.0.2.10", "2001:db8::10"]


def test_clients_do_not_take_used_addresses() -> None:
    """A client's address is in the shared network and nobody else's."""
    found = topology(Shape(addresses=("192.0.2.254/24", "192.0.2.253/24")))
    client = found.switches[0].port("client")
    assert client is not None
    assert [str(address) for address in client.addresses] == ["192.0.2.252/24"]


def test_host_route_address_gets_a_route() -> None:
    """A shared address outside of every network on the link is reached by a route of its own."""
    found = topology(Shape(addresses=("198.51.100.7/32",)))
    client = found.switches[0].port("client")
    assert client is not None
    assert client.routes == ("198.51.100.7",)
    assert client.addresses[0].network.prefixlen == 24


def test_reversed_ports() -> None:
    """The reversed topology attaches the same ports the other way round, nothing else."""
    found = topology(Shape())
    turned = found.reversed_ports()
    assert turned.switches[0].ports[0].host == "watcher"
    assert set(turned.switches[0].ports) == set(found.switches[0].ports)
    assert turned.reversed_ports() == found


def test_foreign_members_have_ports() -> None:
    """A member that is not carpool gets a cable, an address and an owner's name."""
    shape = Shape(nodes=("alpha",), addresses=("192.0.2.10/24",))
    found = topology_of(site.load(site.text_of(shape), "test"), ("uma",))
    port = found.switches[0].port("uma")
    assert port is not None
    assert found.owner_names()[port.mac] == "uma"
    assert ip_address("192.0.2.10") not in [address.ip for address in port.addresses]


def test_macs_are_unique_and_named() -> None:
    """No two ports have one MAC, and each node's MAC says whose it is."""
    found = topology(Shape())
    macs = [port.mac for switch in found.switches for port in switch.ports]
    assert len(macs) == len(set(macs))
    assert set(found.owner_names().values()) == {"alpha", "bravo", "charlie"}


def test_drawing_shows_every_host_and_order() -> None:
    """The drawing names every host, every network and the order of its ports."""
    art = draw(topology(Shape()))
    for word in ("alpha", "watcher", "lan0", "(ports: alpha bravo charlie)"):
        assert word in art
    assert max(len(line) for line in art.splitlines()) < 120


def test_heartbeat_in_the_network_of_a_group_is_no_further_network() -> None:
    """A path through a group's network uses that group's cable, whatever each node calls it."""
    text = (EXAMPLES / "firewall-pair.toml").read_text()
    found = topology_of(site.load(text, "firewall-pair"))
    assert [switch.name for switch in found.switches] == ["lan0", "lan1", "heartbeat0"]
    cables = {
        host: [(port.interface, [str(each) for each in port.addresses]) for _, port in ports]
        for host, ports in ((host, found.ports_of(host)) for host in found.nodes)
    }
    assert cables == {
        "north": [
            ("eth0", ["198.51.100.2/24"]),
            ("eth1", ["10.0.0.2/24"]),
            ("eth2", ["10.9.9.1/24"]),
        ],
        "south": [
            ("eth0", ["198.51.100.3/24"]),
            ("ens4", ["10.0.0.3/24"]),
            ("eth2", ["10.9.9.2/24"]),
        ],
    }


def test_foreign_member_without_an_address_is_named_by_its_kind() -> None:
    """What is not played is said in a sentence without a hole."""
    found = topology_of(site.load((EXAMPLES / "mixed-bsd.toml").read_text(), "mixed-bsd"))
    assert found.left_out == (
        "with-openbsd: the foreign member (openbsd) is not played",
        "with-freebsd: the foreign member 192.0.2.13 (freebsd) is not played",
        "with-ucarp: the foreign member (ucarp) is not played",
    )
