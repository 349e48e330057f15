"""The configuration as a frozen value: the schema, the validator and the manual's source.

Follows DESIGN 3 (`[site] [node.*] [hot.*]`) and STYLE 21. A key that the file spells like a word of
Python (`with`) or that is a duration has another name here: `with_groups`, `interval_ns`,
`preempt_delay_ns`, `margin_ns`. `parse.parse` makes a Config from text and applies the rules across
fields; nothing else should construct one.
"""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from carpool.base.time import NS_PER_S
from carpool.config.fields import (
    Address,
    Carp,
    Duration,
    FilePath,
    GroupKey,
    Interface,
    IPAddress,
    Name,
    Off,
    SharedAddress,
)

NODES_MAX: Final = 64  # every node keeps links to every other: 64 nodes are 2016 of them already
GROUPS_MAX: Final = 255  # as many as CARP has virtual host ids on one network
ADDRESSES_MAX: Final = 2000  # of a group; 2000 IPv4 addresses take the kernel 90 ms, IPv6 far more
HEARTBEATS_MAX: Final = 8  # paths beside `address`; more links add traffic and no safety
PEERS_MAX: Final = 32  # foreign members of a group
PORT_DEFAULT: Final = 7112

Kind: TypeAlias = Literal["openbsd", "freebsd", "netbsd", "ucarp", "carpool"]


class _Table(BaseModel):
    """A table of the file: frozen, and no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Site(_Table):
    """The whole installation; equal on every node."""

    name: Name = Field(
        description="Name of the site, shown by status and checked by the peer link."
    )
    secret_file: FilePath | None = Field(
        default=None,
        description='Keys of the peer link: lines "id key". Needed as soon as there are two nodes.',
    )


class Node(_Table):
    """A machine that runs carpoold."""

    address: Address = Field(description="Where the other nodes reach this one.")
    heartbeat: Annotated[tuple[Address, ...], Field(max_length=HEARTBEATS_MAX)] = Field(
        default=(),
        description="Further paths to this node: a cross-over cable, the management network. "
        "The first one of each node belong together, then the second ones.",
    )
    port: Annotated[StrictInt, Field(ge=1, le=65535)] = Field(
        default=PORT_DEFAULT, description="TCP port of the peer link."
    )


class Peer(_Table):
    """A member of a group that carpool does not run: declared, because the lease depends on it."""

    kind: Kind = Field(description="What it runs.")
    unicast: Address | None = Field(
        default=None, description="Its address, if it takes part by unicast (carppeer)."
    )
    advbase: Annotated[StrictInt, Field(ge=0, le=255)] | None = Field(
        default=None, description="Its advbase; the group's if not given."
    )
    advskew: Annotated[StrictInt, Field(ge=0, le=254)] | None = Field(
        default=None, description="Its advskew; 0, the most eager, if not given."
    )


class HotOverride(_Table):
    """What is different on one node of a group."""

    interface: Interface | None = Field(default=None, description="The interface on this node.")
    advskew: Annotated[StrictInt, Field(ge=0, le=254)] | None = Field(
        default=None, description="The advskew of this node, instead of the one of its rank."
    )


class Hot(_Table):
    """Shared addresses that move together."""

    protocol: Carp = Field(default="carp", description="The protocol of the election.")
    vhid: Annotated[StrictInt, Field(ge=1, le=255)] = Field(
        description="Virtual host id: one number for a group on its network."
    )
    interface: Interface = Field(description="Where the addresses live.")
    addresses: Annotated[
        tuple[SharedAddress, ...], Field(min_length=1, max_length=ADDRESSES_MAX)
    ] = Field(description="The shared addresses, each with the prefix length.")
    nodes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=NODES_MAX)] = Field(
        description="The members, best first: rank k has advskew 10 k (below 1 s: base skew + k)."
    )
    password_file: FilePath = Field(
        description="CARP's password: at most 20 bytes (19 with ucarp); never a key of the site."
    )
    peers: Annotated[tuple[Peer, ...], Field(max_length=PEERS_MAX)] = Field(
        default=(), description="Members that carpool does not run."
    )
    interval_ns: Duration = Field(
        default=NS_PER_S,
        alias="interval",
        description="Time between two advertisements: whole seconds to 255 s, or less than 1 s.",
    )
    sealed: Off = Field(default="off", description="Sealed groups are not in this version.")
    mac: Literal["interface", "virtual"] = Field(
        default="interface", description="Which MAC address answers for the shared addresses."
    )
    preempt: StrictBool = Field(
        default=True, description="A better node takes the addresses back when it returns."
    )
    preempt_delay_ns: Duration = Field(
        default=0, alias="preempt_delay", description="How long a returned node waits for that."
    )
    demote: Literal["openbsd", "freebsd"] = Field(
        default="openbsd",
        description="How a demotion is told: in its own byte (openbsd) or in advskew (freebsd).",
    )
    with_groups: tuple[GroupKey, ...] = Field(
        default=(),
        alias="with",
        description="Groups that must be master on the same node (a firewall's two sides).",
    )
    margin_ns: Duration | None = Field(
        default=None,
        alias="margin",
        description="How long before the earliest take-over the gate shuts; "
        "5ms (BPF gate) or 20ms (nft gate) if not given.",
    )
    transport: Literal["multicast", "unicast"] = Field(
        default="multicast",
        description="Advertisements go to CARP's multicast group, or to every member and peer.",
    )
    gate: Literal["auto", "bpf", "nft"] = Field(
        default="auto", description="What holds the lease in the kernel."
    )
    firewall: StrictBool = Field(
        default=False, description="The gate covers transit traffic as well: this is a router."
    )
    node: dict[Name, HotOverride] = Field(
        default_factory=dict, description="What is different on one node."
    )


class Config(_Table):
    """The whole file."""

    site: Site
    node: Annotated[dict[Name, Node], Field(min_length=1, max_length=NODES_MAX)]
    hot: Annotated[dict[GroupKey, Hot], Field(max_length=GROUPS_MAX)] = Field(default_factory=dict)


def interface_of(config: Config, group: str, node: str) -> str:
    """Return the interface on which `node` serves `group`."""
    return interface_on(config.hot[group], node)


def interface_on(hot: Hot, node: str) -> str:
    """Return the interface on which `node` serves `hot`."""
    override = hot.node.get(node)
    return hot.interface if override is None or override.interface is None else override.interface


def address_in_family(node: Node, version: int) -> IPAddress | None:
    """Return the first path address of `node` in IP version 4 or 6, None if it has none."""
    for address in (node.address, *node.heartbeat):
        if address.version == version:
            return address
    return None


def foreign_peers(hot: Hot, kind: Kind) -> tuple[Peer, ...]:
    """Return the declared foreign members of one kind."""
    return tuple(peer for peer in hot.peers if peer.kind == kind)
