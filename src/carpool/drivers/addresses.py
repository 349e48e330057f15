"""Addresses on interfaces: list them, and add or remove many shared ones quickly.

Adding is the slow part of a take-over (a thousand IPv6 addresses cost the kernel quadratic time),
so messages are made beforehand (`plan_addresses`) and sent in chunks; after each chunk the caller
may announce it. IPv6 addresses come without duplicate detection (the election has decided) and
deprecated (never chosen as a source by themselves). Follows rtnetlink(7), RFC 4862 5.5.4.
"""

import errno
import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)
from typing import Final, TypeAlias

from carpool.drivers.netlink import (
    ADDRESS_HEADER,
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_CACHEINFO,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_FLAGS,
    IFA_LOCAL,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
    SCOPE_LINK,
    SCOPE_UNIVERSE,
    AnyAddress,
    InterfaceAddress,
    decode_address,
)
from carpool.drivers.netlink_socket import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
)
from carpool.drivers.sysctl import Sysctls, interface_setting

CHUNK: Final = 128  # addresses between two announcements: some 5 ms of work
FOREVER: Final = 0xFFFF_FFFF  # an address lifetime without end

AnyInterface: TypeAlias = IPv4Interface | IPv6Interface
AnyNetwork: TypeAlias = IPv4Network | IPv6Network

_GONE: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})  # with the interface the address


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Addresses of one interface with their messages, ready to be sent."""

    ifindex: int
    addresses: tuple[AnyInterface, ...]
    additions: tuple[Request, ...]
    removals: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class AddressRefused:
    """An address that the kernel would not add or remove."""

    address: AnyAddress
    reason: str


def plan_addresses(
    ifindex: int,
    addresses: Sequence[AnyInterface],
    present: Iterable[InterfaceAddress] = (),
) -> AddressPlan:
    """Make the messages that add and remove `addresses`.

    present: what the interface, and where it is a macvlan its parent, carries now. A network that
    already has a route there (the parent's, or one that NetworkManager made itself) gets no second
    one. Removal runs backwards: a thousand IPv4 addresses whose oldest goes first, and promotes the
    next each time, cost 3.4 s instead of 8 ms.
    """
    shared = {address.ip for address in addresses}
    routed = _routed_networks(ifindex, (item for item in present if item.address not in shared))
    return AddressPlan(
        ifindex=ifindex,
        addresses=tuple(addresses),
        additions=tuple(
            _addition(ifindex, address, route=address.network not in routed)
            for address in addresses
        ),
        removals=tuple(_removal(ifindex, address) for address in reversed(addresses)),
    )


def split(plan: AddressPlan, size: int = CHUNK) -> list[AddressPlan]:
    """Return the plan in parts of at most `size` addresses, to be added first to last.

    Remove them last to first. Between two parts the caller can do something more urgent.
    """
    total = len(plan.addresses)
    return [
        AddressPlan(
            ifindex=plan.ifindex,
            addresses=plan.addresses[start : start + size],
            additions=plan.additions[start : start + size],
            removals=plan.removals[max(0, total - start - size) : total - start],
        )
        for start in range(0, total, size)
    ]


def _routed_networks(ifindex: int, present: Iterable[InterfaceAddress]) -> Collection[AnyNetwork]:
    """Return the networks that have a route which our address neither needs nor shares."""
    return {
        ip_network((item.address, item.prefix_length), strict=False)
        for item in present
        if item.ifindex != ifindex or item.flags & IFA_F_NOPREFIXROUTE
    }


def _addition(ifindex: int, address: AnyInterface, *, route: bool) -> Request:
    """Return the message that adds one address, or sets right what is there."""
    length = address.network.prefixlen
    packed = address.ip.packed
    scope = SCOPE_LINK if address.ip.is_link_local else SCOPE_UNIVERSE
    flags = 0 if route else IFA_F_NOPREFIXROUTE
    if isinstance(address, IPv4Interface):
        body = ADDRESS_HEADER.pack(AF_INET, length, 0, scope, ifindex)
        body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        if length < 31:  # RFC 3021: a /31 has no broadcast address
            body += attribute(IFA_BROADCAST, address.network.broadcast_address.packed)
    else:
        flags |= IFA_F_NODAD
        body = ADDRESS_HEADER.pack(AF_INET6, length, 0, scope, ifindex)
        body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        # Preferred 0 s = deprecated; valid for ever; the two time stamps are the kernel's.
        body += attribute(IFA_CACHEINFO, struct.pack("=4I", 0, FOREVER, 0, 0))
    body += attribute(IFA_FLAGS, struct.pack("=I", flags))
    return RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body


def _removal(ifindex: int, address: AnyInterface) -> Request:
    """Return the message that removes one address."""
    family = AF_INET if isinstance(address, IPv4Interface) else AF_INET6
    body = ADDRESS_HEADER.pack(family, address.network.prefixlen, 0, 0, ifindex)
    return RTM_DELADDR, 0, body + attribute(IFA_LOCAL, address.ip.packed)


def add_addresses(
    netlink: NetlinkSocket,
    plan: AddressPlan,
    after_chunk: Callable[[Sequence[AnyInterface]], None] | None = None,
) -> list[AddressRefused]:
    """Add the planned addresses in chunks; one that is there already is fine.

    after_chunk: called with the addresses of each chunk once they stand (refused ones left out).
    Raises DriverError when the kernel does not answer.
    """
    fine = frozenset({0, errno.EEXIST})
    pairs = list(zip(plan.addresses, plan.additions, strict=True))
    return _carry_out(netlink, pairs, fine, after_chunk)


def remove_addresses(netlink: NetlinkSocket, plan: AddressPlan) -> list[AddressRefused]:
    """Remove the planned addresses; one that is gone already is fine.

    Raises DriverError when the kernel does not answer.
    """
    pairs = list(zip(reversed(plan.addresses), plan.removals, strict=True))
    return _carry_out(netlink, pairs, _GONE | {0}, None)


def _carry_out(
    netlink: NetlinkSocket,
    pairs: Sequence[tuple[AnyInterface, Request]],
    fine: Collection[int],
    after_chunk: Callable[[Sequence[AnyInterface]], None] | None,
) -> list[AddressRefused]:
    """Send the requests chunk by chunk and collect what was refused."""
    refused: list[AddressRefused] = []
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        codes = netlink.batch([request for _, request in chunk], attempted="change addresses")
        done: list[AnyInterface] = []
        for (address, _), code in zip(chunk, codes, strict=True):
            if code in fine:
                done.append(address)
            else:
                refused.append(AddressRefused(address.ip, os.strerror(code)))
        if after_chunk is not None and done:
            after_chunk(done)
    return refused


def addresses(netlink: NetlinkSocket, ifindex: int = 0) -> list[InterfaceAddress]:
    """Return the addresses of an interface, in the kernel's order; 0 = of all interfaces.

    Raises DriverError.
    """
    return list(_dump(netlink, ifindex, AF_UNSPEC))


def _dump(netlink: NetlinkSocket, ifindex: int, family: int) -> Iterator[InterfaceAddress]:
    """Yield the addresses of one family; what the caller does not take is not decoded."""
    body = ADDRESS_HEADER.pack(family, 0, 0, 0, ifindex)
    try:
        answers = netlink.request(
            RTM_GETADDR, NLM_F_DUMP, body, attempted="list addresses", strict=True
        )
    except NetlinkError as exc:
        if exc.code == errno.ENODEV:
            return
        raise
    for kind, answer in answers:
        item = decode_address(answer) if kind == RTM_NEWADDR else None
        if item is not None and ifindex in {0, item.ifindex}:
            yield item


def primary_v4(
    netlink: NetlinkSocket, ifindex: int, excluded: Collection[AnyAddress]
) -> IPv4Address | None:
    """Return the interface's own first IPv4 address, the source of its advertisements.

    excluded: the shared addresses. A primary address is preferred to a secondary one. None when
    there is no other. Raises DriverError.
    """
    second: IPv4Address | None = None
    for item in _dump(netlink, ifindex, AF_INET):
        if not isinstance(item.address, IPv4Address) or item.address in excluded:
            continue
        if not item.secondary:
            return item.address
        second = second or item.address
    return second


def link_local_v6(
    netlink: NetlinkSocket, ifindex: int, excluded: Collection[AnyAddress] = ()
) -> IPv6Address | None:
    """Return the interface's own link-local IPv6 address, once it may be used, else None.

    excluded: the shared addresses. Raises DriverError.
    """
    for item in _dump(netlink, ifindex, AF_INET6):
        address = item.address
        if not isinstance(address, IPv6Address) or not address.is_link_local:
            continue
        if item.usable_source and address not in excluded:
            return address
    return None


def promote_secondaries(settings: Sysctls, interface: str, holder: str) -> None:
    """Let removal of one IPv4 address spare the others of its network, for `holder`.

    Without it the kernel removes a primary address's secondaries with it. Undone by
    `settings.release(holder)`. Raises DriverError.
    """
    settings.hold(interface_setting("ipv4", interface, "promote_secondaries"), 1, holder)
