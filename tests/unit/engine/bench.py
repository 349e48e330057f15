"""One brain on a bench: hands that obey at once, a clock that is set, a journal to look at."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from tests.unit.pair.sites import NAMES, SLOW, site

from carpool.base.journal import render
from carpool.base.time import NS_PER_MS, NS_PER_S, Instant, after
from carpool.engine.effects import Answer, Effect, Journal, Send, TellPeer
from carpool.engine.engine import Engine
from carpool.engine.events import (
    Event,
    FrameHeard,
    InterfaceFacts,
    InterfaceSeen,
    NeighbourHeard,
    Sent,
    Tick,
)
from carpool.wire import carp
from carpool.wire.link import LinkUp, MessageHeard
from carpool.wire.peer import GroupReport, Heartbeat, Message

START = Instant(1_000 * NS_PER_S)
MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000002")
ALPHA, BRAVO, CHARLIE = (IPv4Address(f"192.0.2.{number}") for number in (11, 12, 13))
LINK_LOCAL = IPv6Address("fe80::11")
FACTS = InterfaceFacts(2, MAC, up=True, carrier=True, v4=ALPHA, v6=LINK_LOCAL)
INSTANCES = {"bravo": b"b" * 16, "charlie": b"c" * 16, "alpha": b"a" * 16}


class Bench:
    """The brain of `node`, and everything it asked for."""

    def __init__(self, node="alpha", *, nodes=2, speed=SLOW, start=True, setup=None, **options):
        """Make the brain; `start` shows it its interface."""
        given = {
            key: options.pop(key) for key in ("alone", "paused", "demotions") if key in options
        }
        made = site(nodes, speed, **options)
        self.setup = setup or made[NAMES.index(node)]
        self.now = START
        self.families = frozenset({4, 6})
        self.effects: list[Effect] = []
        self.engine = Engine(self.setup, now=START, counter_start=1 << 40, **given)
        if start:
            self.see(FACTS)

    def handle(self, event: Event) -> list[Effect]:
        """Handle an event; what is sent is answered at once. Return what was asked for."""
        asked = []
        for effect in self.engine.handle(event, self.now):
            asked.append(effect)
            if isinstance(effect, Send) and effect.lease_until:
                error = "" if self.families else "no buffer space"
                sent = Sent(effect.group, self.families, effect.lease_until, effect.serve, error)
                asked += self.handle(sent)
        self.effects += asked
        return asked

    def see(self, facts, interface="eth0"):
        """Show the state of an interface."""
        return self.handle(InterfaceSeen(interface, facts))

    def run(self, duration_ns):
        """Let time pass, deadline by deadline."""
        end, asked = after(self.now, duration_ns), []
        for _ in range(2000):
            deadline = self.engine.deadline
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            asked += self.handle(Tick())
        else:
            raise AssertionError("the brain spins")
        self.now = end
        return asked

    def standing(self, group="edge"):
        """Return what the election of a group remembers."""
        return self.engine.node.groups[group].election.standing

    def state(self, group="edge"):
        """Return the role in a group."""
        return str(self.standing(group).state)

    def count(self, name):
        """Return a counter."""
        return self.engine.node.counters.get(name)

    def link(self, node="bravo", *, instance=None, path="path0"):
        """Bring a path of the peer link up."""
        return self.handle(LinkUp(node, path, instance or INSTANCES[node], "0"))

    def hear(self, node: str, message: Message, path="path0"):
        """Hear a message of another node."""
        return self.handle(MessageHeard(node, path, message))

    def report(self, node="bravo", state="BACKUP", *, group="edge", sent_at=None, **fields):
        """Hear a heartbeat about one group."""
        values = {
            "group": group,
            "state": state,
            "advbase": 1,
            "advskew": 10 * NAMES.index(node),
            "demote": 0,
            "paused": False,
            "ready": state == "BACKUP",
            "hears": "alpha",
            "sources": (f"192.0.2.{11 + NAMES.index(node)}",),
        }
        revision = fields.pop("revision", "7")
        report = GroupReport(**{**values, **fields})
        sent = int(self.now if sent_at is None else sent_at)
        return self.hear(node, Heartbeat(revision, sent, (report,)))

    def frame(self, frame, interface="eth0"):
        """Hear a frame."""
        return self.handle(FrameHeard(interface, frame, self.now))

    def neighbour(self, frame, interface="eth0"):
        """Hear an ARP packet or neighbour advertisement."""
        return self.handle(NeighbourHeard(interface, frame, self.now))

    def advertisement(self, *, advskew=10, counter=1, demote=0, advbase=1, group="edge"):
        """Return the payload that another member sends."""
        brain = self.engine.node.groups[group]
        advert = carp.advertise(
            brain.authenticator, advbase=advbase, advskew=advskew, demote=demote, counter=counter
        )
        return carp.encode(advert)

    def advert(self, source=BRAVO, **fields):
        """Hear an advertisement of another member."""
        return self.frame(carp.multicast_frame(self.advertisement(**fields), OTHER_MAC, source))

    def master(self):
        """Let this node become master and serve."""
        self.run(3_200 * NS_PER_MS)
        assert self.standing().serving
        return self


def journal(effects):
    """Return the lines of the journal among effects."""
    return [render(effect.entry) for effect in effects if isinstance(effect, Journal)]


def answers(effects):
    """Return (number, ok, text) of each answer among effects."""
    return [(e.number, e.ok, e.text) for e in effects if isinstance(e, Answer)]


def told(effects, kind):
    """Return the messages of a kind that were told, with their receivers."""
    return [
        (e.node, e.message)
        for e in effects
        if isinstance(e, TellPeer) and isinstance(e.message, kind)
    ]


def with_group(setup, **changes):
    """Return a setup whose only group is changed."""
    return replace(setup, groups=(replace(setup.groups[0], **changes),))


def with_parameters(setup, **changes):
    """Return a setup whose only group has changed parameters."""
    parameters = replace(setup.groups[0].parameters, **changes)
    return with_group(setup, parameters=parameters)
