"""Send many prepared frames quickly: gratuitous ARP and unsolicited neighbour advertisements.

The frames are made by `wire` and belong on the interface of the socket that is given. One system
call a frame: a thousand take 1.3 ms, and sendmmsg(2) was measured to be no faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from carpool.drivers.rawsock import interface_failed

_QUEUE_FULL: Final = frozenset({"ENOBUFS", "EAGAIN"})


class SendsFrames(Protocol):
    """Anything that sends a frame and returns "" or the errno's name: `rawsock.PacketSocket`."""

    def send(self, frame: bytes) -> str:
        """Send one frame."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What became of the frames."""

    sent: int
    failures: dict[str, int]  # errno name -> frames
    unsent: tuple[bytes, ...]  # to be tried again


def announce(way: SendsFrames, frames: Sequence[bytes]) -> Announced:
    """Send `frames` in order without waiting.

    A frame that is refused is passed over and returned in `unsent`. When the queue is full or the
    interface is down the rest is not tried, and is returned too.
    """
    sent = 0
    failures: dict[str, int] = {}
    unsent: list[bytes] = []
    for place, frame in enumerate(frames):
        reason = way.send(frame)
        if not reason:
            sent += 1
            continue
        hopeless = reason in _QUEUE_FULL or interface_failed(reason)
        lost = frames[place:] if hopeless else [frame]
        failures[reason] = failures.get(reason, 0) + len(lost)
        unsent.extend(lost)
        if hopeless:
            break
    return Announced(sent, failures, tuple(unsent))
