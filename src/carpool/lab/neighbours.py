"""Forgetting neighbours: the kernel's ARP and NDP entries for some addresses are taken out.

One RTM_DELNEIGH a target and interface (rtnetlink(7)); an entry that is not there is no error,
and no answer is asked for, so that a prober loses no time.
"""

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

_RTM_DELNEIGH: Final = 29
_NLM_F_REQUEST: Final = 1
_NDA_DST: Final = 1
_HEADER: Final = struct.Struct("@IHHII")
_NDMSG: Final = struct.Struct("@BBHiHBB")
_ATTRIBUTE: Final = struct.Struct("@HH")


def deletion(address: str, interface_index: int, sequence: int) -> bytes:
    """Return the netlink message that takes the entry of `address` out."""
    value = ip_address(address)
    family = socket.AF_INET if value.version == 4 else socket.AF_INET6
    body = _NDMSG.pack(family, 0, 0, interface_index, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value.packed), _NDA_DST) + value.packed
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, _RTM_DELNEIGH, _NLM_F_REQUEST, sequence, 0) + body


def forget(addresses: Iterable[str]) -> None:
    """Let this network namespace forget who has `addresses`, on every interface."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        for sequence, address in enumerate(addresses, start=1):
            for index, name in socket.if_nameindex():
                if name != "lo":
                    with suppress(OSError):
                        route.send(deletion(address, index, sequence))
