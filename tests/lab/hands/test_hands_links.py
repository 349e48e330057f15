"""Links, kernel events and carrier, in namespaces with a real kernel."""

import sys
from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any

import pytest

from carpool.drivers.addresses import add_addresses, plan_addresses
from carpool.drivers.carrier import Carrier
from carpool.drivers.links import (
    AddressAdded,
    AddressGone,
    KernelEvent,
    KernelEvents,
    LinkChanged,
    LinkGone,
    Overflowed,
    TcChanged,
    link_by_name,
    remove_link,
    set_link_up,
)
from carpool.drivers.netlink_socket import NetlinkSocket

pytestmark = pytest.mark.lab

# Runs where /sys shows the namespace (ip netns exec sees to that), so the file is read.
BY_SYSFS = """
import os, subprocess, sys
from carpool.drivers.carrier import Carrier
from carpool.drivers.clock import boottime_ns
from carpool.drivers.netlink_socket import NetlinkSocket
carrier = Carrier("hand0", NetlinkSocket())
def ip(*words):
    subprocess.run(["ip", *words], check=True)
print(carrier.read(), carrier._fd >= 0)
best = 10**9
for _ in range(200):
    before = boottime_ns()
    carrier.read()
    best = min(best, boottime_ns() - before)
print(best)
ip("link", "set", "hand0", "down")
print(carrier.read())
ip("link", "delete", "hand0")
print(carrier.read())
ip("link", "add", "hand0", "type", "veth", "peer", "name", "hand1")
ip("link", "set", "hand0", "up")
print(carrier.read(), carrier._fd >= 0)
ip("link", "set", "hand1", "up")
print(carrier.read(), carrier.operstate())
"""


def collect(
    pair: Any, events: KernelEvents, found: list[KernelEvent], wanted: Callable[[Any], bool]
) -> None:
    """Read events until one is wanted."""

    def arrived() -> bool:
        found.extend(events.read())
        return any(wanted(event) for event in found)

    pair.wait_for(arrived)


def test_link_up_and_down(pair: Any) -> None:
    """An interface is switched off and on, and the far end's carrier follows at once."""
    with pair.inside(pair.near):
        netlink = NetlinkSocket()
    with netlink:
        link = link_by_name(netlink, pair.interface)
        assert link is not None
        assert (link.kind, link.up, len(link.mac)) == ("veth", True, 6)
        set_link_up(netlink, link.index, up=False)
        down = link_by_name(netlink, pair.interface)
        assert down is not None
        assert not down.up
        set_link_up(netlink, link.index, up=True)
        remove_link(netlink, link.index)
        remove_link(netlink, link.index)
        assert link_by_name(netlink, pair.interface) is None


def test_events_tell_what_others_do(pair: Any) -> None:
    """Changes of links, addresses and traffic control by ip and tc arrive as events."""
    found: list[KernelEvent] = []
    with pair.inside(pair.near):
        events = KernelEvents()
    try:
        pair.ip(pair.near, "address", "add", "192.0.2.77/24", "dev", pair.interface)
        pair.ip(pair.near, "address", "delete", "2001:db8::1/64", "dev", pair.interface)
        pair.output(pair.near, "tc", "qdisc", "add", "dev", pair.interface, "clsact")
        pair.output(pair.near, "tc", "qdisc", "delete", "dev", pair.interface, "clsact")
        pair.ip(pair.near, "link", "delete", pair.interface)
        collect(pair, events, found, lambda event: isinstance(event, LinkGone))
    finally:
        events.close()
    added = [str(e.address.address) for e in found if isinstance(e, AddressAdded)]
    gone = [str(e.address.address) for e in found if isinstance(e, AddressGone)]
    control = [event.removed for event in found if isinstance(event, TcChanged)]
    assert "192.0.2.77" in added
    assert "2001:db8::1" in gone
    assert control[0] is False
    assert True in control
    assert any(isinstance(event, LinkGone) and event.name == pair.interface for event in found)


def test_carrier_loss_is_an_event(pair: Any) -> None:
    """The far end switched off arrives as a change of the link to "does not run"."""
    with pair.inside(pair.near):
        events = KernelEvents()
    try:
        pair.ip(pair.far, "link", "set", pair.interface, "down")
        collect(pair, events, [], lambda e: isinstance(e, LinkChanged) and not e.link.carrier)
        assert events.read() is not None
    finally:
        events.close()


def test_lost_events_are_told(pair: Any) -> None:
    """When more happens than the buffer holds, one event says so and later ones still come."""
    with pair.inside(pair.near):
        events = KernelEvents()
        netlink = NetlinkSocket()
    try:
        events._socket.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
        link = link_by_name(netlink, pair.interface)
        assert link is not None
        many = [IPv4Interface(f"10.1.{number // 200}.{number % 200}/16") for number in range(400)]
        add_addresses(netlink, plan_addresses(link.index, many))
        found = events.read()
        assert Overflowed() in found
        pair.ip(pair.near, "address", "add", "192.0.2.77/24", "dev", pair.interface)
        collect(
            pair,
            events,
            [],
            lambda e: isinstance(e, AddressAdded) and str(e.address.address) == "192.0.2.77",
        )
    finally:
        events.close()
        netlink.close()


def test_carrier_by_netlink(pair: Any) -> None:
    """Where /sys shows another namespace, carrier comes from netlink, through every change."""
    with pair.inside(pair.near):
        netlink = NetlinkSocket()
    carrier = Carrier(pair.interface, netlink)
    with netlink:
        assert carrier.read() is True
        assert carrier._fd < 0
        pair.ip(pair.far, "link", "set", pair.interface, "down")
        assert carrier.read() is False
        pair.ip(pair.far, "link", "set", pair.interface, "up")
        assert carrier.read() is True
        pair.ip(pair.near, "link", "delete", pair.interface)
        assert carrier.read() is None
        assert carrier.operstate() == "notpresent"
        pair.ip(pair.near, "link", "add", pair.interface, "type", "bridge")
        assert carrier.read() is False
        assert carrier.ifindex > 0


def test_carrier_by_sysfs(pair: Any) -> None:
    """The kept file says down, gone and there again, and costs less than 50 us a question."""
    # The path of the package, so that the tree needs not be installed.
    program = f"import sys; sys.path[:] = {sys.path!r}\n{BY_SYSFS}"
    lines = pair.output(pair.near, sys.executable, "-c", program).splitlines()
    assert lines[0] == "True True"
    assert int(lines[1]) < 50_000
    assert lines[2:] == ["False", "None", "False True", "True up"]
