"""The peer link's session: handshake, keys, rotation, and everything an attacker may send."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.base.errors import DecodeError, LocalError, Reject
from carpool.wire import peer
from carpool.wire.peer import Accept, Goodbye, Heartbeat
from carpool.wire.session import Identity, Role, Session

QUICK = settings(max_examples=150, deadline=None)
OLD_KEY = {1: b"old key, 16 bytes"}
NEW_KEY = {2: b"new key, 16 bytes" * 8}
ALPHA = Identity("example", "alpha", b"A" * 16, "0.1.0")
BRAVO = Identity("example", "bravo", b"B" * 16, "0.1.0")
HEARTBEAT = Heartbeat("7", 1, ())


def initiator(
    keys: dict[int, bytes] = OLD_KEY, me: Identity = ALPHA, nonce: bytes = b"a" * 16
) -> Session:
    """Return alpha's end."""
    return Session(Role.INITIATOR, me, nonce, keys, {"bravo"})


def acceptor(
    keys: dict[int, bytes] = OLD_KEY, me: Identity = BRAVO, nonce: bytes = b"b" * 16
) -> Session:
    """Return bravo's end."""
    return Session(Role.ACCEPTOR, me, nonce, keys, {"alpha", "charlie"})


def shake(one: Session, other: Session) -> None:
    """Carry the handshake to its end."""
    assert not other.start()
    one_ready = one.receive(other.receive(one.start()).reply).reply
    assert one.established
    assert not other.established
    assert not other.receive(one_ready).reply
    assert other.established


def established() -> tuple[Session, Session]:
    """Return both ends after a good handshake."""
    one, other = initiator(), acceptor()
    shake(one, other)
    return one, other


def refusal(session: Session, data: bytes) -> Reject:
    """Return why `session` refuses `data`; it is over then."""
    with pytest.raises(DecodeError) as caught:
        session.receive(data)
    assert not session.established
    with pytest.raises(LocalError):
        session.send(HEARTBEAT)
    return caught.value.reason


def test_handshake_and_messages() -> None:
    """Both ends know each other, and messages come through in order, both ways."""
    one, other = established()
    assert one.peer is not None
    assert other.peer is not None
    assert (one.peer.node, one.peer.instance) == ("bravo", b"B" * 16)
    assert (other.peer.node, other.peer.version) == ("alpha", "0.1.0")
    data = one.send(HEARTBEAT) + one.send(Accept("edge", 1))
    assert other.receive(data).messages == (HEARTBEAT, Accept("edge", 1))
    assert one.receive(other.send(Goodbye("stop"))).messages == (Goodbye("stop"),)


def test_stream_in_single_bytes() -> None:
    """How TCP cuts the stream does not matter."""
    one, other = initiator(), acceptor()
    to_other = one.start()
    heard: list[object] = []
    while to_other:
        to_one = b""
        for value in to_other:
            received = other.receive(bytes([value]))
            to_one += received.reply
            heard += received.messages
        to_other = b"".join(one.receive(bytes([value])).reply for value in to_one)
    assert other.established
    for value in one.send(HEARTBEAT):
        heard += other.receive(bytes([value])).messages
    assert heard == [HEARTBEAT]


def test_acceptor_is_silent_to_strangers() -> None:
    """Nothing is said before an authenticated Hello has come."""
    assert acceptor().start() == b""
    assert acceptor().receive(initiator().start()[:-1]).reply == b""


def test_wrong_key() -> None:
    """Another secret under the same id is refused by its authenticator."""
    assert refusal(acceptor({1: b"some other secret"}), initiator().start()) is Reject.PEER_MAC


def test_unknown_key_id() -> None:
    """A key id that is not ours is refused before anything is computed."""
    assert refusal(acceptor(NEW_KEY), initiator().start()) is Reject.PEER_KEY


@pytest.mark.parametrize(
    ("ours", "theirs", "key_id"),
    [
        (OLD_KEY, {**OLD_KEY, **NEW_KEY}, 1),
        ({**OLD_KEY, **NEW_KEY}, OLD_KEY, 1),
        ({**NEW_KEY, **OLD_KEY}, {**OLD_KEY, **NEW_KEY}, 2),
        ({**NEW_KEY, **OLD_KEY}, NEW_KEY, 2),
    ],
)
def test_rotation(ours: dict[int, bytes], theirs: dict[int, bytes], key_id: int) -> None:
    """At each step of a rotation the initiator's first key is used by both."""
    one, other = initiator(ours), acceptor(theirs)
    shake(one, other)
    assert one.key_id == other.key_id == key_id
    assert other.receive(one.send(HEARTBEAT)).messages == (HEARTBEAT,)


def test_own_hello_reflected() -> None:
    """A Hello sent back to its sender is not a peer."""
    one = initiator()
    assert refusal(one, one.start()) is Reject.PEER_MAC


def test_own_message_reflected() -> None:
    """A frame of one direction is nothing in the other."""
    one, _ = established()
    assert refusal(one, one.send(HEARTBEAT)) is Reject.PEER_MAC


def test_frame_replayed() -> None:
    """A frame that comes twice ends the session."""
    one, other = established()
    frame = one.send(HEARTBEAT)
    other.receive(frame)
    assert refusal(other, frame) is Reject.PEER_SEQUENCE


def test_frame_left_out() -> None:
    """A frame that was cut out of the stream is missed."""
    one, other = established()
    one.send(HEARTBEAT)
    assert refusal(other, one.send(HEARTBEAT)) is Reject.PEER_SEQUENCE


def test_frame_of_another_session() -> None:
    """The same nodes with the same secret make other keys for each connection."""
    one, _ = established()
    _, other = initiator(nonce=b"x" * 16), acceptor()
    shake(_, other)
    assert refusal(other, one.send(HEARTBEAT)) is Reject.PEER_MAC


def test_old_initiator_replayed() -> None:
    """A recorded Hello is answered, but its Ready does not fit the fresh nonce."""
    one, other = initiator(), acceptor()
    recorded_hello = one.start()
    recorded_ready = one.receive(other.receive(recorded_hello).reply).reply
    fresh = acceptor(nonce=b"y" * 16)
    fresh.receive(recorded_hello)
    assert refusal(fresh, recorded_ready) is Reject.PEER_MAC


def test_old_acceptor_replayed() -> None:
    """A recorded answer is not taken for the peer."""
    one, other = initiator(), acceptor()
    recorded = other.receive(one.start()).reply
    fresh = initiator(nonce=b"z" * 16)
    fresh.start()
    assert refusal(fresh, recorded) is Reject.PEER_MAC


def test_wrong_site() -> None:
    """The same secret in another site is refused."""
    stranger = Identity("other", "alpha", b"A" * 16)
    assert refusal(acceptor(), initiator(me=stranger).start()) is Reject.SOURCE


@pytest.mark.parametrize("name", ["delta", "bravo"])
def test_unknown_node(name: str) -> None:
    """A node that is not expected on this connection, or has our own name, is refused."""
    stranger = Identity("example", name, b"A" * 16)
    assert refusal(acceptor(), initiator(me=stranger).start()) is Reject.SOURCE


def test_unexpected_acceptor() -> None:
    """The initiator, too, knows whom it calls."""
    one = initiator()
    other = acceptor(me=Identity("example", "charlie", b"C" * 16))
    assert refusal(one, other.receive(one.start()).reply) is Reject.SOURCE


def test_message_before_its_time() -> None:
    """A frame that does not fit the state is refused: early message, second Hello."""
    early = peer.seal(peer.encode(HEARTBEAT), key=b"k", key_id=1, sequence=0)
    assert refusal(acceptor(), early) is Reject.PEER_TYPE
    one, other = established()
    assert refusal(other, initiator().start()) is Reject.PEER_TYPE
    with pytest.raises(LocalError):
        initiator().send(HEARTBEAT)
    assert one.established


def test_probe_says_nothing() -> None:
    """A probe is authenticated and counted in sequence, and neither heard nor answered."""
    one, other = established()
    received = other.receive(one.probe() + one.send(HEARTBEAT))
    assert (received.messages, received.reply) == ((HEARTBEAT,), b"")
    with pytest.raises(LocalError):
        acceptor().probe()


def test_over_stays_over() -> None:
    """After an error even good frames are refused."""
    one, other = established()
    good = one.send(HEARTBEAT)
    with pytest.raises(DecodeError):
        other.receive(b"x" * 16)
    with pytest.raises(DecodeError):
        other.receive(good)


def test_key_id_changed_in_session() -> None:
    """A session stays with its key, even if the other one is known as well."""
    keys = {**OLD_KEY, **NEW_KEY}
    one, other = initiator(keys), acceptor(keys)
    shake(one, other)
    frame = bytearray(one.send(HEARTBEAT))
    frame[7] = 2
    assert refusal(other, bytes(frame)) is Reject.PEER_KEY


def test_truncated_waits() -> None:
    """Part of a frame is no message and no error."""
    one, other = established()
    frame = one.send(HEARTBEAT)
    for length in range(len(frame)):
        waiting = established()[1]
        assert waiting.receive(frame[:length]).messages == ()
    assert other.receive(frame).messages == (HEARTBEAT,)


def test_buffer_is_bounded() -> None:
    """A stranger can make us hold one Hello at most, a peer one frame."""
    header = peer.seal(peer.encode(HEARTBEAT), key=b"k", key_id=1, sequence=0)[:16]
    too_long = header[:3] + b"\x01" + (peer.HELLO_PAYLOAD_BYTES_MAX + 1).to_bytes(2) + header[6:]
    assert refusal(acceptor(), too_long) is Reject.PEER_LENGTH
    _, other = established()
    too_long = header[:4] + (peer.PAYLOAD_BYTES_MAX + 1).to_bytes(2) + header[6:]
    assert refusal(other, too_long) is Reject.PEER_LENGTH


def test_promises_of_the_caller() -> None:
    """No key and a short nonce are our own mistakes."""
    with pytest.raises(LocalError):
        initiator({})
    with pytest.raises(LocalError):
        initiator(nonce=b"short")


@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans(), st.booleans())
@QUICK
def test_any_bytes(pieces: list[bytes], dialled: bool, after_handshake: bool) -> None:
    """Whatever comes, in whatever state: nothing happens, or DecodeError."""
    ends = established() if after_handshake else (initiator(), acceptor())
    session = ends[0] if dialled else ends[1]
    with suppress(DecodeError):
        for piece in pieces:
            received = session.receive(piece)
            assert received.messages == ()
            assert received.reply == b""


@given(st.data())
@QUICK
def test_any_bit_flipped(data: st.DataObject) -> None:
    """A flipped bit anywhere in a handshake and its messages never lets a changed thing through."""
    one, other = initiator(), acceptor()
    stage = data.draw(st.integers(0, 3))
    heard: tuple[object, ...] = ()
    to_other = one.start()
    try:
        for step in range(4):
            if step == stage:
                piece = bytearray(to_other)
                bit = data.draw(st.integers(0, len(piece) * 8 - 1))
                piece[bit // 8] ^= 1 << bit % 8
                to_other = bytes(piece)
            if step == 0:
                to_one = other.receive(to_other).reply
                to_other = to_one
            elif step == 1:
                to_other = one.receive(to_other).reply
            elif step == 2:
                other.receive(to_other)
                to_other = one.send(HEARTBEAT) if other.established else b"\0"
            else:
                heard = other.receive(to_other).messages
    except DecodeError:
        pass
    assert heard == ()
