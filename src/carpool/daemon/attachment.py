"""One interface that groups live on: its sockets, its facts, its carrier.

The interface may be missing, go, and come back under another index: `refresh` follows it. Nothing
here raises for that; what is true is in `facts`.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from carpool.base.errors import DriverError
from carpool.base.names import InterfaceName
from carpool.drivers.addresses import link_local_v6, primary_v4
from carpool.drivers.carrier import Carrier
from carpool.drivers.links import Link, link_by_name
from carpool.drivers.netlink_socket import NetlinkSocket
from carpool.drivers.packet_filter import (
    ArpMatch,
    CarpV4Match,
    CarpV6Match,
    Match,
    NeighbourMatch,
)
from carpool.drivers.rawsock import IpSocket, PacketSocket
from carpool.engine.events import InterfaceFacts
from carpool.engine.setup import GroupSetup, IpAddress
from carpool.wire.carp import GROUP_V4_MAC, GROUP_V6_MAC

NEIGHBOUR_FRAMES_MAX: Final = 64  # ARP and ND frames looked at in one turn; a flood waits its turn
NEIGHBOUR_BUFFER_BYTES: Final = 256 << 10  # beyond that neighbours' frames are lost, and no harm


class Attachment:
    """The hands' hold on one interface."""

    def __init__(self, name: str, netlink: NetlinkSocket) -> None:
        """Hold nothing yet."""
        self.name = name
        self.groups: tuple[GroupSetup, ...] = ()
        self.link: Link | None = None
        self.facts: InterfaceFacts | None = None
        self.adverts: PacketSocket | None = None
        self.neighbours: PacketSocket | None = None
        self.senders: dict[int, IpSocket] = {}
        self.trouble = ""
        self.gate_trouble = ""  # why nothing may be served here
        self._netlink = netlink
        self._carrier = Carrier(name, netlink)

    @property
    def ifindex(self) -> int:
        """Return the interface's index, 0 when it is missing."""
        return self.link.index if self.link is not None else 0

    def serve(self, groups: Sequence[GroupSetup]) -> None:
        """Stand for these groups from now on."""
        self.groups = tuple(groups)
        if self.adverts is not None:
            self.adverts.change_filter(self._advert_matches())
        if self.neighbours is not None:
            self.neighbours.change_filter(self._neighbour_matches())
        self._open_senders()

    def refresh(self) -> bool:
        """Look at the interface again; return whether its index changed."""
        before = self.ifindex
        self.link = link_by_name(self._netlink, self.name)
        changed = self.ifindex != before
        if changed or (self.link is not None and self.adverts is None):
            self._reopen()
        self._look()
        return changed

    def carrier_changed(self) -> bool:
        """Poll the carrier, cheaply; return whether it is not what the facts say."""
        carrier = bool(self._carrier.read())
        known = self.facts is not None and self.facts.carrier
        return carrier != known

    def close(self) -> None:
        """Let go of everything."""
        self._close_sockets()
        self._carrier.close()

    def _look(self) -> None:
        """Learn the facts."""
        if self.link is None or self.adverts is None:
            self.facts = None
            return
        shared: set[IpAddress] = set()
        for group in self.groups:
            shared.update(group.v4, group.v6)
        self.facts = InterfaceFacts(
            index=self.link.index,
            mac=self.link.mac,
            up=self.link.up,
            carrier=bool(self._carrier.read()),
            v4=primary_v4(self._netlink, self.link.index, shared),
            v6=link_local_v6(self._netlink, self.link.index, shared),
            trouble=self.gate_trouble,
        )

    def _reopen(self) -> None:
        """Open the sockets on the interface as it is now."""
        self._close_sockets()
        if self.link is None:
            return
        name = InterfaceName(self.name)
        try:
            self.adverts = PacketSocket(name, self.link.index, self._advert_matches())
            self.adverts.join((GROUP_V4_MAC, GROUP_V6_MAC))
            self.neighbours = PacketSocket(
                name,
                self.link.index,
                self._neighbour_matches(),
                receive_buffer=NEIGHBOUR_BUFFER_BYTES,
            )
        except DriverError as refused:
            self.trouble = str(refused)
            self._close_sockets()
            return
        self.trouble = ""
        self._open_senders()

    def _open_senders(self) -> None:
        """Hold protocol 112 and the memberships, and be able to send unicast."""
        if self.link is None:
            return
        for version in (4, 6):
            if version not in self.senders:
                try:
                    self.senders[version] = IpSocket(
                        InterfaceName(self.name), self.link.index, version=version
                    )
                except DriverError as refused:
                    self.trouble = str(refused)

    def _close_sockets(self) -> None:
        for held in (self.adverts, self.neighbours, *self.senders.values()):
            if held is not None:
                held.close()
        self.adverts = None
        self.neighbours = None
        self.senders = {}

    def _advert_matches(self) -> list[Match]:
        vhids = [group.parameters.vhid for group in self.groups]
        peers = {a for group in self.groups for a in group.unicast if isinstance(a, IPv4Address)}
        return [CarpV4Match(vhids, tuple(peers)), CarpV6Match(vhids)]

    def _neighbour_matches(self) -> list[Match]:
        v4 = tuple(a for group in self.groups for a in group.v4)
        v6 = tuple(a for group in self.groups for a in group.v6)
        matches: list[Match] = []
        if v4:
            matches.append(ArpMatch(v4))
        if v6:
            matches.append(NeighbourMatch(v6))
        return matches
