"""The peer link's messages and frames: golden bytes, identity, and every reason to refuse."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.base.errors import DecodeError, LocalError, Reject
from carpool.wire import peer
from carpool.wire.peer import (
    Accept,
    FrameType,
    Goodbye,
    GroupReport,
    Heartbeat,
    Hello,
    Offer,
    Ready,
    Refuse,
    Request,
    Taken,
    Transfer,
)

QUICK = settings(max_examples=150, deadline=None)
KEY = b"k" * 32

names = st.text(min_size=1, max_size=64).filter(str.isprintable)
texts = st.text(max_size=64).filter(str.isprintable)
reasons = st.text(max_size=200).filter(str.isprintable)
identifiers = st.binary(min_size=16, max_size=16)
u64 = st.integers(0, 2**64 - 1)
byte = st.integers(0, 255)
addresses = st.ip_addresses().map(str)
reports = st.builds(
    GroupReport,
    group=names,
    state=st.sampled_from(["INIT", "BACKUP", "MASTER"]),
    advbase=byte,
    advskew=byte,
    demote=st.integers(0, 65535),
    paused=st.booleans(),
    ready=st.booleans(),
    hears=texts,
    sources=st.lists(addresses, max_size=4).map(tuple),
)
messages = st.one_of(
    st.builds(Hello, names, names, identifiers, identifiers, texts),
    st.just(Ready()),
    st.builds(Heartbeat, texts, u64, st.lists(reports, max_size=4).map(tuple)),
    st.builds(Request, names, u64, reasons),
    st.builds(Offer, names, u64, reasons, st.booleans()),
    st.builds(Accept, names, u64),
    st.builds(Refuse, names, u64, reasons),
    st.builds(Transfer, names, u64),
    st.builds(Taken, names, u64),
    st.builds(Goodbye, reasons),
)
REPORT = GroupReport("edge", "MASTER", 1, 0, 0, False, True, "", ("192.0.2.11",))
HELLO = Hello("example", "alpha", b"\x11" * 16, b"\x22" * 16, "0.1.0")


def outcome(call: Callable[[], object]) -> object:
    """Return what `call` returns, or the reason of its DecodeError."""
    try:
        return call()
    except DecodeError as refused:
        return refused.reason


def reason_of(kind: FrameType, payload: bytes) -> Reject:
    """Return why `payload` is refused."""
    with pytest.raises(DecodeError) as caught:
        peer.decode(kind, payload)
    return caught.value.reason


def test_golden_frame() -> None:
    """The bytes of version 1 do not change by accident."""
    frame = peer.seal(peer.encode(Accept("edge", 7)), key=KEY, key_id=3, sequence=258)
    assert frame[:16].hex() == "63700106001b00030000000000000102"
    assert frame[16:-16] == b'{"group":"edge","serial":7}'
    assert frame[-16:].hex() == "da9551248015510f07c23b6b0e41adb6"


@given(messages, st.integers(0, 65535), u64)
@QUICK
def test_decode_of_encode_is_the_identity(
    message: peer.AnyMessage, key_id: int, sequence: int
) -> None:
    """Every message comes back equal, with its key id and sequence."""
    frame = peer.seal(peer.encode(message), key=KEY, key_id=key_id, sequence=sequence)
    header = peer.read_header(frame)
    peer.check_mac(frame, KEY)
    assert (header.key_id, header.sequence, header.frame_bytes) == (key_id, sequence, len(frame))
    assert peer.decode(header.kind, frame[16:-16]) == message


@given(st.binary(max_size=300), st.sampled_from(FrameType))
@QUICK
def test_any_payload_gives_a_message_or_a_decode_error(payload: bytes, kind: FrameType) -> None:
    """No payload raises anything but DecodeError(PEER_FORMAT)."""
    result = outcome(lambda: peer.encode(peer.decode(kind, payload)).kind)
    assert result in (kind, Reject.PEER_FORMAT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(messages, json_values, st.data())
@QUICK
def test_any_value_in_a_field_gives_a_message_or_a_decode_error(
    message: peer.AnyMessage, value: object, data: st.DataObject
) -> None:
    """A field with whatever JSON value in it is taken or refused, never anything else."""
    encoded = peer.encode(message)
    fields: dict[str, Any] = json.loads(encoded.payload)
    if fields:
        fields[data.draw(st.sampled_from(sorted(fields)))] = value
    payload = json.dumps(fields).encode()
    result = outcome(lambda: type(peer.decode(encoded.kind, payload)))
    assert result in (type(message), Reject.PEER_FORMAT)


@given(st.binary(max_size=40))
@QUICK
def test_any_header_gives_a_header_or_a_decode_error(data: bytes) -> None:
    """No header raises anything but DecodeError."""
    result = outcome(lambda: peer.read_header(data).payload_bytes <= peer.PAYLOAD_BYTES_MAX)
    assert result is True or str(result).startswith("peer-")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("6370010600", Reject.PEER_LENGTH),
        ("6371010600190003" + "00" * 8, Reject.PEER_MAGIC),
        ("6370020600190003" + "00" * 8, Reject.PEER_VERSION),
        ("6370010000190003" + "00" * 8, Reject.PEER_TYPE),
        ("6370010b00190003" + "00" * 8, Reject.PEER_TYPE),
        ("6370010680010003" + "00" * 8, Reject.PEER_LENGTH),
        ("6370010110010003" + "00" * 8, Reject.PEER_LENGTH),
    ],
)
def test_headers_refused(start: str, reason: Reject) -> None:
    """Each fault of a header has its reason; a Hello may be 4 KiB, a message 32 KiB."""
    with pytest.raises(DecodeError) as caught:
        peer.read_header(bytes.fromhex(start))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (FrameType.ACCEPT, b""),
        (FrameType.ACCEPT, b"[]"),
        (FrameType.ACCEPT, b'{"group":"edge"}'),
        (FrameType.ACCEPT, b'{"group":"edge","serial":1,"more":1}'),
        (FrameType.ACCEPT, b'{"group":"edge","group":"other","serial":1}'),
        (FrameType.ACCEPT, b'{"group":"edge","serial":true}'),
        (FrameType.ACCEPT, b'{"group":"edge","serial":1.0}'),
        (FrameType.ACCEPT, b'{"group":"edge","serial":NaN}'),
        (FrameType.ACCEPT, b'{"group":"edge","serial":-1}'),
        (FrameType.ACCEPT, b'{"group":"edge","serial":18446744073709551616}'),
        (FrameType.ACCEPT, b'{"group":"edge","serial":' + b"9" * 5000 + b"}"),
        (FrameType.ACCEPT, b'{"group":"","serial":1}'),
        (FrameType.ACCEPT, b'{"group":"' + b"x" * 65 + b'","serial":1}'),
        (FrameType.ACCEPT, b'{"group":"a\\nb","serial":1}'),
        (FrameType.ACCEPT, b'{"group":"\\ud800","serial":1}'),
        (FrameType.ACCEPT, b'{"group":"\xff","serial":1}'),
        (FrameType.ACCEPT, '{"group":"edge","serial":1}'.encode("utf-16")),
        (FrameType.ACCEPT, b"[" * 30000),
        (FrameType.GOODBYE, b'{"reason":"' + b"x" * 201 + b'"}'),
        (FrameType.READY, b'{"a":1}'),
        (FrameType.HELLO, b'{"site":"s","node":"n","instance":"00","nonce":"00","version":""}'),
    ],
)
def test_payloads_refused(kind: FrameType, payload: bytes) -> None:
    """Keys, types, lengths, ranges, spelling and nesting are judged strictly."""
    assert reason_of(kind, payload) is Reject.PEER_FORMAT


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", "DEAD"),
        ("advskew", 256),
        ("paused", 0),
        ("hears", None),
        ("sources", ["host.example"]),
        ("sources", ["192.0.2.1"] * 17),
        ("sources", "192.0.2.1"),
    ],
)
def test_reports_refused(key: str, value: object) -> None:
    """A heartbeat with one wrong value in one report is refused whole."""
    fields: dict[str, Any] = json.loads(peer.encode(Heartbeat("7", 1, (REPORT,))).payload)
    fields["groups"][0][key] = value
    assert reason_of(FrameType.HEARTBEAT, json.dumps(fields).encode()) is Reject.PEER_FORMAT


def test_mac_covers_every_bit() -> None:
    """Any flipped bit of a frame is found."""
    frame = peer.seal(peer.encode(Accept("edge", 7)), key=KEY, key_id=3, sequence=9)
    for bit in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError) as caught:
            peer.check_mac(bytes(flipped), KEY)
        assert caught.value.reason is Reject.PEER_MAC


def test_reasons_are_cut_and_cleaned() -> None:
    """A reason of ours that is too long or has a line break is sent shortened, not refused."""
    encoded = peer.encode(Goodbye("a\nb" + "x" * 300))
    assert peer.decode(encoded.kind, encoded.payload) == Goodbye("a?b" + "x" * 197)


def test_our_own_mistake_is_a_local_error() -> None:
    """A message that nobody would accept is not sent."""
    with pytest.raises(LocalError, match="group"):
        peer.encode(Accept("", 1))
    with pytest.raises(LocalError, match="bytes"):
        peer.encode(Heartbeat("7", 1, (REPORT,) * 255))


def test_many_groups_take_several_heartbeats() -> None:
    """255 groups with the longest names fit, in order, each heartbeat within its frame."""
    long = GroupReport("\U0001f600" * 64, "BACKUP", 1, 0, 0, False, True, "n", ("::1",) * 16)
    for groups in ((REPORT,), (REPORT,) * 255, (long,) * 255, ()):
        parts = peer.heartbeats("7", 5, groups)
        assert tuple(report for part in parts for report in part.groups) == groups
        assert all(len(peer.encode(part).payload) <= peer.PAYLOAD_BYTES_MAX for part in parts)
    assert len(peer.heartbeats("7", 5, (REPORT,) * 100)) == 1


def test_hello_is_small() -> None:
    """The longest possible Hello fits the limit for strangers."""
    longest = Hello("\U0001f600" * 64, "\U0001f600" * 64, b"i" * 16, b"n" * 16, "\U0001f600" * 64)
    assert len(peer.encode(longest).payload) <= peer.HELLO_PAYLOAD_BYTES_MAX
    assert len(peer.encode(HELLO).payload) < 200
