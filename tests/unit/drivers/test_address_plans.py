"""Address plans: which messages are made, and which networks get a route."""

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from carpool.drivers.addresses import plan_addresses
from carpool.drivers.netlink import (
    ADDRESS_HEADER,
    IFA_BROADCAST,
    IFA_CACHEINFO,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_FLAGS,
    InterfaceAddress,
    decode_address,
)
from carpool.drivers.netlink_socket import parse_attributes

V4 = IPv4Interface("192.0.2.10/24")
V6 = IPv6Interface("2001:db8::10/64")


def flags(body: bytes) -> int:
    """Return the flags of an address message."""
    return int.from_bytes(parse_attributes(body[ADDRESS_HEADER.size :])[IFA_FLAGS], "little")


def test_v4_message() -> None:
    """An IPv4 address is added with its prefix length and broadcast address, a /31 without."""
    for text, broadcast in (("192.0.2.10/24", "192.0.2.255"), ("192.0.2.10/31", None)):
        body = plan_addresses(3, [IPv4Interface(text)]).additions[0][2]
        found = decode_address(body)
        assert found is not None
        assert (found.ifindex, found.address, found.scope) == (3, V4.ip, 0)
        packed = parse_attributes(body[ADDRESS_HEADER.size :]).get(IFA_BROADCAST)
        assert packed == (IPv4Address(broadcast).packed if broadcast else None)


def test_v6_message() -> None:
    """An IPv6 address is added without duplicate detection, deprecated and for ever."""
    body = plan_addresses(3, [V6]).additions[0][2]
    lifetimes = parse_attributes(body[ADDRESS_HEADER.size :])[IFA_CACHEINFO]
    assert lifetimes == bytes(4) + b"\xff" * 4 + bytes(8)
    assert flags(body) == IFA_F_NODAD


def test_removals_run_backwards() -> None:
    """Addresses are removed last first, so that no primary address goes before its secondaries."""
    plan = plan_addresses(3, [V4, V6])
    removed = [decode_address(body) for _, _, body in plan.removals]
    assert [item.address for item in removed if item] == [V6.ip, V4.ip]


def test_route_that_is_there_is_not_made_again() -> None:
    """No second route where the parent or another program made one; own secondaries keep theirs."""
    parent = [
        InterfaceAddress(2, IPv4Address("192.0.2.1"), 24, 0, 0),
        InterfaceAddress(2, IPv6Address("2001:db8::1"), 64, 0, 0),
    ]
    for _, _, body in plan_addresses(3, [V4, V6], parent).additions:
        assert flags(body) & IFA_F_NOPREFIXROUTE
    for _, _, body in plan_addresses(2, [V4, V6], parent).additions:
        assert not flags(body) & IFA_F_NOPREFIXROUTE
    managed = [InterfaceAddress(3, IPv6Address("2001:db8::1"), 64, 0, IFA_F_NOPREFIXROUTE)]
    assert flags(plan_addresses(3, [V6], managed).additions[0][2]) & IFA_F_NOPREFIXROUTE


def test_shared_address_is_nobodys_route() -> None:
    """The shared address itself, left on the parent, does not count as a route to its network."""
    left = [InterfaceAddress(2, V6.ip, 64, 0, 0)]
    assert not flags(plan_addresses(3, [V6], left).additions[0][2]) & IFA_F_NOPREFIXROUTE
