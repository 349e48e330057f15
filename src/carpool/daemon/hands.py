"""Carries out what the brain asks for: gate, advertisements, addresses, announcements.

The order of a take-over is fixed by the kernel's side of the lease (election/effects.py): window,
advertisement, lease, addresses, announcements. What became of a send goes back to the brain.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from carpool.base.counters import Counters
from carpool.base.errors import CarpoolError, DriverError
from carpool.base.journal import Entry, Noted, Repaired
from carpool.base.time import Instant
from carpool.daemon.attachment import Attachment
from carpool.daemon.post import Post, interfaces_of
from carpool.daemon.speaking import advertise, announce_addresses, probe_addresses
from carpool.drivers.addresses import promote_secondaries
from carpool.drivers.gate import SLOTS, Gate, GateGroup
from carpool.drivers.links import Link
from carpool.drivers.macvlan import create_macvlan, macvlan_name, remove_macvlan
from carpool.drivers.netlink_socket import NetlinkSocket
from carpool.drivers.sysctl import Sysctls
from carpool.engine.effects import Send
from carpool.engine.events import Sent
from carpool.engine.setup import GroupSetup, IpAddress, NodeSetup

HOLDER: Final = "carpoold"  # for whom settings of interfaces are changed
SHOWN_MAX: Final = 5  # addresses named in one line of the journal


class Hands:
    """Everything on this machine that the groups need."""

    def __init__(self, gate: Gate) -> None:
        """Hold nothing yet. Raises DriverError."""
        self.gate = gate
        self.netlink = NetlinkSocket()
        self.settings = Sysctls()
        self.attachments: dict[str, Attachment] = {}
        self.posts: dict[str, Post] = {}
        self.shared: frozenset[IpAddress] = frozenset()
        self.counters = Counters()
        self.gate_trouble = ""  # why no gate can be had
        self.journal: list[Entry] = []  # what the hands themselves have to tell

    # Arranging.

    def arrange(self, setup: NodeSetup) -> None:
        """Stand for exactly these groups: new ones are shut and clean, kept ones untouched."""
        before, self.posts = self.posts, {}
        fresh = {group.name: Post(group, 0, self.netlink) for group in setup.groups}
        for name, post in before.items():
            if name in fresh and fresh[name].same_place == post.same_place:
                self.posts[name] = post
            else:
                self._abandon(post)
        used = {post.slot for post in self.posts.values()}
        free = iter(slot for slot in range(SLOTS) if slot not in used)
        for name, post in fresh.items():
            if name not in self.posts:
                post.slot = next(free)
                self.posts[name] = post
        self.posts = {name: self.posts[name] for name in fresh}
        shared: set[IpAddress] = set()
        for group in setup.groups:
            shared.update(group.v4, group.v6)
        self.shared = frozenset(shared)
        self._attach(setup)
        changed = [self._change(self.posts[group.name], group) for group in setup.groups]
        todo = [
            post
            for post, needed in zip(self.posts.values(), changed, strict=True)
            if needed or post.plan is None
        ]
        # What a killed predecessor left goes before anything else can fail; what is served now
        # gets its new addresses only when the gate covers them.
        for post in todo:
            if not post.serving:
                self._prepare(post)
        self.install_gate()
        for post in todo:
            if post.serving:
                self._prepare(post)

    def _attach(self, setup: NodeSetup) -> None:
        """Hold the interfaces that the groups need, and no others."""
        wanted = {group.interface for group in setup.groups}
        for name in [name for name in self.attachments if name not in wanted]:
            self.attachments.pop(name).close()
            self._settle(self.settings.release(f"{HOLDER} {name}"))
        for name in sorted(wanted):
            attachment = self.attachments.setdefault(name, Attachment(name, self.netlink))
            groups = tuple(group for group in setup.groups if group.interface == name)
            if attachment.groups != groups:
                attachment.serve(groups)
            attachment.refresh()

    def _change(self, post: Post, group: GroupSetup) -> bool:
        """Take new addresses for a group that stays; return whether the messages are stale."""
        before, post.setup = post.setup, group
        if before.addresses == group.addresses:
            return False
        gone = [a for a in interfaces_of(before) if str(a) not in group.addresses]
        post.remove_now(gone)
        return True

    def install_gate(self) -> None:
        """Put the gate where the interfaces are now; see `gate_trouble` for what went wrong."""
        groups = [
            GateGroup(
                group=name,
                slot=post.slot,
                interface=post.setup.interface,
                ifindex=self.attachments[post.setup.interface].ifindex,
                vhid=post.setup.parameters.vhid,
                v4=post.setup.v4,
                v6=post.setup.v6,
                virtual_mac=post.setup.virtual_mac,
                firewall=post.setup.firewall,
            )
            for name, post in self.posts.items()
        ]
        self._with_gate(lambda: self.gate.install(groups))

    def _with_gate(self, action: Callable[[], None]) -> None:
        """Do something with the gate; without a gate nothing may be served here."""
        try:
            action()
        except DriverError as refused:
            self._refuse_gate(str(refused))
        else:
            self._refuse_gate("")

    def _refuse_gate(self, trouble: str) -> None:
        """Remember why there is no gate; whatever is served is taken off at once."""
        self.gate_trouble = trouble
        for attachment in self.attachments.values():
            attachment.gate_trouble = trouble
        for name, post in self.posts.items():
            if trouble and post.serving:
                self.gate.shut(name)
                post.leased = False
                post.begin_withdrawing()
                post.finish()

    def _prepare(self, post: Post) -> None:
        """Make the address messages ahead of time; take off what a killed predecessor left."""
        attachment = self.attachments[post.setup.interface]
        if attachment.link is None:
            post.leave_place()
            return
        try:
            self._prepare_on(post, attachment, attachment.link)
        except DriverError as refused:
            post.leave_place()
            text = f"cannot be served: {refused}"
            self.journal.append(Noted(group=post.setup.name, name="prepare", text=text))

    def _prepare_on(self, post: Post, attachment: Attachment, link: Link) -> None:
        if post.setup.virtual_mac is not None:
            post.macvlan = create_macvlan(
                self.netlink, self.settings, link, self._macvlan_name(post), post.setup.virtual_mac
            )
        promote_secondaries(self.settings, attachment.name, f"{HOLDER} {attachment.name}")
        post.prepare(attachment.ifindex)
        if post.deaf:
            text = f"solicitations will be heard late after a take-over: {post.deaf}"
            self.journal.append(Noted(group=post.setup.name, name="solicited", text=text))
        if post.serving:
            post.begin_serving(self._announce)
        else:
            post.clean()

    def _macvlan_name(self, post: Post) -> str:
        """Return a name that no other group of this node uses: vhids repeat over interfaces."""
        same = [
            other.setup.interface
            for other in self.posts.values()
            if other.setup.parameters.vhid == post.setup.parameters.vhid
            and other.setup.virtual_mac is not None
        ]
        place = sorted(same).index(post.setup.interface)
        return macvlan_name(post.setup.parameters.vhid, place)

    def _abandon(self, post: Post) -> None:
        """Give up a group for good."""
        self.gate.shut(post.setup.name)
        post.leased = False
        post.begin_withdrawing()
        post.finish()
        post.stop_listening()
        if post.macvlan is not None:
            self._settle(remove_macvlan(self.netlink, self.settings, post.macvlan))
            post.macvlan = None

    def _settle(self, failures: Sequence[str]) -> None:
        """Note settings that could not be put back."""
        for text in failures:
            self.journal.append(Noted(group="", name="settings", text=text))

    def release(self) -> None:
        """Leave the machine as it was found."""
        for post in self.posts.values():
            self._abandon(post)
        self.posts = {}
        self.gate.remove()
        for name, attachment in self.attachments.items():
            attachment.close()
            self._settle(self.settings.release(f"{HOLDER} {name}"))
        self.attachments = {}
        self.netlink.close()

    def refresh(self, interface: str) -> None:
        """Follow an interface that changed. Raises DriverError."""
        if not self.attachments[interface].refresh():
            return
        here = [post for post in self.posts.values() if post.setup.interface == interface]
        for post in here:
            post.leave_place()  # while the gate still stands where it stood
        self.install_gate()
        for post in here:
            self._prepare(post)

    # Work that takes more than one turn.

    @property
    def busy(self) -> bool:
        """Return whether `work` has something to do."""
        return any(post.work is not None for post in self.posts.values())

    def work(self) -> None:
        """Do one part of the work on each group's addresses."""
        for name, post in self.posts.items():
            if post.work is None:
                continue
            try:
                post.step()
            except DriverError as wrong:
                post.work = None
                self.journal.append(Noted(group=name, name="addresses", text=str(wrong)))
            if post.work is None and post.refused:
                text = f"{len(post.refused)} addresses are refused: {post.refused[0]}"
                self.journal.append(Noted(group=name, name="address-refused", text=text))
                post.refused = []

    # Advertising.

    def send(self, effect: Send) -> Sent:
        """Send an advertisement and, if it went out, extend the lease."""
        post = self.posts[effect.group]
        if self.gate_trouble:
            none: frozenset[int] = frozenset()
            return Sent(effect.group, none, effect.lease_until, effect.serve, self.gate_trouble)
        if effect.window_until is not None:
            post.leased = False
            self.gate.open(effect.group, Instant(0), effect.window_until)
        attachment = self.attachments[post.setup.interface]
        families, error = advertise(attachment, post, effect.payload, self.counters)
        if not effect.lease_until:
            self.gate.shut(effect.group)
        elif families:
            refusal = self._lease(post, effect)
            if refusal:
                families, error = frozenset(), refusal
        return Sent(
            group=effect.group,
            families=families,
            lease_until=effect.lease_until,
            serving=effect.serve,
            error=error,
        )

    def _lease(self, post: Post, effect: Send) -> str:
        """Set the deadlines; return why not."""
        serve_until = effect.lease_until if effect.serve else Instant(0)
        try:
            if post.leased and effect.serve:
                self.gate.renew(effect.group, serve_until, effect.lease_until)
            else:
                self.gate.open(effect.group, serve_until, effect.lease_until)
                post.leased = effect.serve
        except CarpoolError as refused:
            post.leased = False
            return str(refused)
        return ""

    # Serving.

    def shut(self, group: str) -> None:
        """Answer for the group no more."""
        self.posts[group].leased = False
        self.gate.shut(group)

    def serve(self, group: str) -> str:
        """Put the addresses on the interface; return why that failed, "" when it worked."""
        return self.posts[group].begin_serving(self._announce)

    def withdraw(self, group: str) -> None:
        """Take the addresses off the interface."""
        post = self.posts[group]
        try:
            post.begin_withdrawing()
        except DriverError as wrong:
            self.journal.append(Noted(group=group, name="addresses", text=str(wrong)))

    def announce(self, group: str) -> None:
        """Announce every address."""
        post = self.posts[group]
        if post.work is None:  # else each part is announced as it stands
            self._announce(post, post.ips)

    def _announce(self, post: Post, ips: Sequence[IpAddress]) -> None:
        announce_addresses(self.attachments[post.setup.interface], post, ips, self.counters)

    def probe(self, group: str) -> None:
        """Ask whether another machine answers for the addresses."""
        post = self.posts[group]
        probe_addresses(self.attachments[post.setup.interface], post)

    def serving_on(self, interface: str) -> bool:
        """Return whether a group is served on the interface."""
        return any(
            post.serving and post.setup.interface == interface for post in self.posts.values()
        )

    def is_shared(self, address: IpAddress) -> bool:
        """Return whether an address belongs to a group of ours."""
        return address in self.shared

    # Watching.

    def audit_addresses(self, ifindexes: Collection[int] = ()) -> None:
        """Put back what somebody removed from these interfaces, or from any when events were lost.

        An interface that is going down loses its addresses by itself: there the next election adds
        them again.
        """
        for post in self.posts.values():
            if post.plan is None or (ifindexes and post.plan.ifindex not in ifindexes):
                continue
            facts = self.attachments[post.setup.interface].facts
            missing = post.missing() if facts is not None and facts.up else []
            if missing and post.put_back(missing):
                self._announce(post, missing)
                shown = ", ".join(str(ip) for ip in missing[:SHOWN_MAX])
                detail = shown + (" ..." if len(missing) > SHOWN_MAX else "")
                entry = Repaired(what="address", where=post.setup.interface, detail=detail)
                self.journal.append(entry)

    def remove_strays(self, ifindexes: Collection[int]) -> None:
        """Take off what somebody put on a standby by hand: the address is its master's."""
        for name, post in self.posts.items():
            if post.serving or post.work is not None or post.plan is None:
                continue
            if post.plan.ifindex in ifindexes and post.clean():
                text = (
                    f"a shared address was put on {post.setup.interface} by somebody else while "
                    "this node stands by; it is taken off again"
                )
                self.journal.append(Noted(group=name, name="stray-address", text=text))

    def audit_gate(self) -> None:
        """Compare the gate with the kernel and repair it."""
        missing: list[str] = []
        self._with_gate(lambda: missing.extend(self.gate.audit()))
        for what in missing:
            where = what.removeprefix("gate at ")
            self.journal.append(Repaired(what="gate", where=where, detail="put back"))
