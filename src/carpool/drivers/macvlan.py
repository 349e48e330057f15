"""An interface of its own for a virtual MAC: a macvlan above the group's interface.

    eth0 (own MAC, own addresses) --- carp-7 (00:00:5e:00:01:07, the shared addresses of vhid 7)

Mode private: whatever leaves or reaches the macvlan passes its parent, and with it the parent's
gate; in mode bridge, macvlans of one parent speak directly, past the gate. The host itself reaches
the shared addresses in either mode, because they are local to it. Follows ip-link(8).

Traps, all closed here (each was seen): an interface that is up speaks by itself (MLD, duplicate
detection, router solicitations), so it stays switched off without a lease and IPv6 configures
nothing on it; the parent answers ARP for the macvlan's addresses with its own MAC unless arp_ignore
is 1; and replies that come in by the other of the two interfaces need a loose rp_filter.
"""

import struct
from typing import Final

from carpool.base.errors import DriverError, LocalError
from carpool.drivers.links import Link, link_by_name, remove_link
from carpool.drivers.netlink import (
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    RTM_NEWLINK,
    link_header,
)
from carpool.drivers.netlink_socket import NLM_F_CREATE, NLM_F_EXCL, NetlinkSocket, attribute
from carpool.drivers.sysctl import Sysctls, interface_setting

_IFLA_MACVLAN_MODE: Final = 1
_MODE_PRIVATE: Final = 1

_QUIET_V6: Final = {
    "addr_gen_mode": 1,  # no link-local address of its own
    "accept_ra": 0,
    "autoconf": 0,
    "router_solicitations": 0,
    "dad_transmits": 0,
    "accept_dad": 0,
}
_OWN_V4: Final = {
    "rp_filter": 2,  # the routes to the clients lead through the parent
    "arp_ignore": 1,
}
_PARENT_V4: Final = {
    "arp_ignore": 1,  # answers for its own addresses only
    "arp_announce": 2,  # asks from its own address, so that its MAC is not learned for ours
}


def macvlan_name(vhid: int, number: int = 0) -> str:
    """Return the interface's name: "carp-7", or "carp-7.1" for a second parent with that vhid."""
    return f"carp-{vhid}.{number}" if number else f"carp-{vhid}"


def create_macvlan(
    netlink: NetlinkSocket, settings: Sysctls, parent: Link, name: str, mac: bytes
) -> Link:
    """Create the interface, switched off; one that stands already and is right is kept as it is.

    mac: the virtual MAC, 6 bytes. Whether the interface is on is the caller's (`set_link_up`): on
    with the lease, off without. The parent's settings are undone by `remove_macvlan`.
    Raises DriverError; LocalError when the name belongs to something else.
    """
    found = link_by_name(netlink, name)
    if found is not None and _is_ours(found, parent, mac):
        _quiet(settings, parent, name)
        return found
    if found is not None and found.kind != "macvlan":
        raise LocalError(f"interface {name} exists and is not a macvlan of ours")
    if found is not None:  # left by a predecessor with another parent or MAC
        remove_link(netlink, found.index)
    data = attribute(_IFLA_MACVLAN_MODE, struct.pack("=I", _MODE_PRIVATE))
    body = b"".join(
        (
            link_header(),
            attribute(IFLA_IFNAME, name.encode() + b"\0"),
            attribute(IFLA_LINK, struct.pack("=I", parent.index)),
            attribute(IFLA_ADDRESS, mac),
            attribute(
                IFLA_LINKINFO,
                attribute(IFLA_INFO_KIND, b"macvlan") + attribute(IFLA_INFO_DATA, data),
            ),
        )
    )
    attempted = f"create {name} on {parent.name}"
    netlink.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, attempted=attempted)
    created = link_by_name(netlink, name)
    if created is None:
        raise DriverError(attempted, "it is gone again")
    try:
        _quiet(settings, parent, name)
    except DriverError:  # an interface that may speak must not stay
        remove_link(netlink, created.index)
        raise
    return created


def remove_macvlan(netlink: NetlinkSocket, settings: Sysctls, link: Link) -> list[str]:
    """Remove the interface, and put back its parent's settings after the last on that parent.

    Returns what could not be put back. Raises DriverError.
    """
    remove_link(netlink, link.index)
    return settings.release(link.name)


def _is_ours(found: Link, parent: Link, mac: bytes) -> bool:
    """Whether the interface is what would be created."""
    return found.kind == "macvlan" and found.parent_index == parent.index and found.mac == mac


def _quiet(settings: Sysctls, parent: Link, name: str) -> None:
    """Make the interface say nothing by itself, and the parent not answer for it."""
    for setting, value in _QUIET_V6.items():
        key = interface_setting("ipv6", name, setting)
        if settings.get(key) is not None:  # without IPv6 there is nothing to be silenced
            settings.hold(key, value, name)
    for setting, value in _OWN_V4.items():
        settings.hold(interface_setting("ipv4", name, setting), value, name)
    for setting, value in _PARENT_V4.items():
        settings.hold(interface_setting("ipv4", parent.name, setting), value, name)
