"""One group as the hands know it: its place in the gate, its addresses, and the work on them.

A thousand addresses take tens of milliseconds, and the advertisements must not wait for them: the
work is a generator that does a part and yields. Serving and withdrawing replace each other's work;
both may begin anywhere, since adding what is there and removing what is gone are no errors.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TypeAlias

from carpool.base.errors import DriverError
from carpool.drivers.addresses import (
    AddressPlan,
    add_addresses,
    addresses,
    plan_addresses,
    remove_addresses,
    split,
)
from carpool.drivers.links import Link, set_link_up
from carpool.drivers.netlink_socket import NetlinkSocket
from carpool.drivers.solicited import SolicitedNodes
from carpool.engine.setup import GroupSetup, IpAddress

Interfaces: TypeAlias = Sequence[IPv4Interface | IPv6Interface]
Announce: TypeAlias = Callable[["Post", Sequence[IpAddress]], None]


def interfaces_of(setup: GroupSetup) -> list[IPv4Interface | IPv6Interface]:
    """Return the group's addresses as values."""
    return [ip_interface(address) for address in setup.addresses]


class Post:
    """A group's addresses on one interface of this machine."""

    def __init__(self, setup: GroupSetup, slot: int, netlink: NetlinkSocket) -> None:
        """Stand for nothing yet."""
        self.setup = setup
        self.slot = slot
        self.plan: AddressPlan | None = None
        self.macvlan: Link | None = None
        self.serving = False
        self.leased = False  # the gate is open for addresses, not for advertisements only
        self.probe_next = 0
        self.refused: list[str] = []
        self.solicited: SolicitedNodes | None = None
        self.deaf = ""  # why solicitations are heard late, "" if they are not
        self.work: Iterator[None] | None = None
        self._parts: list[AddressPlan] = []
        self._parent_index = 0
        self._netlink = netlink

    @property
    def ips(self) -> list[IpAddress]:
        """Return the shared addresses without their prefixes."""
        return [*self.setup.v4, *self.setup.v6]

    @property
    def same_place(self) -> tuple[str, int, str]:
        """Return what must stay for the group to stay where it is."""
        return self.setup.interface, self.setup.parameters.vhid, self.setup.mac

    def prepare(self, parent_index: int) -> None:
        """Make the messages for the interface as it is now. Raises DriverError."""
        self._parent_index = parent_index
        ifindex = self.macvlan.index if self.macvlan is not None else parent_index
        self._listen(ifindex)
        present = addresses(self._netlink, parent_index)
        self.plan = plan_addresses(ifindex, interfaces_of(self.setup), present)
        self._parts = split(self.plan)

    def _listen(self, ifindex: int) -> None:
        """Be able to hear solicitations for the addresses from now on."""
        if self.solicited is None or self.solicited.ifindex != ifindex:
            self.stop_listening()
            self.solicited = SolicitedNodes(ifindex)
        self.deaf = self.solicited.join(self.setup.v6)

    def stop_listening(self) -> None:
        """Leave the solicited-node groups."""
        if self.solicited is not None:
            self.solicited.close()
        self.solicited = None

    def leave_place(self) -> None:
        """The interface is not the one it was: take everything off that may still be there.

        A renamed interface keeps its addresses; a deleted one has none any more, and then the
        kernel's refusal means nothing.
        """
        with suppress(DriverError):
            if self.plan is not None:
                remove_addresses(self._netlink, self.plan)
        self.stop_listening()
        self.plan = None
        self.macvlan = None
        self.work = None

    def begin_serving(self, announce: Announce) -> str:
        """Add the first part now, the rest as work; return why nothing could be added."""
        if self.plan is None:
            return f"interface {self.setup.interface} is missing"
        self.serving = True
        self.refused = []
        try:
            self._switch(up=True)
            self.work = self._adding(announce)
            self.step()
        except DriverError as wrong:
            self.work = None
            return str(wrong)
        return self.refused[0] if len(self.refused) == len(self.plan.addresses) else ""

    def begin_withdrawing(self) -> None:
        """Remove the last part now, the rest as work; the gate is shut already."""
        self.serving = False
        if self.plan is not None:
            self.work = self._removing()
            self.step()

    def step(self) -> None:
        """Do the next part of the work. Raises DriverError."""
        if self.work is not None and next(self.work, True) is True:
            self.work = None

    def finish(self) -> None:
        """Do all the work that is left. Raises DriverError."""
        while self.work is not None:
            self.step()

    def clean(self) -> bool:
        """Remove what is not ours to have; return whether anything was. Raises DriverError."""
        if self.plan is None:
            return False
        shared = set(self.ips)
        found = [
            ip_interface(f"{item.address}/{item.prefix_length}")  # whatever length it was given
            for item in addresses(self._netlink, self.plan.ifindex)
            if item.address in shared
        ]
        self.remove_now(found)
        self._switch(up=False)
        return bool(found)

    def missing(self) -> list[IpAddress]:
        """Return the addresses that should be on the interface and are not. Raises DriverError."""
        if not self.serving or self.plan is None or self.work is not None:
            return []
        here = {item.address for item in addresses(self._netlink, self.plan.ifindex)}
        return [ip for ip in self.ips if ip not in here]

    def put_back(self, missing: Sequence[IpAddress]) -> bool:
        """Add what somebody else removed; return whether all stand. Raises DriverError."""
        assert self.plan is not None
        wanted = [a for a in interfaces_of(self.setup) if a.ip in set(missing)]
        present = addresses(self._netlink, self._parent_index)
        return not add_addresses(self._netlink, plan_addresses(self.plan.ifindex, wanted, present))

    def remove_now(self, gone: Interfaces) -> None:
        """Remove addresses that the group no longer has. Raises DriverError."""
        if self.plan is not None and gone:
            remove_addresses(self._netlink, plan_addresses(self.plan.ifindex, gone))

    def _adding(self, announce: Announce) -> Iterator[None]:
        for part in self._parts:
            for wrong in add_addresses(
                self._netlink, part, lambda done: announce(self, [a.ip for a in done])
            ):
                self.refused.append(f"{wrong.address}: {wrong.reason}")
            yield

    def _removing(self) -> Iterator[None]:
        for part in reversed(self._parts):
            remove_addresses(self._netlink, part)
            yield
        self._switch(up=False)

    def _switch(self, *, up: bool) -> None:
        if self.macvlan is not None:
            set_link_up(self._netlink, self.macvlan.index, up=up)
