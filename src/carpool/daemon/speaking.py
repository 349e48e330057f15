"""What leaves on an interface: advertisements, announcements, probes."""

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from carpool.base.counters import Counters
from carpool.daemon.attachment import Attachment
from carpool.daemon.post import Post
from carpool.drivers.announce import announce
from carpool.engine.setup import IpAddress
from carpool.wire import arp, carp, ndp

FORWARDING: Final = Path("/proc/sys/net/ipv6/conf/all/forwarding")
PROBES_MAX: Final = 64  # addresses probed in one turn; the next turn takes the next ones


def advertise(
    attachment: Attachment, post: Post, payload: bytes, counters: Counters
) -> tuple[frozenset[int], str]:
    """Send to the group and to the unicast peers; return the families that went out."""
    facts, sender = attachment.facts, attachment.adverts
    if facts is None or sender is None:
        return frozenset(), "no interface"
    sources: dict[int, IpAddress] = {}
    if post.setup.v4:
        sources[4] = facts.v4 or IPv4Address(0)  # FreeBSD sends from 0.0.0.0 as well
    if post.setup.v6 and facts.v6 is not None:
        sources[6] = facts.v6
    mac = post.setup.virtual_mac or facts.mac
    sent, error = set(), ""
    for family, source in sources.items():
        failed = ""
        if post.setup.multicast:
            failed = sender.send(carp.multicast_frame(payload, mac, source))
        for peer in post.setup.unicast:
            if peer.version == family:
                _unicast(attachment, carp.packet(payload, source, peer), peer, counters)
        if failed:
            error = failed
        else:
            sent.add(family)
    return frozenset(sent), error


def _unicast(attachment: Attachment, packet: bytes, peer: IpAddress, counters: Counters) -> None:
    """Send to one peer. Its absence is no error of ours (OpenBSD: EHOSTDOWN does not count)."""
    sender = attachment.senders.get(peer.version)
    if sender is None or sender.send_ip(packet, peer):
        counters.add("unicast-error")


def announce_addresses(
    attachment: Attachment, post: Post, ips: Sequence[IpAddress], counters: Counters
) -> None:
    """Tell everybody on the network where the addresses are now."""
    if attachment.facts is None or attachment.adverts is None:
        return
    mac = post.setup.virtual_mac or attachment.facts.mac
    router = _forwards()
    frames = [
        arp.gratuitous(mac, ip)
        if isinstance(ip, IPv4Address)
        else ndp.unsolicited(mac, ip, router=router)
        for ip in ips
    ]
    outcome = announce(attachment.adverts, frames)
    if outcome.unsent:
        counters.add("announce-error", len(outcome.unsent))


def probe_addresses(attachment: Attachment, post: Post) -> None:
    """Ask whether another machine answers for the addresses, some in each turn."""
    if attachment.facts is None or attachment.adverts is None:
        return
    ips = post.ips
    start = post.probe_next % len(ips)
    turn = ips[start : start + PROBES_MAX]
    post.probe_next = start + len(turn)
    mac = post.setup.virtual_mac or attachment.facts.mac
    frames = [
        arp.probe(mac, ip) if isinstance(ip, IPv4Address) else ndp.probe(mac, ip) for ip in turn
    ]
    announce(attachment.adverts, frames)


def _forwards() -> bool:
    """Return whether this machine routes IPv6 (the router flag of what we announce)."""
    try:
        return FORWARDING.read_text().strip() != "0"
    except OSError:
        return False
