"""The stand-in for a service on a node: says who answers, from the address that was asked.

    python -m carpool.lab.responder NAME

    question  8 bytes of the asker's choice
    answer    the same 8 bytes, then NAME

It listens on every address, UDP port 7007; the answer leaves from the address that was asked
(IP_PKTINFO, IPV6_PKTINFO), and from nowhere if the node does not hold that address any more.
"""

import select
import socket
import struct
import sys
from typing import Final

from carpool.lab.stamps import (
    IP_PKTINFO,
    IPV6_PKTINFO,
    IPV6_RECVPKTINFO,
    StopFlag,
    prefer_real_time,
)

PORT: Final = 7007
QUESTION_BYTES: Final = 8
_IN_PKTINFO: Final = struct.Struct("@I4s4s")
_IN6_PKTINFO: Final = struct.Struct("@16sI")
_WAKE_S: Final = 1.0  # how often to look for the stop flag


def listeners() -> list[socket.socket]:
    """Return the two sockets, v4 and v6."""
    four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    four.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    four.bind(("0.0.0.0", PORT))  # noqa: S104  every address is what a shared address needs
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    six.bind(("::", PORT))
    for each in (four, six):
        each.setblocking(False)
    return [four, six]


def source_of(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that makes an answer leave from the address that was asked."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            _, _, asked = _IN_PKTINFO.unpack_from(data)
            return [(level, kind, _IN_PKTINFO.pack(0, asked, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            return [(level, kind, data)]
    return []


def answer_all(endpoint: socket.socket, name: bytes) -> None:
    """Answer everything that waits in `endpoint`."""
    while True:
        try:
            question, ancillary, _, sender = endpoint.recvmsg(64, 128)
            if len(question) == QUESTION_BYTES:
                endpoint.sendmsg([question + name], source_of(ancillary), 0, sender)
        except BlockingIOError:
            return
        except OSError:  # the address left while the question was on its way: no answer is right
            continue


def main(arguments: list[str]) -> int:
    """Answer until told to stop."""
    name = arguments[0].encode()
    stop = StopFlag()
    refused = prefer_real_time()
    if refused:
        sys.stderr.write(refused + "\n")
    endpoints = listeners()
    while not stop:
        ready, _, _ = select.select(endpoints, [], [], _WAKE_S)
        for endpoint in ready:
            answer_all(endpoint, name)
    for endpoint in endpoints:
        endpoint.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
