"""A node of the peer link as a process of its own, to be killed, frozen or stopped by a test.

Arguments: own node, own address, port, peer node, peer address. Prints one line when it listens
and one for each event (instant, kind, how); sends a heartbeat every 50 ms; SIGTERM says goodbye.
"""

import os
import select
import signal
import sys

from carpool.base.time import NS_PER_MS, Instant
from carpool.drivers.clock import boottime_ns
from carpool.drivers.peerlink import Identity, PeerLinks, PeerPath
from carpool.wire.peer import Heartbeat

KEYS = {1: b"sixteen bytes or more"}
HEARTBEAT_NS = 50 * NS_PER_MS


class Stopped(Exception):  # noqa: N818  not an error: the order to stop
    """SIGTERM came."""


def stop(_signal: int, _frame: object) -> None:
    """Leave the loop."""
    raise Stopped


def run(links: PeerLinks, peer: str) -> None:
    """Serve the links until SIGTERM."""
    poller = select.poll()
    (fileno,) = links.filenos()
    poller.register(fileno, select.POLLIN)
    beat_at = Instant(0)
    while True:
        now = boottime_ns()
        for event in [*links.handle(fileno, select.EPOLLIN, now), *links.tick(now)]:
            how = getattr(event, "how", "-")
            sys.stdout.write(f"{boottime_ns()} {type(event).__name__} {how}\n")
            sys.stdout.flush()
        if now >= beat_at:
            links.send(peer, Heartbeat("7", now, ()))
            beat_at = Instant(now + HEARTBEAT_NS)
        wake_at = min(beat_at, links.deadline or beat_at)
        poller.poll(max(0, (wake_at - boottime_ns()) // NS_PER_MS + 1))


def main(node: str, address: str, port: int, peer: str, peer_address: str) -> None:
    """Build the links and run them."""
    me = Identity("example", node, os.urandom(16))
    path = PeerPath(peer, address, peer_address, port)
    links = PeerLinks(me, KEYS, [(address, port)], [path], os.urandom)
    signal.signal(signal.SIGTERM, stop)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    try:
        run(links, peer)
    except Stopped:
        links.close("stopping")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
