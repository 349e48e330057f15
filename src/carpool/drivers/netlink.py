"""The vocabulary of rtnetlink: numbers, and links and addresses read from its messages.

No socket is opened here. Follows rtnetlink(7) and the kernel's include/uapi/linux/rtnetlink.h,
if_link.h, if_addr.h.

    ifinfomsg (links):      family u8, pad u8, device type u16, index i32, flags u32, change u32
    ifaddrmsg (addresses):  family u8, prefix length u8, flags u8, scope u8, index u32
    tcmsg (tc):             family u8, pad u8 u16, index i32, handle u32, parent u32, info u32
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from carpool.drivers.netlink_socket import parse_attributes

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWQDISC: Final = 36
RTM_DELQDISC: Final = 37
RTM_NEWTFILTER: Final = 44
RTM_DELTFILTER: Final = 45

RTNLGRP_LINK: Final = 1
RTNLGRP_TC: Final = 4
RTNLGRP_IPV4_IFADDR: Final = 5
RTNLGRP_IPV6_IFADDR: Final = 9

AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_INET6: Final = 10

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINK: Final = 5
IFLA_OPERSTATE: Final = 16
IFLA_LINKINFO: Final = 18
IFLA_EXT_MASK: Final = 29
IFLA_CARRIER: Final = 33
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
RTEXT_FILTER_SKIP_STATS: Final = 8

IFF_UP: Final = 0x1
IFF_RUNNING: Final = 0x40

IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_BROADCAST: Final = 4
IFA_CACHEINFO: Final = 6
IFA_FLAGS: Final = 8

IFA_F_SECONDARY: Final = 0x01
IFA_F_NODAD: Final = 0x02
IFA_F_DADFAILED: Final = 0x08
IFA_F_DEPRECATED: Final = 0x20
IFA_F_TENTATIVE: Final = 0x40
IFA_F_NOPREFIXROUTE: Final = 0x200

SCOPE_UNIVERSE: Final = 0
SCOPE_LINK: Final = 253

LINK_HEADER: Final = struct.Struct("=BxHiII")
ADDRESS_HEADER: Final = struct.Struct("=BBBBI")
TC_HEADER: Final = struct.Struct("=B3xiIII")

_U32: Final = struct.Struct("=I")
_OPERSTATES: Final = (
    "unknown",
    "notpresent",
    "down",
    "lowerlayerdown",
    "testing",
    "dormant",
    "up",
)  # RFC 2863, as in if.h

AnyAddress: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel describes it."""

    index: int
    name: str
    mac: bytes  # 6 bytes on Ethernet, b"" where there is none
    up: bool  # the administrator's wish
    running: bool  # up, and the cable carries
    mtu: int
    kind: str  # "veth", "macvlan", "bridge" ...; "" for a plain device
    parent_index: int  # the device below (VLAN, macvlan) or a veth's other end; 0 if none
    carrier: bool
    operstate: str


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address on an interface."""

    ifindex: int
    address: AnyAddress
    prefix_length: int
    scope: int
    flags: int

    @property
    def usable_source(self) -> bool:
        """Whether the address may be sent from: not tentative, not a failed duplicate check."""
        return not self.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)

    @property
    def secondary(self) -> bool:
        """Whether an older address of the same IPv4 network stands before this one."""
        return isinstance(self.address, IPv4Address) and bool(self.flags & IFA_F_SECONDARY)


def link_header(index: int = 0, *, flags: int = 0, change: int = 0) -> bytes:
    """Return the fixed part of a link message."""
    return LINK_HEADER.pack(AF_UNSPEC, 0, index, flags, change)


def _number(data: bytes | None, default: int = 0) -> int:
    """Return an attribute's u32, `default` when it is absent."""
    return int(_U32.unpack_from(data)[0]) if data and len(data) >= 4 else default


def decode_link(body: bytes) -> Link:
    """Return the interface in the body of RTM_NEWLINK or RTM_DELLINK.

    Raises DriverError when the attributes do not fit.
    """
    _family, _type, index, flags, _change = LINK_HEADER.unpack_from(body)
    found = parse_attributes(body[LINK_HEADER.size :])
    info = parse_attributes(found.get(IFLA_LINKINFO, b""))
    state = found.get(IFLA_OPERSTATE, b"\0")[0]
    running = bool(flags & IFF_RUNNING)
    return Link(
        index=index,
        name=found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="surrogateescape"),
        mac=found.get(IFLA_ADDRESS, b""),
        up=bool(flags & IFF_UP),
        running=running,
        mtu=_number(found.get(IFLA_MTU)),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        parent_index=_number(found.get(IFLA_LINK)),
        carrier=bool(found[IFLA_CARRIER][0]) if found.get(IFLA_CARRIER) else running,
        operstate=_OPERSTATES[state] if state < len(_OPERSTATES) else "unknown",
    )


def decode_address(body: bytes) -> InterfaceAddress | None:
    """Return the address in the body of RTM_NEWADDR or RTM_DELADDR, None for other families.

    Raises DriverError when the attributes do not fit.
    """
    family, prefix_length, flags, scope, ifindex = ADDRESS_HEADER.unpack_from(body)
    found = parse_attributes(body[ADDRESS_HEADER.size :])
    # On a point-to-point link IFA_ADDRESS is the far end and IFA_LOCAL is ours.
    packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS) or b""
    flags = _number(found.get(IFA_FLAGS), flags)
    address: AnyAddress
    if family == AF_INET and len(packed) == 4:
        address = IPv4Address(packed)
    elif family == AF_INET6 and len(packed) == 16:
        address = IPv6Address(packed)
    else:
        return None
    return InterfaceAddress(ifindex, address, prefix_length, scope, flags)
