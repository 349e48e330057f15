"""From a frame off the wire to an event of one election, or to a counter.

The order of the checks is OpenBSD's (sys/netinet/ip_carp.c, carp_proto_input_if): interface, TTL,
length, checksum, vhid, version, HMAC, loop. Each reason has its counter; nothing raises.
"""

from ipaddress import IPv4Address
from typing import Final, Literal

from carpool.base.errors import DecodeError, Reject
from carpool.base.journal import LoopSeen
from carpool.base.time import NS_PER_MS, NS_PER_S, Instant, after
from carpool.election.effects import Effect, Record
from carpool.election.events import AdvertisementHeard, ConflictHeard
from carpool.election.parameters import Kind, State
from carpool.engine.events import FrameHeard, InterfaceFacts, NeighbourHeard
from carpool.engine.node import GroupBrain, Node
from carpool.wire import arp, carp, ethernet, ip, ndp

FORMER_OWNER_NS: Final = 50 * NS_PER_MS  # frames of the old owner may be on their way so long
LOOP_NOTED_EVERY_NS: Final = 10 * NS_PER_S  # one line for a loop, not one for each packet


def advertisement(
    node: Node, event: FrameHeard, now: Instant
) -> tuple[GroupBrain, AdvertisementHeard] | list[Effect]:
    """Return whose advertisement this is and what it says; otherwise count why not."""
    try:
        return _decode(node, event)
    except _LoopError as loop:
        node.counters.add(f"reject.{Reject.LOOP}")
        return _loop(loop.brain, loop.source, now)
    except DecodeError as error:
        node.counters.add(f"reject.{error.reason}")
        return []


class _LoopError(Exception):
    """Our own advertisement came back."""

    def __init__(self, brain: GroupBrain, source: str) -> None:
        super().__init__(source)
        self.brain = brain
        self.source = source


def _decode(node: Node, event: FrameHeard) -> tuple[GroupBrain, AdvertisementHeard]:
    here = [b for b in node.groups.values() if b.setup.interface == event.interface]
    if not here:
        raise DecodeError(Reject.INTERFACE, event.interface)
    packet = _packet(ethernet.parse(event.frame))
    ttl = packet.ttl if isinstance(packet, ip.Ipv4Packet) else packet.hop_limit
    routed = any(packet.source in brain.setup.unicast for brain in here)
    if not routed:  # a declared unicast peer may be behind a router (FreeBSD carp_input)
        ip.check_ttl(ttl)
    advert = carp.decode(packet.payload)
    brain = next((b for b in here if b.setup.parameters.vhid == advert.vhid), None)
    if brain is None:
        raise DecodeError(Reject.VHID, str(advert.vhid))
    carp.verify(advert, brain.authenticator)
    own = node.facts.get(event.interface)
    if advert.counter in brain.own_counters and _is_loop(brain, packet.source, own):
        raise _LoopError(brain, str(packet.source))
    node.counters.add(f"heard.{brain.setup.name}")
    family = 4 if isinstance(packet, ip.Ipv4Packet) else 6
    name, kind = _who(node, brain, str(packet.source), (advert.advbase, advert.advskew))
    heard = AdvertisementHeard(
        source=str(packet.source),
        node=name,
        kind=kind,
        family=family,
        primary=family == (4 if brain.setup.v4 else 6),
        lower=_is_lower(packet.source, own, kind),
        advbase=advert.advbase,
        advskew=advert.advskew,
        demote=advert.demote,
        received_at=event.received_at,
    )
    return brain, heard


def _is_loop(brain: GroupBrain, source: ip.IpAddress, own: InterfaceFacts | None) -> bool:
    """Return whether a packet with a counter of ours is ours.

    FreeBSD, NetBSD and ucarp go on counting from what they heard last (carp.c:537), so a foreign
    member has our counters as well; then only our own address tells.
    """
    if not brain.setup.parameters.foreign:
        return True
    mine = None if own is None else own.v4 if isinstance(source, IPv4Address) else own.v6
    return source == (mine or IPv4Address(0))


def _packet(frame: ethernet.Frame) -> ip.Ipv4Packet | ip.Ipv6Packet:
    if frame.ethertype == ethernet.ETHERTYPE_IPV4:
        return ip.parse_v4(frame.payload, ip.PROTOCOL_CARP)
    if frame.ethertype == ethernet.ETHERTYPE_IPV6:
        return ip.parse_v6(frame.payload, ip.PROTOCOL_CARP)
    raise DecodeError(Reject.PROTOCOL, f"ethertype {frame.ethertype:#06x}")


def _who(node: Node, brain: GroupBrain, source: str, pace: tuple[int, int]) -> tuple[str, Kind]:
    """Return the node name of a source ("" if none of ours) and whose CARP it speaks.

    Several nodes may send from 0.0.0.0, when their interfaces have no address of their own: then
    the one is meant whose pace it is.
    """
    found = {}
    for name, peer in node.peers.items():
        report = peer.reports.get(brain.setup.name)
        if report is not None and source in report.sources:
            found[name] = (report.advbase, report.advskew)
    if len(found) > 1:
        found = {name: theirs for name, theirs in found.items() if theirs == pace}
    if len(found) == 1:
        return next(iter(found)), Kind.CARPOOL
    for name, addresses in node.setup.nodes:
        if source in addresses and brain.election.standing.member(name) is not None:
            return name, Kind.CARPOOL
    for unicast, kind in brain.setup.peers:
        if unicast == source:
            return "", kind
    if brain.setup.peers:
        return "", brain.setup.peers[0][1]
    return "", Kind.CARPOOL


def _is_lower(source: ip.IpAddress, own: InterfaceFacts | None, kind: Kind) -> bool:
    """Return whether the source's address is lower than ours.

    UCARP (src/carp.c:569) compares the raw word, which is byte-swapped on little-endian machines.
    """
    mine = None if own is None else own.v4 if isinstance(source, IPv4Address) else own.v6
    if mine is None:
        return False
    order: Literal["little", "big"] = "little" if kind is Kind.UCARP else "big"
    return int.from_bytes(source.packed, order) < int.from_bytes(mine.packed, order)


def _loop(brain: GroupBrain, source: str, now: Instant) -> list[Effect]:
    noted = brain.loop_noted_at
    if noted is not None and now < after(noted, LOOP_NOTED_EVERY_NS):
        return []
    brain.loop_noted_at = now
    return [Record(LoopSeen(group=brain.setup.name, source=source))]


def conflicts(node: Node, event: NeighbourHeard) -> list[tuple[GroupBrain, ConflictHeard]]:
    """Return the groups for whose address another machine spoke, otherwise count why not."""
    try:
        claim = _claim(ethernet.parse(event.frame))
    except DecodeError as error:
        node.counters.add(f"reject.{error.reason}")
        return []
    if claim is None:
        return []
    address, mac = claim
    found = []
    for brain in node.groups.values():
        facts = node.facts.get(event.interface)
        mine = {brain.setup.virtual_mac, facts.mac if facts else None}
        if brain.setup.interface != event.interface or mac in mine:
            continue
        standing = brain.election.standing
        # What the previous owner said before or just after its end is no conflict.
        fresh = event.received_at > after(standing.since, FORMER_OWNER_NS)
        if address in brain.shared and standing.state is State.MASTER and fresh:
            node.counters.add(f"conflict.{brain.setup.name}")
            found.append((brain, ConflictHeard(str(address), ethernet.format_mac(mac))))
    return found


def _claim(frame: ethernet.Frame) -> tuple[ip.IpAddress, bytes] | None:
    """Return the address that the frame's sender says is its own, and its MAC."""
    if frame.ethertype == ethernet.ETHERTYPE_ARP:
        packet = arp.parse(frame.payload)
        if int(packet.sender_ip) == 0:
            return None  # a probe claims nothing yet (RFC 5227)
        return packet.sender_ip, packet.sender_mac
    if frame.ethertype != ethernet.ETHERTYPE_IPV6:
        return None
    message = ndp.parse(ip.parse_v6(frame.payload, ip.PROTOCOL_ICMPV6))
    if not isinstance(message, ndp.NeighborAdvertisement):
        return None
    return message.target, message.link_layer or frame.source
