"""Many frames at once, into a queue that fills and refuses as it is told."""

import pytest

from carpool.drivers.announce import announce


class Queue:
    """Takes so many frames, and refuses the ones it is told to refuse."""

    def __init__(self, room: int, *, full: str = "EAGAIN", refused: bytes = b"") -> None:
        self.taken: list[bytes] = []
        self.room = room
        self.full = full
        self.refused = refused

    def send(self, frame: bytes) -> str:
        """Take a frame or say why not."""
        if frame == self.refused:
            return "EMSGSIZE"
        if len(self.taken) >= self.room:
            return self.full
        self.taken.append(frame)
        return ""


FRAMES = [bytes([number]) for number in range(20)]


def test_all_in_order() -> None:
    """With room for all, all are sent in order, and none is left; nothing to send is no failure."""
    queue = Queue(20)
    result = announce(queue, FRAMES)
    assert queue.taken == FRAMES
    assert (result.sent, result.failures, result.unsent) == (20, {}, ())
    assert announce(queue, []).failures == {}


@pytest.mark.parametrize("reason", ["EAGAIN", "ENOBUFS", "ENETDOWN", "ENODEV"])
def test_hopeless_attempt_ends(reason: str) -> None:
    """A full queue or a lost interface ends the attempt; what is left can be sent later."""
    queue = Queue(7, full=reason)
    result = announce(queue, FRAMES)
    assert result.sent == 7
    assert result.failures == {reason: 13}
    assert list(result.unsent) == FRAMES[7:]
    queue.room = 20
    assert announce(queue, result.unsent).sent == 13
    assert queue.taken == FRAMES


def test_bad_frame_is_passed_over() -> None:
    """A frame that is refused for itself is counted and stops no other."""
    queue = Queue(20, refused=FRAMES[3])
    result = announce(queue, FRAMES)
    assert result.sent == 19
    assert result.failures == {"EMSGSIZE": 1}
    assert result.unsent == (FRAMES[3],)
