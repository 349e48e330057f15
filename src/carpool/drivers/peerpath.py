"""One path of the peer link: its connections, and when the next dial is due.

Follows ARCHITECTURE.md "Peer link". The delays:

    after a close without goodbye   at once; 1, 2, 5 .. 50 ms when the same process's links are
                                    short-lived, one after the other
    after a close for another cause 50 ms, and growing
    nobody answered the dial        50 ms, doubling to 1 s
    the dial was reset or closed    the next longer delay (a listener that is just closing)

each less a random part of up to a quarter, so that nodes do not dial in step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from carpool.base.time import NS_PER_MS, NS_PER_S, Instant, after
from carpool.drivers.peersocket import Connection, Ending

STABLE_NS: Final = NS_PER_S  # a link that lived this long did not fail at once
STEP_FAILED: Final = 6  # 50 ms: from where delays grow when nobody answers
DIAL_DELAYS_NS: Final = tuple(
    NS_PER_MS * delay for delay in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)
_NEVER: Final = Instant(0)  # before any instant of a running machine


@dataclass(frozen=True, slots=True)
class PeerPath:
    """One way to a node: from our address (any, if None) to its address and port."""

    node: str
    local: str | None
    remote: str
    port: int


@dataclass(frozen=True, slots=True)
class LinkTimers:
    """How long the link waits for what."""

    idle_ns: int = 3 * NS_PER_S
    handshake_ns: int = NS_PER_S
    user_timeout_ns: int = 1500 * NS_PER_MS


@dataclass(slots=True, eq=False)
class Path:
    """A path's state."""

    settings: PeerPath
    links: list[Connection] = field(default_factory=list)  # established, oldest first
    dial: Connection | None = None  # under way, not established
    dial_at: Instant = _NEVER
    changed_at: Instant = _NEVER
    heard_at: Instant = _NEVER
    unconfirmed: bool = False  # closed without goodbye, and nobody has answered since
    step: int = 0  # index of the next delay
    short_lives: int = 0  # links in a row that did not become stable

    @property
    def place(self) -> tuple[str, str]:
        """Node and path, as events name them."""
        return (self.settings.node, self.settings.remote)

    def instants(self, timers: LinkTimers) -> Iterator[Instant]:
        """Yield every instant at which this path needs attention."""
        if self.links:
            yield after(self.heard_at, timers.idle_ns)
            for spare in self.links[:-1]:
                yield after(spare.heard_at, timers.idle_ns)
        elif self.dial is not None:
            yield after(self.dial.opened_at, timers.handshake_ns)
        else:
            yield self.dial_at

    def opened(self, link: Connection, now: Instant) -> bool:
        """Take an established connection; return whether it brought the path up."""
        first = not self.links
        if first:
            self.changed_at = now
        self.links.append(link)
        self.heard_at = link.heard_at = now
        self.unconfirmed = False
        return first

    def closed(self, ending: Ending, now: Instant, random_bytes: Callable[[int], bytes]) -> None:
        """Note that the last connection is gone and say when to dial."""
        stable = now - self.changed_at >= STABLE_NS
        self.short_lives = 0 if stable else self.short_lives + 1
        self.changed_at = now
        self.unconfirmed = ending.how in ("fin", "reset")
        self.step = min(max(0, self.short_lives - 1), STEP_FAILED)
        if not self.unconfirmed:
            self.step = max(self.step, STEP_FAILED)
        self._schedule(now, random_bytes)

    def failed(self, ending: Ending, now: Instant, random_bytes: Callable[[int], bytes]) -> bool:
        """Note that a dial failed; return whether that proves the peer's process gone."""
        proof = ending.refused and self.unconfirmed
        if proof:
            self.unconfirmed = False
        self.step += 1
        if ending.how not in ("fin", "reset"):
            self.step = max(self.step, STEP_FAILED)
        self._schedule(now, random_bytes)
        return proof

    def _schedule(self, now: Instant, random_bytes: Callable[[int], bytes]) -> None:
        delay_ns = DIAL_DELAYS_NS[min(self.step, len(DIAL_DELAYS_NS) - 1)]
        self.dial_at = after(now, delay_ns * (1024 - random_bytes(1)[0]) // 1024)
