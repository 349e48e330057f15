"""From the configuration to one node's setup: leases, unicast destinations, companions."""

from ipaddress import IPv4Address, ip_address

import pytest

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.config.model import Config
from carpool.election.parameters import DemoteMode, Kind
from carpool.engine.setup import node_setup
from carpool.wire.carp import master_down_ns

STEP_NS = NS_PER_S // 256


def configuration(hot, nodes=("alpha", "bravo", "charlie")):
    """Return a configuration of some nodes with these groups."""
    found = {
        name: {"address": f"192.0.2.{11 + number}", "heartbeat": [f"10.9.9.{1 + number}"]}
        for number, name in enumerate(nodes)
    }
    groups = {
        name: {
            "vhid": number + 1,
            "interface": "eth0",
            "addresses": [f"192.0.2.{100 + number}/24"],
            "nodes": list(nodes),
            "password_file": "/etc/carpool/edge.pass",
            **changes,
        }
        for number, (name, changes) in enumerate(hot.items())
    }
    site = {"name": "example", "secret_file": "/etc/carpool/secret"}
    return Config.model_validate({"site": site, "node": found, "hot": groups})


def setup(changes, node="alpha", gate="bpf", **others):
    """Return the setup of a node for one group with these changes."""
    config = configuration({"edge": changes, **others})
    passwords = dict.fromkeys(config.hot, b"secret")
    return node_setup(config, node, revision="7", passwords=passwords, gate=gate)


@pytest.mark.parametrize(
    ("changes", "node", "gate", "lease_ns"),
    [
        # the others have skew 10 and 20: the earliest of them waits 3 s and 10/256 s
        ({}, "alpha", "bpf", 3 * NS_PER_S + 10 * STEP_NS - 5 * NS_PER_MS),
        ({}, "bravo", "bpf", 3 * NS_PER_S - 5 * NS_PER_MS),
        ({}, "charlie", "nft", 3 * NS_PER_S - 20 * NS_PER_MS),
        ({"margin": "50ms"}, "bravo", "bpf", 3 * NS_PER_S - 50 * NS_PER_MS),
        # 100 ms is advskew 26; the next rank 27; three times that at advbase 0
        ({"interval": "100ms"}, "alpha", "bpf", 3 * 27 * STEP_NS - 5 * NS_PER_MS),
        ({"interval": "100ms"}, "charlie", "nft", 3 * 26 * STEP_NS - 20 * NS_PER_MS),
        (
            {"node": {"bravo": {"advskew": 4}}},
            "alpha",
            "bpf",
            3 * NS_PER_S + 4 * STEP_NS - 5_000_000,
        ),
    ],
)
def test_lease(changes, node, gate, lease_ns):
    """The lease ends a margin before the earliest take-over of any other member."""
    group = setup(changes, node, gate).group("edge")
    assert group.parameters.lease_ns == lease_ns
    waits = [master_down_ns(member.advbase, member.advskew) for member in group.parameters.members]
    assert group.parameters.margin_ns == min(waits) - lease_ns


def test_lease_with_a_foreign_member():
    """A declared foreign member counts with its own numbers."""
    peer = {"kind": "openbsd", "unicast": "192.0.2.99", "advbase": 1, "advskew": 2}
    group = setup({"peers": [peer]}).group("edge")
    assert group.parameters.lease_ns == 3 * NS_PER_S + 2 * STEP_NS - 5 * NS_PER_MS
    assert group.parameters.foreign
    assert group.peers == (("192.0.2.99", Kind.OPENBSD),)
    assert group.unicast == (IPv4Address("192.0.2.99"),)
    member = group.parameters.members[-1]
    assert (member.name, member.advskew, member.rank) == ("192.0.2.99", 2, 3)


def test_lease_with_a_foreign_member_of_unknown_numbers():
    """One that declares nothing is taken for the most eager."""
    group = setup({"peers": [{"kind": "ucarp"}]}, "alpha").group("edge")
    assert group.parameters.lease_ns == 3 * NS_PER_S - 5 * NS_PER_MS
    assert group.parameters.members[-1].name == "ucarp-0"


def test_members_and_numbers():
    """The node itself is no member; ranks and skews follow `nodes`."""
    found = setup({"demote": "freebsd", "preempt": False, "preempt_delay": "2s"}, "bravo")
    parameters = found.group("edge").parameters
    assert [(m.name, m.advskew, m.rank) for m in parameters.members] == [
        ("alpha", 0, 0),
        ("charlie", 20, 2),
    ]
    assert (parameters.advskew, parameters.rank) == (10, 1)
    assert parameters.demote_mode is DemoteMode.FREEBSD
    assert (parameters.preempt, parameters.preempt_delay_ns) == (False, 2 * NS_PER_S)
    assert found.nodes[0] == ("alpha", ("192.0.2.11", "10.9.9.1"))


def test_unicast():
    """With unicast the advertisements go to the first address of each family of each member."""
    group = setup({"transport": "unicast"}, "bravo").group("edge")
    assert not group.multicast
    assert group.unicast == (ip_address("192.0.2.11"), ip_address("192.0.2.13"))


def test_interfaces_and_mac():
    """The interface may differ on a node; a virtual MAC comes from the vhid."""
    group = setup({"node": {"alpha": {"interface": "ens3"}}, "mac": "virtual"}).group("edge")
    assert group.interface == "ens3"
    assert group.virtual_mac == bytes.fromhex("00005e000101")
    assert setup({}).group("edge").virtual_mac is None


def test_moves_with():
    """`with` is made symmetric and transitive; groups that are tied to none stay alone."""
    found = setup({"with": ["two"]}, two={}, three={"with": ["two"]}, four={})
    together = {group.name: group.moves_with for group in found.groups}
    assert together == {
        "edge": ("three", "two"),
        "two": ("edge", "three"),
        "three": ("edge", "two"),
        "four": (),
    }


def test_groups_of_other_nodes():
    """A node has only the groups that name it."""
    found = setup({"nodes": ["bravo", "charlie"]}, "alpha")
    assert found.groups == ()
    assert found.group("edge") is None
