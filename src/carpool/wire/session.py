"""One connection of the peer link without its socket: bytes in -> messages, messages -> bytes.

Follows ARCHITECTURE.md "Peer link". States and frames, the initiator on the left:

    initiator                                       acceptor
    AWAIT_HELLO  -- Hello (site key) ------------>  AWAIT_HELLO
    AWAIT_HELLO  <- Hello (site key), Ready (session key)  AWAIT_READY
    ESTABLISHED  -- Ready (session key) --------->  ESTABLISHED
                 <- messages (session keys) ----->
                 <- Ready: a probe, no answer --->

Keys. A site key is hashed (BLAKE2b) to 32 bytes; from it come four: one for either side's Hello,
one for either direction of the session, the latter over both Hello frames whole. So a Hello sent
back to its sender fails (another key), an old Hello leads to a session key that its replayer does
not know (fresh nonces), and a frame of one session or direction is nothing in another.

Rotation. The initiator seals with its first key, the acceptor answers with the same one; any known
key is accepted. So: add the new key last on every node, then put it first, then take the old one
out. A session stays with the key it was made with; the driver ends it when that key is withdrawn.

Limits. Before the other side has proved anything at most one Hello is buffered (about 4 KiB),
afterwards at most one frame (about 32 KiB) beyond what one call is given. Time limits are the
driver's. The acceptor says nothing to a stranger.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import blake2b
from typing import Final

from carpool.base.errors import DecodeError, LocalError, Reject
from carpool.wire.peer import (
    HEADER_BYTES,
    IDENTIFIER_BYTES,
    MAC_BYTES,
    Encoded,
    FrameType,
    Header,
    Hello,
    Message,
    Ready,
    check_mac,
    decode,
    encode,
    read_header,
    seal,
)

KEY_BYTES: Final = 32


class Role(Enum):
    """Which end of the connection this is."""

    INITIATOR = "initiator"
    ACCEPTOR = "acceptor"

    @property
    def other(self) -> "Role":
        """The other end."""
        return Role.ACCEPTOR if self is Role.INITIATOR else Role.INITIATOR


class State(Enum):
    """How far the handshake is."""

    AWAIT_HELLO = auto()
    AWAIT_READY = auto()
    ESTABLISHED = auto()
    OVER = auto()


_ALLOWED: Final[Mapping[State, frozenset[FrameType]]] = {
    State.AWAIT_HELLO: frozenset({FrameType.HELLO}),
    State.AWAIT_READY: frozenset({FrameType.READY}),
    State.ESTABLISHED: frozenset(FrameType) - {FrameType.HELLO},
    State.OVER: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is to its peers."""

    site: str
    node: str
    instance: bytes  # 16 random bytes, new for each `elect` process
    version: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """What a piece of the stream held, and what has to be sent back at once."""

    messages: tuple[Message, ...]
    reply: bytes


class Session:
    """One authenticated conversation; after an error it is over and stays over."""

    def __init__(
        self,
        role: Role,
        me: Identity,
        nonce: bytes,
        keys: Mapping[int, bytes],
        expected: Collection[str],
    ) -> None:
        """Prepare either end.

        nonce: 16 random bytes, never used before.
        keys: site keys by id, the preferred one first; at least one.
        expected: the nodes that may be at the other end.
        """
        if not keys:
            raise LocalError("a peer link needs at least one site key")
        if len(nonce) != IDENTIFIER_BYTES:
            raise LocalError(f"a nonce has {IDENTIFIER_BYTES} bytes")
        self.role = role
        self.state = State.AWAIT_HELLO
        self.peer: Hello | None = None
        self.key_id = next(iter(keys))
        self._me = me
        self._nonce = nonce
        self._keys = keys
        self._expected = expected
        self._buffer = bytearray()
        self._sequence_out = 0
        self._sequence_in = 0
        self._hello_sent = b""
        self._key_out = b""
        self._key_in = b""

    @property
    def established(self) -> bool:
        """Whether messages may be sent."""
        return self.state is State.ESTABLISHED

    @property
    def key(self) -> bytes:
        """The site key this session was made with."""
        return self._keys[self.key_id]

    def start(self) -> bytes:
        """Return what to send as soon as the connection stands; an acceptor sends nothing."""
        return self._say_hello() if self.role is Role.INITIATOR else b""

    def receive(self, data: bytes) -> Received:
        """Take the next bytes of the stream.

        Raises DecodeError(reason), after which the session is over: PEER_LENGTH, PEER_MAGIC,
        PEER_VERSION, PEER_TYPE (unknown, or not now), PEER_KEY, PEER_MAC, PEER_SEQUENCE,
        PEER_FORMAT, SOURCE (another site, or a node that is not expected), in that order.
        """
        self._buffer += data
        messages: list[Message] = []
        reply = bytearray()
        try:
            while next_frame := self._next_frame():
                message = self._take(*next_frame, reply)
                if message is not None:
                    messages.append(message)
        except DecodeError:
            self.state = State.OVER
            self._buffer.clear()
            raise
        return Received(tuple(messages), bytes(reply))

    def send(self, message: Message | Encoded) -> bytes:
        """Return the bytes that carry `message`; LocalError before the session is established."""
        if not self.established:
            raise LocalError("the peer session is not established")
        return self._seal(message if isinstance(message, Encoded) else encode(message))

    def probe(self) -> bytes:
        """Return bytes that say nothing: the kernel of a peer without this connection resets it."""
        if not self.established:
            raise LocalError("the peer session is not established")
        return self._seal(encode(Ready()))

    def _next_frame(self) -> tuple[Header, bytes] | None:
        """Return the first whole frame of the buffer, None while there is none."""
        if len(self._buffer) < HEADER_BYTES:
            return None
        header = self._check_header()
        if len(self._buffer) < header.frame_bytes:
            return None
        frame = bytes(self._buffer[: header.frame_bytes])
        del self._buffer[: header.frame_bytes]
        return header, frame

    def _check_header(self) -> Header:
        header = read_header(bytes(self._buffer[:HEADER_BYTES]))
        if header.kind not in _ALLOWED[self.state]:
            raise DecodeError(Reject.PEER_TYPE, f"{header.kind.name} in state {self.state.name}")
        free_choice = self.role is Role.ACCEPTOR and self.state is State.AWAIT_HELLO
        known = header.key_id in self._keys if free_choice else header.key_id == self.key_id
        if not known:
            raise DecodeError(Reject.PEER_KEY, f"key id {header.key_id}")
        return header

    def _take(self, header: Header, frame: bytes, reply: bytearray) -> Message | None:
        """Judge one whole frame; a Hello and a Ready are answered into `reply`."""
        if header.kind is FrameType.HELLO:
            self.key_id = header.key_id
            key = self._hello_key(self.role.other)
        else:
            key = self._key_in
        check_mac(frame, key)
        if header.sequence != self._sequence_in:  # TCP loses nothing: the next one or a forgery
            raise DecodeError(Reject.PEER_SEQUENCE, f"{header.sequence}, not {self._sequence_in}")
        self._sequence_in += 1
        message = decode(header.kind, frame[HEADER_BYTES:-MAC_BYTES])
        if isinstance(message, Hello):
            self._greet(message, frame, reply)
        elif isinstance(message, Ready):
            self._agree(reply)
        else:
            return message
        return None

    def _greet(self, hello: Hello, frame: bytes, reply: bytearray) -> None:
        if hello.site != self._me.site:
            raise DecodeError(Reject.SOURCE, f"site {hello.site}, ours is {self._me.site}")
        if hello.node == self._me.node or hello.node not in self._expected:
            raise DecodeError(Reject.SOURCE, f"node {hello.node} is not expected here")
        self.peer = hello
        if self.role is Role.ACCEPTOR:
            reply += self._say_hello()
        self._make_keys(frame)
        self.state = State.AWAIT_READY
        if self.role is Role.ACCEPTOR:
            reply += self._seal(encode(Ready()))

    def _agree(self, reply: bytearray) -> None:
        if self.established:
            return
        self.state = State.ESTABLISHED
        if self.role is Role.INITIATOR:
            reply += self._seal(encode(Ready()))

    def _say_hello(self) -> bytes:
        me = self._me
        hello = Hello(me.site, me.node, me.instance, self._nonce, me.version)
        self._key_out = self._hello_key(self.role)
        self._hello_sent = self._seal(encode(hello))
        return self._hello_sent

    def _make_keys(self, hello_heard: bytes) -> None:
        hellos = [self._hello_sent, hello_heard]
        if self.role is Role.ACCEPTOR:
            hellos.reverse()
        both = b"".join(hellos)  # frames carry their length: this cannot be cut in another way
        self._key_out = self._derive(both, b"cp from " + self.role.value.encode()[:8])
        self._key_in = self._derive(both, b"cp from " + self.role.other.value.encode()[:8])

    def _hello_key(self, role: Role) -> bytes:
        return self._derive(b"", b"cp hello " + role.value.encode()[:7])

    def _derive(self, data: bytes, purpose: bytes) -> bytes:
        material = blake2b(self.key, digest_size=KEY_BYTES, person=b"cp site key").digest()
        return blake2b(data, key=material, digest_size=KEY_BYTES, person=purpose).digest()

    def _seal(self, encoded: Encoded) -> bytes:
        sequence = self._sequence_out
        self._sequence_out += 1
        return seal(encoded, key=self._key_out, key_id=self.key_id, sequence=sequence)
