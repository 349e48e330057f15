"""Attach BPF programs by clsact: one filter of ours at ingress and one at egress of an interface.

Follows tc-bpf(8) and the kernel's include/uapi/linux/pkt_sched.h, pkt_cls.h. Our filter has a fixed
preference and a fixed, unusual handle, so replacing it is one atomic step and never hits another
program's filter. Preference 1 comes first among the classic filters, and within it the newest
stands in front. (A tcx program, kernel 6.6 and newer, runs before all of them.)

    interface
      +-- qdisc clsact, handle ffff:
            +-- ingress ffff:fff2, egress ffff:fff3
                  +-- filter protocol all pref 1 bpf handle 0xca59 carpool_gate direct-action
"""

import errno
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from carpool.base.errors import DriverError
from carpool.drivers.netlink import RTM_DELQDISC, RTM_DELTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER
from carpool.drivers.netlink_socket import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Answer,
    NetlinkError,
    NetlinkSocket,
    attribute,
    parse_attributes,
)

FILTER_NAME: Final = "carpool_gate"
FILTER_PREFERENCE: Final = 1
FILTER_HANDLE: Final = 0xCA59

RTM_GETQDISC: Final = 38
RTM_GETTFILTER: Final = 46

_HEADER: Final = struct.Struct("=BxxxiIII")  # tcmsg: family, ifindex, handle, parent, info
_U32: Final = struct.Struct("=I")
_CLSACT_PARENT: Final = 0xFFFF_FFF1
_CLSACT_HANDLE: Final = 0xFFFF_0000
_ALL_PROTOCOLS: Final = socket.htons(0x0003)
_INFO: Final = FILTER_PREFERENCE << 16 | _ALL_PROTOCOLS

_TCA_KIND, _TCA_OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11
_DIRECT_ACTION: Final = 1

# What the kernel says about a filter when it, its qdisc or its interface is not there.
_ABSENT: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP})


class Direction(Enum):
    """Which way frames go; the value is the parent the kernel knows it by."""

    INGRESS = 0xFFFF_FFF2
    EGRESS = 0xFFFF_FFF3


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter as the kernel lists it."""

    kind: str
    name: str  # of a bpf filter
    handle: int
    preference: int
    program_id: int  # of a bpf filter, else 0
    direct_action: bool

    @property
    def is_ours(self) -> bool:
        """Whether this is a gate's filter, of this process or of an earlier one."""
        return self.name == FILTER_NAME and self.handle == FILTER_HANDLE


class TrafficControl:
    """What the gate needs of tc, on one netlink socket in the present network namespace."""

    def __init__(self) -> None:
        """Open the socket. Raises DriverError."""
        self._netlink = NetlinkSocket()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def make_clsact(self, ifindex: int) -> bool:
        """See that the interface has a clsact qdisc; return whether it had to be made.

        Raises DriverError, also when an ingress qdisc (its older form, with no egress) is in the
        way, and NetlinkError with ENODEV when there is no such interface.
        """
        attempted = f"add clsact to interface {ifindex}"
        body = _header(ifindex, _CLSACT_HANDLE, _CLSACT_PARENT) + _kind("clsact")
        try:
            flags = NLM_F_CREATE | NLM_F_EXCL
            self._netlink.request(RTM_NEWQDISC, flags, body, attempted=attempted)
        except NetlinkError as exc:
            if exc.code != errno.EEXIST:
                raise
        else:
            return True
        if ifindex not in self.clsact_interfaces():
            reason = "an ingress qdisc stands there (remove it: tc qdisc del dev NAME ingress)"
            raise DriverError(attempted, reason)
        return False

    def delete_clsact(self, ifindex: int) -> None:
        """Take the clsact qdisc and all its filters off; absent is well."""
        body = _header(ifindex, _CLSACT_HANDLE, _CLSACT_PARENT)
        try:
            attempted = f"delete clsact of interface {ifindex}"
            self._netlink.request(RTM_DELQDISC, 0, body, attempted=attempted)
        except NetlinkError as exc:
            if exc.code not in _ABSENT:
                raise

    def clsact_interfaces(self) -> list[int]:
        """Return the index of every interface with a clsact qdisc."""
        body = _header(0, 0, 0)
        attempted = "list qdiscs"
        return [
            _HEADER.unpack_from(answer)[1]
            for kind, answer in self._netlink.request(
                RTM_GETQDISC, NLM_F_DUMP, body, attempted=attempted
            )
            if kind == RTM_NEWQDISC and _kind_text(answer) == "clsact"
        ]

    def replace_filter(self, ifindex: int, direction: Direction, program: int) -> None:
        """Put our filter in, or swap its program in one step. Raises DriverError."""
        options = (
            attribute(_BPF_FD, _U32.pack(program))
            + attribute(_BPF_NAME, FILTER_NAME.encode() + b"\0")
            + attribute(_BPF_FLAGS, _U32.pack(_DIRECT_ACTION))
        )
        body = _header(ifindex, FILTER_HANDLE, direction.value, _INFO) + _kind("bpf")
        self._netlink.request(
            RTM_NEWTFILTER,
            NLM_F_CREATE | NLM_F_REPLACE,
            body + attribute(_TCA_OPTIONS, options),
            attempted=f"add the gate to interface {ifindex} {direction.name.lower()}",
        )

    def find_filter(self, ifindex: int, direction: Direction) -> Filter | None:
        """Return our filter, None if it is not there."""
        body = _header(ifindex, FILTER_HANDLE, direction.value, _INFO) + _kind("bpf")
        try:
            attempted = f"read the gate of interface {ifindex}"
            answers = self._netlink.request(RTM_GETTFILTER, 0, body, attempted=attempted)
        except NetlinkError as exc:
            if exc.code in _ABSENT:
                return None
            raise
        found = _filters(answers)
        return found[0] if found else None

    def delete_filter(self, ifindex: int, direction: Direction) -> None:
        """Take our filter out; absent is well."""
        body = _header(ifindex, FILTER_HANDLE, direction.value, _INFO) + _kind("bpf")
        try:
            attempted = f"delete the gate of interface {ifindex}"
            self._netlink.request(RTM_DELTFILTER, 0, body, attempted=attempted)
        except NetlinkError as exc:
            if exc.code not in _ABSENT:
                raise

    def filters(self, ifindex: int) -> list[Filter]:
        """Return every filter at the interface's clsact, both directions, whoever's it is."""
        found: list[Filter] = []
        for direction in Direction:
            body = _header(ifindex, 0, direction.value)
            try:
                attempted = f"list filters of interface {ifindex}"
                answers = self._netlink.request(
                    RTM_GETTFILTER, NLM_F_DUMP, body, attempted=attempted
                )
            except NetlinkError as exc:
                if exc.code not in _ABSENT:
                    raise
                continue
            # Each chain is announced by an entry with handle 0 before its filters.
            found += [entry for entry in _filters(answers) if entry.handle]
        return found


def _header(ifindex: int, handle: int, parent: int, info: int = 0) -> bytes:
    """Return a tcmsg."""
    return _HEADER.pack(0, ifindex, handle, parent, info)


def _kind(text: str) -> bytes:
    """Return the attribute that names what a qdisc or filter is."""
    return attribute(_TCA_KIND, text.encode() + b"\0")


def _kind_text(body: bytes) -> str:
    """Return what a qdisc or filter is."""
    return _string(parse_attributes(body[_HEADER.size :]).get(_TCA_KIND, b""))


def _string(data: bytes) -> str:
    """Return a zero-terminated string."""
    return data.rstrip(b"\0").decode(errors="replace")


def _filters(answers: list[Answer]) -> list[Filter]:
    """Return the filters in the kernel's answers."""
    found = []
    for kind, body in answers:
        if kind != RTM_NEWTFILTER:
            continue
        _family, _ifindex, handle, _parent, info = _HEADER.unpack_from(body)
        attributes = parse_attributes(body[_HEADER.size :])
        what = _string(attributes.get(_TCA_KIND, b""))
        options: dict[int, bytes] = {}
        if what == "bpf":
            options = parse_attributes(attributes.get(_TCA_OPTIONS, b""))
        found.append(
            Filter(
                kind=what,
                name=_string(options.get(_BPF_NAME, b"")),
                handle=handle,
                preference=info >> 16,
                program_id=_number(options.get(_BPF_ID)),
                direct_action=bool(_number(options.get(_BPF_FLAGS)) & _DIRECT_ACTION),
            )
        )
    return found


def _number(data: bytes | None) -> int:
    """Return a 32-bit attribute, 0 when it is absent."""
    return int(_U32.unpack(data)[0]) if data is not None and len(data) == _U32.size else 0
