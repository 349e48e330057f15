"""Netlink frames and attributes, and requests that need no rights: lists, lookups, refusals."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.base.errors import DriverError
from carpool.drivers import netlink_socket
from carpool.drivers.addresses import addresses
from carpool.drivers.links import link_by_index, link_by_name, links
from carpool.drivers.netlink import (
    IFLA_IFNAME,
    RTM_GETLINK,
    decode_address,
    decode_link,
    link_header,
)
from carpool.drivers.netlink_socket import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkError,
    NetlinkSocket,
    attribute,
    iterate_messages,
    parse_attributes,
)


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=6))
def test_attributes_round_trip(values: dict[int, bytes]) -> None:
    """What `attribute` writes, of any length, `parse_attributes` reads."""
    data = b"".join(attribute(kind, value) for kind, value in values.items())
    assert parse_attributes(data) == values


def test_attribute_flags_are_removed() -> None:
    """The kernel's "nested" flag is no part of the kind."""
    assert parse_attributes(attribute(0x8000 | 18, b"abcd")) == {18: b"abcd"}


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Broken lengths end in a DriverError, never in another exception or an endless loop."""
    for read in (parse_attributes, lambda data: list(iterate_messages(data))):
        reason = "length"
        try:
            read(data)
        except DriverError as exc:
            reason = exc.reason
        assert reason.startswith("length")


def test_links_are_listed_and_found() -> None:
    """The list has the loop-back interface, and both lookups return the same as the list."""
    with NetlinkSocket() as netlink:
        found = {link.name: link for link in links(netlink)}
        assert found["lo"].mtu >= 1280
        by_name = link_by_name(netlink, "lo")
        by_index = link_by_index(netlink, found["lo"].index)
    assert by_name == by_index == found["lo"]


@pytest.mark.parametrize("name", ["", "no-such-one", "longer-than-any-name-may-be"])
def test_unknown_link_is_none(name: str) -> None:
    """No interface, and no possible interface, is None and no error."""
    with NetlinkSocket() as netlink:
        assert link_by_name(netlink, name) is None
        assert link_by_index(netlink, 0) is None
        assert link_by_index(netlink, 0x7FFF_FFF0) is None


def test_addresses_are_listed() -> None:
    """The address list is read, and the list of an index that does not exist is empty."""
    with NetlinkSocket() as netlink:
        everything = addresses(netlink)
        assert all(item.ifindex > 0 for item in everything)
        assert addresses(netlink, 0x7FFF_FFF0) == []


def test_refusal_says_what_and_why() -> None:
    """A refused request carries the order, the kernel's reason and the errno."""
    body = link_header() + attribute(IFLA_IFNAME, b"no-such-one\0")
    with NetlinkSocket() as netlink, pytest.raises(NetlinkError) as refused:
        netlink.request(RTM_GETLINK, 0, body, attempted="look up no-such-one")
    assert refused.value.code == errno.ENODEV
    assert str(refused.value) == "look up no-such-one: No such device"


def test_missing_right_is_named() -> None:
    """A refusal for want of rights names the capability."""
    assert NetlinkError("add x", errno.EPERM).capability == "CAP_NET_ADMIN"
    assert str(NetlinkError("add x", errno.EACCES)).endswith("(needs CAP_NET_ADMIN)")


def test_batch_reports_each_request() -> None:
    """A batch larger than one part has one errno a request, in order; failures stop nothing."""
    good = (RTM_GETLINK, 0, link_header(1))
    bad = (RTM_GETLINK, 0, link_header(0x7FFF_FFF0))
    requests = [bad if index % 7 == 3 else good for index in range(netlink_socket.BATCH_MAX + 9)]
    with NetlinkSocket() as netlink:
        codes = netlink.batch(requests)
        assert netlink.batch([]) == []
        assert link_by_name(netlink, "lo") is not None  # no answer of the batch is left over
    assert codes == [errno.ENODEV if index % 7 == 3 else 0 for index in range(len(requests))]


def test_sequence_starts_again() -> None:
    """The sequence number wraps without a lost answer, also in the middle of the day."""
    with NetlinkSocket() as netlink:
        netlink._sequence = netlink_socket.SEQUENCE_MAX - 1
        assert netlink.batch([(RTM_GETLINK, 0, link_header(1))] * 3) == [0, 0, 0]
        assert link_by_name(netlink, "lo") is not None
        assert netlink._sequence < 10


def test_closed_socket_is_a_driver_error() -> None:
    """After close a request fails as a driver's error; closing again is harmless."""
    netlink = NetlinkSocket()
    netlink.close()
    netlink.close()
    with pytest.raises(DriverError):
        netlink.request(RTM_GETLINK, NLM_F_CREATE | NLM_F_EXCL, link_header())


def test_decoders_take_sparse_messages() -> None:
    """A link without attributes and an address of a foreign family are read without error."""
    link = decode_link(struct.pack("=BxHiII", 0, 1, 5, 0x41, 0))
    assert (link.index, link.up, link.running, link.carrier) == (5, True, True, True)
    assert (link.name, link.mac, link.kind, link.operstate) == ("", b"", "", "unknown")
    assert decode_address(struct.pack("=BBBBI", 7, 0, 0, 0, 1)) is None
