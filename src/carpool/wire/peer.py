"""The peer link's messages and their frames: bytes <-> frozen dataclasses.

Follows ARCHITECTURE.md "Peer link"; the protocol is our own, version 1, over TCP.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---------------+---------------+---------------+---------------+
    |  'c'  (0x63)  |  'p'  (0x70)  |  version = 1  |     type      |
    +---------------+---------------+---------------+---------------+
    |   payload length, at most 32 KiB  |          key id           |
    +---------------+---------------+---------------+---------------+
    |                    sequence, 64 bits, from 0,                 |
    |               one more with every frame of a direction        |
    +---------------+---------------+---------------+---------------+
    |         payload: one JSON object, UTF-8, no other keys        |
    |                 than the message's own fields                 |
    +---------------+---------------+---------------+---------------+
    |         BLAKE2b, keyed, 16 bytes, over everything above       |
    +---------------+---------------+---------------+---------------+

All numbers in network order. Which key seals which frame is told in `carpool.wire.session`. The
link is authenticated, not encrypted: nothing in it is secret.

Hand-over of a group: Request (a backup asks the master), Offer (the master names its successor),
Accept or Refuse, Transfer (the master has stopped), Taken. Serials tie the answers to the question;
a message travels over every live path and so arrives more than once.
"""

import hmac
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from carpool.base.errors import DecodeError, LocalError, Reject

MAGIC: Final = b"cp"
VERSION: Final = 1
HEADER_BYTES: Final = 16
MAC_BYTES: Final = 16  # 128 bits: as strong as the shortest site key that is accepted
PAYLOAD_BYTES_MAX: Final = 32 * 1024  # about 150 ordinary group reports; bounds a buffer
HELLO_PAYLOAD_BYTES_MAX: Final = (
    4 * 1024
)  # three longest names; all that a stranger can make us hold
NAME_LENGTH_MAX: Final = 64  # characters of a site, node or group name
REASON_LENGTH_MAX: Final = 200  # characters: one line of the journal
SOURCES_MAX: Final = 16  # addresses one group's advertisements may come from
REPORTS_MAX: Final = 255  # groups on one node: the gate has that many slots
DEMOTE_MAX: Final = 65535
IDENTIFIER_BYTES: Final = 16  # instance and nonce: never repeated by chance
_REPORT_BYTES_WORST: Final = 2600  # every character of every name an escaped surrogate pair
_HEADER: Final = struct.Struct("!2sBBHHQ")
_ADDRESS: Final = re.compile(r"[0-9a-f:.]{2,45}")
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]{32}")


class FrameType(IntEnum):
    """The fourth byte of a frame."""

    HELLO = 1
    READY = 2
    HEARTBEAT = 3
    REQUEST = 4
    OFFER = 5
    ACCEPT = 6
    REFUSE = 7
    TRANSFER = 8
    TAKEN = 9
    GOODBYE = 10


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks. `instance` is random for each `elect` process: another one is a restart."""

    site: str
    node: str
    instance: bytes  # 16 bytes
    nonce: bytes  # 16 bytes, random for each connection
    version: str  # of the program, for `status`


@dataclass(frozen=True, slots=True)
class Ready:
    """The first frame under the session's own key: proof that neither Hello was an old one.

    Later it is a probe, without an answer.
    """


@dataclass(frozen=True, slots=True)
class GroupReport:
    """One group as the sender of a heartbeat sees it."""

    group: str
    state: str  # "INIT" | "BACKUP" | "MASTER"
    advbase: int
    advskew: int
    demote: int
    paused: bool
    ready: bool  # would serve if it were asked now
    hears: str  # the node whose advertisements it hears, "" if none
    sources: tuple[str, ...]  # addresses its own advertisements come from


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The sender is alive. A group that is not in `groups` may be in the next heartbeat."""

    revision: str
    sent_at: int  # the sender's own clock: only the sender can compare it
    groups: tuple[GroupReport, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A backup asks the master to hand the group over to it."""

    group: str
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The master asks the receiver to be its successor."""

    group: str
    serial: int
    reason: str
    hold: bool = False  # ordered by an operator: do not give it back to a better node by yourself


@dataclass(frozen=True, slots=True)
class Accept:
    """The successor is ready and waits for the Transfer."""

    group: str
    serial: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The receiver of an Offer or a Request will not, and why."""

    group: str
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """The old master has shut its gate: the successor may serve now."""

    group: str
    serial: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The successor serves."""

    group: str
    serial: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender closes this connection on purpose; its end says nothing about the sender."""

    reason: str


Message: TypeAlias = Heartbeat | Request | Offer | Accept | Refuse | Transfer | Taken | Goodbye
"""What an established session carries."""

AnyMessage: TypeAlias = Hello | Ready | Message


@dataclass(frozen=True, slots=True)
class Header:
    """The first 16 bytes of a frame."""

    kind: FrameType
    payload_bytes: int
    key_id: int
    sequence: int

    @property
    def frame_bytes(self) -> int:
        """The length of the whole frame."""
        return HEADER_BYTES + self.payload_bytes + MAC_BYTES


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message as bytes, not sealed yet: encode once, seal for every connection."""

    kind: FrameType
    payload: bytes


def encode(message: AnyMessage) -> Encoded:
    """Return `message` as a payload.

    A reason that is too long or not printable is cut and cleaned: it is text for a person. Every
    other limit that is broken is our own mistake and raises LocalError.
    """
    plain = _plain(message)
    if "reason" in plain:
        plain["reason"] = _clean_reason(str(plain["reason"]))
    try:
        _build(type(message), plain)
    except ValueError as wrong:
        raise LocalError(f"cannot send {type(message).__name__}: {wrong}") from wrong
    payload = json.dumps(plain, separators=(",", ":")).encode("ascii")
    kind = _TYPE_OF[type(message)]
    if len(payload) > _payload_bytes_max(kind):
        raise LocalError(f"cannot send {type(message).__name__}: {len(payload)} bytes")
    return Encoded(kind, payload)


def seal(encoded: Encoded, *, key: bytes, key_id: int, sequence: int) -> bytes:
    """Return the frame of `encoded`, authenticated with `key` (at most 64 bytes)."""
    head = _HEADER.pack(MAGIC, VERSION, encoded.kind, len(encoded.payload), key_id, sequence)
    body = head + encoded.payload
    return body + _mac(body, key)


def read_header(data: bytes) -> Header:
    """Return the header in the first 16 bytes of `data`.

    Raises DecodeError(reason): PEER_LENGTH (fewer than 16 bytes), PEER_MAGIC, PEER_VERSION,
    PEER_TYPE, PEER_LENGTH (payload longer than its type allows), in that order.
    """
    if len(data) < HEADER_BYTES:
        raise DecodeError(Reject.PEER_LENGTH, f"{len(data)} bytes of header")
    magic, version, type_number, payload_bytes, key_id, sequence = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DecodeError(Reject.PEER_MAGIC, magic.hex())
    if version != VERSION:
        raise DecodeError(Reject.PEER_VERSION, f"version {version}, ours is {VERSION}")
    try:
        kind = FrameType(type_number)
    except ValueError:
        raise DecodeError(Reject.PEER_TYPE, f"type {type_number}") from None
    if payload_bytes > _payload_bytes_max(kind):
        raise DecodeError(Reject.PEER_LENGTH, f"payload of {payload_bytes} bytes")
    return Header(kind, payload_bytes, key_id, sequence)


def check_mac(frame: bytes, key: bytes) -> None:
    """Raise DecodeError(PEER_MAC) unless the last 16 bytes of `frame` authenticate the rest."""
    if not hmac.compare_digest(_mac(frame[:-MAC_BYTES], key), frame[-MAC_BYTES:]):
        raise DecodeError(Reject.PEER_MAC)


def decode(kind: FrameType, payload: bytes) -> AnyMessage:
    """Return the message of type `kind` in `payload`; the caller has authenticated it.

    Raises DecodeError(PEER_FORMAT): not JSON, a key missing, unknown or twice, a wrong type, a text
    too long or not printable, a number out of its range.
    """
    try:
        value = json.loads(
            payload.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
        message: AnyMessage = _build(_CLASS_OF[kind], value)
    except (ValueError, RecursionError) as wrong:
        raise DecodeError(
            Reject.PEER_FORMAT, f"{kind.name}: {wrong}"[:REASON_LENGTH_MAX]
        ) from wrong
    return message


def heartbeats(revision: str, sent_at: int, groups: Sequence[GroupReport]) -> tuple[Heartbeat, ...]:
    """Return as many heartbeats as `groups` needs to fit into frames; one, as a rule."""
    room = PAYLOAD_BYTES_MAX - _REPORT_BYTES_WORST
    if len(groups) * _REPORT_BYTES_WORST <= room:
        return (Heartbeat(revision, sent_at, tuple(groups)),)
    parts: list[list[GroupReport]] = [[]]
    used = 0
    for report in groups:
        size = len(json.dumps(_plain(report), separators=(",", ":"))) + 1
        if parts[-1] and (used + size > room or len(parts[-1]) == REPORTS_MAX):
            parts.append([])
            used = 0
        parts[-1].append(report)
        used += size
    return tuple(Heartbeat(revision, sent_at, tuple(part)) for part in parts)


def _mac(body: bytes, key: bytes) -> bytes:
    return blake2b(body, key=key, digest_size=MAC_BYTES).digest()


def _payload_bytes_max(kind: FrameType) -> int:
    small = kind in (FrameType.HELLO, FrameType.READY)
    return HELLO_PAYLOAD_BYTES_MAX if small else PAYLOAD_BYTES_MAX


def _clean_reason(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable[:REASON_LENGTH_MAX]


def _plain(value: AnyMessage | GroupReport) -> dict[str, Any]:
    return {field.name: _plain_value(getattr(value, field.name)) for field in fields(value)}


def _plain_value(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, GroupReport):
        return _plain(value)
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of ours")


# Each check takes a plain JSON value and returns the field's value, or raises ValueError.
_Check: TypeAlias = Callable[[object], object]


def _text(value: object, length_max: int, length_min: int = 0) -> str:
    if not isinstance(value, str) or not length_min <= len(value) <= length_max:
        raise ValueError(f"not a text of {length_min} to {length_max} characters")
    if not value.isprintable():
        raise ValueError("a text with a character that cannot be printed")
    return value


def _name(value: object) -> str:
    return _text(value, NAME_LENGTH_MAX, 1)


def _name_or_none(value: object) -> str:
    return _text(value, NAME_LENGTH_MAX)


def _reason(value: object) -> str:
    return _text(value, REASON_LENGTH_MAX)


def _whole(maximum: int) -> _Check:
    def check(value: object) -> int:
        if type(value) is not int or not 0 <= value <= maximum:
            raise ValueError(f"not a whole number from 0 to {maximum}")
        return value

    return check


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")  # noqa: TRY004  a peer's mistake, not a caller's
    return value


def _state(value: object) -> str:
    if not isinstance(value, str) or value not in ("INIT", "BACKUP", "MASTER"):
        raise ValueError("not a state")
    return value


def _identifier(value: object) -> bytes:
    if not isinstance(value, str) or not _HEXADECIMAL.fullmatch(value):
        raise ValueError(f"not {IDENTIFIER_BYTES} bytes in hexadecimal")
    return bytes.fromhex(value)


def _address(value: object) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError("not an address")
    return value


def _several(check: _Check, maximum: int) -> _Check:
    def check_all(value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or len(value) > maximum:
            raise ValueError(f"not a list of at most {maximum}")
        return tuple(check(item) for item in value)

    return check_all


def _report(value: object) -> object:
    return _build(GroupReport, value)


def _build(kind: type, value: object) -> Any:
    """Return an instance of `kind` from plain JSON values, or raise ValueError naming the key."""
    checks = _FIELDS[kind]
    if not isinstance(value, dict) or value.keys() != checks.keys():
        raise ValueError(f"{kind.__name__} has the keys {', '.join(checks)}")
    checked: dict[str, object] = {}
    for key, check in checks.items():
        try:
            checked[key] = check(value[key])
        except ValueError as wrong:
            raise ValueError(f"{key}: {wrong}") from None
    return kind(**checked)


_U64_MAX: Final = 2**64 - 1
_OF_GROUP: Final[Mapping[str, _Check]] = {"group": _name, "serial": _whole(_U64_MAX)}
_FIELDS: Final[Mapping[type, Mapping[str, _Check]]] = {
    Hello: {
        "site": _name,
        "node": _name,
        "instance": _identifier,
        "nonce": _identifier,
        "version": _name_or_none,
    },
    Ready: {},
    GroupReport: {
        "group": _name,
        "state": _state,
        "advbase": _whole(255),
        "advskew": _whole(255),
        "demote": _whole(DEMOTE_MAX),
        "paused": _flag,
        "ready": _flag,
        "hears": _name_or_none,
        "sources": _several(_address, SOURCES_MAX),
    },
    Heartbeat: {
        "revision": _name_or_none,
        "sent_at": _whole(_U64_MAX),
        "groups": _several(_report, REPORTS_MAX),
    },
    Request: {**_OF_GROUP, "reason": _reason},
    Offer: {**_OF_GROUP, "reason": _reason, "hold": _flag},
    Accept: _OF_GROUP,
    Refuse: {**_OF_GROUP, "reason": _reason},
    Transfer: _OF_GROUP,
    Taken: _OF_GROUP,
    Goodbye: {"reason": _reason},
}
_CLASS_OF: Final[Mapping[FrameType, type]] = {
    FrameType.HELLO: Hello,
    FrameType.READY: Ready,
    FrameType.HEARTBEAT: Heartbeat,
    FrameType.REQUEST: Request,
    FrameType.OFFER: Offer,
    FrameType.ACCEPT: Accept,
    FrameType.REFUSE: Refuse,
    FrameType.TRANSFER: Transfer,
    FrameType.TAKEN: Taken,
    FrameType.GOODBYE: Goodbye,
}
_TYPE_OF: Final[Mapping[type, FrameType]] = {kind: number for number, kind in _CLASS_OF.items()}
