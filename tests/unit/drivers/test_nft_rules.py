"""The nft gate's text, without a kernel: carpool.drivers.nft_rules."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from carpool.base.errors import DriverError
from carpool.base.time import NS_PER_MS
from carpool.drivers.gate_contract import GateGroup
from carpool.drivers.nft_rules import (
    plan,
    render_change,
    render_open,
    render_removal,
    render_renewal,
    render_shut,
    timeout_ms,
    window_ms,
)

EDGE = GateGroup(
    "edge", 4, "eth0", 2, 7, (IPv4Address("192.0.2.10"),), (IPv6Address("2001:db8::10"),)
)
OTHER = GateGroup("other", 5, "eth0", 2, 8, (IPv4Address("192.0.2.11"),), ())
NAMES = {2: "eth0", 3: "eth1"}
GATE, PERMIT = "netdev carpool_gate", "netdev carpool_permit"


def lines(text):
    """Return the lines of a transaction."""
    return [line for line in text.splitlines() if line]


def test_a_renewal_deletes_before_it_adds():
    """The lease's `delete` comes first and alone: it is what fails after expiry."""
    assert lines(render_renewal(EDGE, 123 * NS_PER_MS, 40 * NS_PER_MS)) == [
        "delete element netdev carpool_gate lease { 5 }",
        "add element netdev carpool_gate advert { 5 }",
        "delete element netdev carpool_gate advert { 5 }",
        "add element netdev carpool_gate lease { 5 timeout 120ms }",
        "add element netdev carpool_gate advert { 5 timeout 44ms }",
    ]


def test_opening_starts_whatever_was_before():
    """An opening adds, deletes and adds; what has no time left is not put in."""
    assert lines(render_open(EDGE, 8 * NS_PER_MS, -1)) == [
        *lines(render_shut(EDGE)),
        "add element netdev carpool_gate lease { 5 timeout 8ms }",
    ]
    assert lines(render_open(EDGE, 0, 3 * NS_PER_MS)) == [
        *lines(render_shut(EDGE)),
        "add element netdev carpool_gate advert { 5 timeout 8ms }",
    ]


def test_a_firewall_has_a_second_lease():
    """A firewall group's lease is kept in the inet table as well, in the same transaction."""
    text = render_renewal(replace(EDGE, firewall=True), 10**9, 10**9)
    assert "add element inet carpool_gate lease { 5 timeout 1000ms }" in text
    assert "inet" not in render_renewal(replace(EDGE, firewall=True, ifindex=0), 10**9, 10**9)


@pytest.mark.parametrize(
    ("duration_ns", "wanted"), [(-1, 0), (0, 0), (3_999_999, 0), (4_000_000, 4), (250_000_000, 248)]
)
def test_timeouts_are_never_longer(duration_ns, wanted):
    """A timeout is a whole number of 4 ms steps below the duration."""
    assert timeout_ms(duration_ns) == wanted


@pytest.mark.parametrize(("duration_ns", "wanted"), [(-1, 0), (0, 0), (1, 8), (4_000_000, 8)])
def test_a_window_is_never_shorter(duration_ns, wanted):
    """The time in which a take-over may advertise is rounded up, or it would often be none."""
    assert window_ms(duration_ns) == wanted


def test_the_first_install_replaces_everything():
    """From nothing known, tables of a predecessor go and ours come in the same transaction."""
    text = lines(render_change({}, plan([EDGE], NAMES)))
    for title in (GATE, PERMIT, "inet carpool_gate", "inet carpool_permit"):
        assert f"delete table {title}" in text
    assert text.index(f"delete table {GATE}") < text.index(f"table {GATE} {{")
    assert "flags owner;" in text[text.index(f"table {PERMIT} {{") :]
    assert not any(line.startswith("table inet") for line in text)
    assert lines(render_removal()) == [line for line in lines(render_removal()) if "table" in line]


def test_a_change_does_not_touch_the_leases():
    """Beside an open group another comes and goes: the lease sets and its elements stay."""
    one, two = plan([EDGE], NAMES), plan([EDGE, OTHER], NAMES)
    coming, going = lines(render_change(one, two)), lines(render_change(two, one))
    for text in (coming, going):
        assert f"delete table {GATE}" not in text
        assert not [line for line in text if "lease {" in line or "advert {" in line]
        assert f"flush table {GATE}" in text
        assert f"flush map {GATE} v4" in text
        assert f"flush map {GATE} v6" not in text
    assert "counter drops_5 { }" in coming
    assert "counter drops_4 { }" not in coming
    assert going.index(f"flush map {GATE} v4") < going.index(f"delete chain {GATE} group_5")
    assert f"delete counter {GATE} drops_5" in going
    assert render_change(one, one) == ""


def test_an_address_more_changes_one_map():
    """A reload that adds an address writes the elements and no rule."""
    more = replace(EDGE, v4=(*EDGE.v4, IPv4Address("192.0.2.12")))
    text = render_change(plan([EDGE], NAMES), plan([more], NAMES))
    assert "chain" not in text
    assert "0xc000020c : jump group_4" in text


def test_transit_comes_and_goes():
    """The inet tables are made for the first firewall group and deleted after the last."""
    plain, fire = plan([EDGE], NAMES), plan([replace(EDGE, firewall=True)], NAMES)
    assert 'oifname "eth0" jump out_2' in render_change(plain, fire)
    assert "delete table inet carpool_gate" in render_change(fire, plain)


def test_absent_interfaces_are_left_out():
    """A group whose interface is absent is guarded by address on the others' interfaces."""
    absent = replace(OTHER, ifindex=9, v6=(IPv6Address("fe80::1"),), virtual_mac=b"\2" * 6)
    text = render_change({}, plan([EDGE, absent], NAMES))
    assert "0xc000020b : jump group_5" in text
    assert "_9" not in text


@pytest.mark.parametrize("name", ['et"h', "eth*", "e\\th"])
def test_names_nft_would_misread_are_refused(name):
    """An interface name that nft would read as something else is an error, not an injection."""
    with pytest.raises(DriverError, match="cannot name"):
        plan([EDGE], {2: name})
