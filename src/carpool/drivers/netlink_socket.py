"""Speak netlink with the kernel: requests, dumps and batches on one socket, without a library.

What is here: the message frame, attributes, and a blocking socket that checks sequence numbers,
reads acknowledgements and turns refusals into errors. What messages mean is in `netlink` and the
modules above it. Follows the kernel's Documentation/userspace-api/netlink/intro.rst.

     0               1               2               3
    +---------------------------------------------------------------+
    |                    length, header included                    |
    +-------------------------------+-------------------------------+
    |             type              |             flags             |
    +-------------------------------+-------------------------------+
    |                           sequence                            |
    +---------------------------------------------------------------+
    |                    port (0 = the kernel)                      |
    +---------------------------------------------------------------+
    |                             body                              |
    +---------------------------------------------------------------+
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, Self, TypeAlias

from carpool.base.errors import DriverError

Request: TypeAlias = tuple[int, int, bytes]
"""A message to send: type, flags (REQUEST is added), body."""

Answer: TypeAlias = tuple[int, bytes]
"""A message received: type, body."""

NETLINK_ROUTE: Final = 0

NLM_F_REQUEST: Final = 0x01
NLM_F_MULTI: Final = 0x02
NLM_F_ACK: Final = 0x04
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_ACK_TLVS: Final = 0x200  # on an acknowledgement: attributes follow

NLMSG_NOOP: Final = 1
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1

SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NETLINK_GET_STRICT_CHK: Final = 12
SO_RCVBUFFORCE: Final = 33

BATCH_MAX: Final = 256  # messages a sendmsg: their answers fit the receive buffer even if all fail
DUMP_ATTEMPTS: Final = 5  # a dump that others keep changing is given up after as many tries
RECEIVE_BYTES: Final = 65_536  # the kernel never puts more than 32 KiB into one dump message
RECEIVE_BUFFER_BYTES: Final = 1 << 20
SEQUENCE_MAX: Final = 0x7FFF_FFFF  # then it starts again at 1; 0 is what unasked messages carry
ANSWER_SECONDS_MAX: Final = 5  # the kernel answers at once; silence this long is an error

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = struct.Struct("=i")


class NetlinkError(DriverError):
    """The kernel refused a request; `code` is the errno, for drivers only."""

    def __init__(self, attempted: str, code: int, detail: str = "") -> None:
        """Say what was attempted; a right that is missing is named."""
        reason = f"{os.strerror(code)} ({detail})" if detail else os.strerror(code)
        missing = code in {errno.EPERM, errno.EACCES}
        super().__init__(attempted, reason, capability="CAP_NET_ADMIN" if missing else None)
        self.code = code


def attribute(kind: int, data: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def iterate_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind (flag bits removed) and payload of each attribute in `data`.

    Raises DriverError for lengths that do not fit.
    """
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            raise DriverError("read netlink attributes", f"length {length} at byte {offset}")
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in `data` by kind; of a repeated kind the last one.

    Raises DriverError for lengths that do not fit.
    """
    return dict(iterate_attributes(data))


def iterate_messages(data: bytes | memoryview) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence and body of each message in one datagram.

    Raises DriverError for lengths that do not fit.
    """
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > len(data):
            raise DriverError("read netlink messages", f"length {length} at byte {offset}")
        yield kind, flags, sequence, bytes(data[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def _refusal_text(flags: int, body: bytes) -> str:
    """Return the kernel's own sentence in an error message, "" if it sent none."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    # NETLINK_CAP_ACK is set, so only the header of our message is echoed, never its body.
    with contextlib.suppress(DriverError):
        return parse_attributes(body[20:]).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()
    return ""


class NetlinkSocket:
    """A blocking netlink socket for requests; the kernel's answer is awaited each time.

    Not for events (`netlink.KernelEvents` is) and not for two threads. It belongs to the network
    namespace in which it was made.
    """

    def __init__(self, family: int = NETLINK_ROUTE) -> None:
        """Open the socket. Raises DriverError."""
        try:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_NETLINK, kind, family)
            self._configure()
        except OSError as exc:
            raise DriverError("open a netlink socket", os.strerror(exc.errno or 0)) from exc
        self._sequence = 0
        self._strict = False
        self._buffer = bytearray(RECEIVE_BYTES)

    def _configure(self) -> None:
        """Bind, bound the wait, ask for short and explained acknowledgements."""
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        wait = struct.pack("@ll", ANSWER_SECONDS_MAX, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self._socket.close()

    def request(
        self,
        message_type: int,
        flags: int,
        body: bytes,
        *,
        attempted: str = "",
        strict: bool = False,
    ) -> list[Answer]:
        """Send one message, wait for its end and return what came back before the end.

        flags: REQUEST is added, ACK too unless DUMP is set. A dump that was disturbed is repeated.
        attempted: words for the error, such as "add 192.0.2.1 to eth0".
        strict: a dump is filtered in the kernel by the header's fields, such as the interface.
        Raises NetlinkError when the kernel refuses, DriverError when it does not answer.
        """
        attempted = attempted or f"netlink request {message_type}"
        dump = flags & NLM_F_DUMP == NLM_F_DUMP and not flags & NLM_F_CREATE
        if strict != self._strict:
            self._set_strict(wanted=strict, attempted=attempted)
        for _ in range(DUMP_ATTEMPTS):
            self._send([(message_type, flags if dump else flags | NLM_F_ACK, body)], attempted)
            answers, disturbed = self._read_one(self._sequence, attempted)
            if not disturbed:
                return answers
        raise DriverError(attempted, f"the tables changed during {DUMP_ATTEMPTS} dumps")

    def _set_strict(self, *, wanted: bool, attempted: str) -> None:
        """Have the kernel read the headers of dumps strictly, or not."""
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, int(wanted))
        except OSError as exc:
            raise NetlinkError(attempted, exc.errno or 0) from exc
        self._strict = wanted

    def batch(self, requests: Sequence[Request], *, attempted: str = "") -> list[int]:
        """Send many messages with one system call a BATCH_MAX; return an errno for each, 0 = done.

        A refused message does not stop the later ones. Not for dumps.
        Raises DriverError when the kernel does not answer at all.
        """
        attempted = attempted or f"netlink batch of {len(requests)}"
        codes: list[int] = []
        for start in range(0, len(requests), BATCH_MAX):
            codes += self._batch_part(requests[start : start + BATCH_MAX], attempted)
        return codes

    def _batch_part(self, requests: Sequence[Request], attempted: str) -> list[int]:
        """Send one part: only the last message asks for an answer, failures answer anyway."""
        last = len(requests) - 1
        self._send(
            [
                (kind, flags | NLM_F_ACK if index == last else flags & ~NLM_F_ACK, body)
                for index, (kind, flags, body) in enumerate(requests)
            ],
            attempted,
        )
        first = self._sequence - last
        codes = [0] * len(requests)
        while True:
            for kind, _flags, sequence, body in self._receive(attempted):
                index = sequence - first
                if kind != NLMSG_ERROR or not 0 <= index <= last:
                    continue
                codes[index] = -int(_ERROR.unpack_from(body)[0])
                if index == last:
                    return codes

    def _send(self, requests: Sequence[Request], attempted: str) -> None:
        """Frame and send the messages as one datagram."""
        data = bytearray()
        if self._sequence + len(requests) > SEQUENCE_MAX:
            self._sequence = 0
        for kind, flags, body in requests:
            self._sequence += 1
            data += _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
            data += body
            data += bytes(-len(body) % 4)
        try:
            self._socket.send(data)
        except OSError as exc:
            raise NetlinkError(attempted, exc.errno or 0) from exc

    def _receive(self, attempted: str) -> Iterator[tuple[int, int, int, bytes]]:
        """Read one datagram of the kernel and yield its messages."""
        try:
            size, sender = self._socket.recvfrom_into(self._buffer)
        except OSError as exc:
            if exc.errno == errno.EAGAIN:
                reason = f"the kernel did not answer within {ANSWER_SECONDS_MAX} s"
                raise DriverError(attempted, reason) from exc
            raise NetlinkError(attempted, exc.errno or 0) from exc
        if sender[0] != 0:  # another process cannot speak for the kernel
            return iter(())
        return iterate_messages(memoryview(self._buffer)[:size])

    def _read_one(self, sequence: int, attempted: str) -> tuple[list[Answer], bool]:
        """Collect answers to `sequence` up to its end; also say whether a dump was disturbed."""
        answers: list[Answer] = []
        disturbed = False
        while True:
            for kind, flags, got, body in self._receive(attempted):
                if got != sequence or kind == NLMSG_NOOP:
                    continue
                disturbed = disturbed or bool(flags & NLM_F_DUMP_INTR)
                if kind not in {NLMSG_ERROR, NLMSG_DONE}:
                    answers.append((kind, body))
                    continue
                code = -int(_ERROR.unpack_from(body)[0]) if len(body) >= 4 else 0
                if code:
                    raise NetlinkError(attempted, code, _refusal_text(flags, body))
                return answers, disturbed
