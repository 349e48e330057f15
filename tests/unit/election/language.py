"""The commands of the election's transcripts: one election, virtual time, hands that obey.

    new RANK [of N] [interval=1s|100ms] [preempt=off] [delay=D] [demote=freebsd] [foreign=KIND]
                                     a fresh election of the node of that rank (0 = alpha)
    enable | enable alone | disable REASON
    pass D                           time passes; every deadline on the way is kept
    during D STEP COMMAND ...        time passes, and the command is repeated at every step
    freeze D                         time passes and nothing is handled
    hear WHO [BASE SKEW [DEMOTE]] [v6] [late D]     an advertisement, received D ago
    bowout WHO
    report WHO STATE [SKEW [DEMOTE]] [unready] [otherfile] [hears=WHO] [base=N]
    lost WHO | gone WHO
    offer|accept|refuse|transfer|taken|request WHO [REASON]     with the serial last seen
    again WHO [REASON]               the last offer, over another path
    hands fail REASON | hands obey   what becomes of advertisements
    stepdown [WHO] | stop | pause | resume
    demotion N | companion yes|no | conflict ADDRESS MAC | reload KEY=VALUE
    state

Serials are written #1, #2 in the order in which they appear; times are milliseconds since `new`.
"""

from dataclasses import replace

from tests.unit.pair.sites import FAST, NAMES, SLOW, parameters

from carpool.base.journal import render
from carpool.base.time import NS_PER_S, Instant, after, parse_duration
from carpool.election import effects as asked
from carpool.election import events
from carpool.election.machine import Election
from carpool.election.parameters import DemoteMode, Kind, Member, State
from carpool.wire import peer

START = Instant(1_000 * NS_PER_S)
FOREIGN = "192.0.2.99"
SPEEDS = {"1s": SLOW, "100ms": FAST}


def _ms(duration_ns: int) -> str:
    return f"{duration_ns / 1e6:.1f}"


class Player:
    """One election and the time; `answer` obeys one command."""

    def __init__(self) -> None:
        """Wait for `new`."""
        self.now = START
        self.election = Election(parameters("alpha", NAMES[:2], SLOW))
        self.obey = ""
        self.serials: list[int] = []
        self.foreign = Kind.CARPOOL

    def answer(self, line: str) -> list[str]:
        """Return what one command brings about."""
        verb, *rest = line.split()
        return getattr(self, f"do_{verb.replace('-', '_')}")(rest)

    # The machine's side.

    def handle(self, event: events.Event) -> list[str]:
        """Handle one event; advertisements go out, or fail, as the hands are told to."""
        told = []
        for effect in self.election.handle(event, self.now):
            told.append(f"{_ms(self.now - START):>9} {self.show(effect)}")
            if isinstance(effect, asked.TakeOver | asked.Advertise):
                told += self.handle(self._sent(effect))
        return told

    def _sent(self, effect: asked.TakeOver | asked.Advertise) -> events.Event:
        if self.obey:
            return events.AdvertisementFailed(self.obey)
        return events.AdvertisementSent(effect.lease_until, effect.serve)

    def show(self, effect: asked.Effect) -> str:
        """Return one effect in words."""
        match effect:
            case asked.TakeOver() | asked.Advertise():
                name = "take over" if isinstance(effect, asked.TakeOver) else "advertise"
                numbers = f"{effect.advbase} {effect.advskew} {effect.demote}"
                serve = "serve" if effect.serve else "listen"
                return f"{name} {numbers}, lease {_ms(effect.lease_until - self.now)}, {serve}"
            case asked.Tell(node, message):
                return f"tell {node}: {self._message(message)}"
            case asked.Record(entry):
                return f"record {render(entry)}"
            case asked.BowOut():
                return "bow out"
            case _:
                return type(effect).__name__.lower()

    def _message(self, message: peer.Message) -> str:
        assert not isinstance(message, peer.Heartbeat | peer.Goodbye)
        reason = getattr(message, "reason", "")
        hold = " (hold)" if getattr(message, "hold", False) else ""
        serial = self._serial(message.serial)
        return f"{type(message).__name__} {serial} {reason}".rstrip() + hold

    def _serial(self, serial: int) -> str:
        if serial not in self.serials:
            self.serials.append(serial)
        return f"#{self.serials.index(serial) + 1}"

    # Commands.

    def do_new(self, rest: list[str]) -> list[str]:
        """Make a fresh election."""
        options = dict(word.split("=") for word in rest if "=" in word)
        count = int(rest[2]) if rest[1:2] == ["of"] else 2
        names = NAMES[:count]
        made = parameters(names[int(rest[0])], names, SPEEDS[options.get("interval", "1s")])
        made = replace(
            made,
            preempt=options.get("preempt") != "off",
            preempt_delay_ns=parse_duration(options.get("delay", "0s")),
            demote_mode=DemoteMode(options.get("demote", "openbsd")),
        )
        self.foreign = Kind(options.get("foreign", "carpool"))
        if self.foreign is not Kind.CARPOOL:
            member = Member(FOREIGN, self.foreign, made.advbase, 50, 9)
            made = replace(made, members=(*made.members, member))
        self.__dict__.update(now=START, obey="", serials=[], election=Election(made))
        return []

    def do_enable(self, rest: list[str]) -> list[str]:
        """The interface is there."""
        return self.handle(events.Enabled(alone=rest == ["alone"]))

    def do_disable(self, rest: list[str]) -> list[str]:
        """The interface is not there."""
        return self.handle(events.Disabled(" ".join(rest)))

    def do_pass(self, rest: list[str]) -> list[str]:
        """Let time pass, deadline by deadline."""
        end = after(self.now, parse_duration(rest[0]))
        told = []
        for _ in range(1000):
            deadline = self.election.deadline
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            told += self.handle(events.TimePassed())
        else:
            raise AssertionError("the election spins")
        self.now = end
        return told

    def do_during(self, rest: list[str]) -> list[str]:
        """Repeat a command while time passes."""
        whole, step, *command = rest
        told = []
        for _ in range(parse_duration(whole) // parse_duration(step)):
            told += self.do_pass([step])
            told += self.answer(" ".join(command))
        return told

    def do_freeze(self, rest: list[str]) -> list[str]:
        """Let time pass unnoticed."""
        self.now = after(self.now, parse_duration(rest[0]))
        return []

    def do_hear(self, rest: list[str]) -> list[str]:
        """Hear an advertisement."""
        who, *words = rest
        late = parse_duration(words.pop()) if words[-2:-1] == ["late"] else 0
        numbers = [int(word) for word in words if word.isdigit()]
        member = self.election.standing.member(who)
        base, skew = (member.advbase, member.advskew) if member else (1, 50)
        base, skew, demote = (*numbers, *(base, skew, 0)[len(numbers) :])
        ours = who in NAMES
        heard = events.AdvertisementHeard(
            source=f"192.0.2.{11 + NAMES.index(who)}" if ours else FOREIGN,
            node=who if ours else "",
            kind=Kind.CARPOOL if ours else Kind(who) if who in set(Kind) else self.foreign,
            family=6 if "v6" in words else 4,
            primary="v6" not in words,
            lower="lower" in words,
            advbase=base,
            advskew=skew,
            demote=demote,
            received_at=Instant(self.now - late),
        )
        return self.handle(heard)

    def do_bowout(self, rest: list[str]) -> list[str]:
        """Hear a master leave."""
        return self.do_hear([rest[0], "255", "255", "0", *rest[1:]])

    def do_report(self, rest: list[str]) -> list[str]:
        """Hear a heartbeat."""
        who, state, *words = rest
        numbers = [int(word) for word in words if word.isdigit()]
        member = self.election.standing.member(who)
        assert member is not None
        skew, demote = (*numbers, *(member.advskew, 0)[len(numbers) :])
        hears = next((word[6:] for word in words if word.startswith("hears=")), "alpha")
        base = next((int(word[5:]) for word in words if word.startswith("base=")), member.advbase)
        return self.handle(
            events.PeerReported(
                node=who,
                state=State(state),
                advbase=base,
                advskew=skew,
                demote=demote,
                ready=state == "BACKUP" and "unready" not in words,
                hears="" if hears == "none" else hears,
                same_file="otherfile" not in words,
            )
        )

    def do_lost(self, rest: list[str]) -> list[str]:
        """The last path to a node went away."""
        return self.handle(events.PeerLost(rest[0]))

    def do_gone(self, rest: list[str]) -> list[str]:
        """A node's process has ended, just now."""
        return self.handle(events.PeerGone(rest[0], self.now))

    def _said(self, kind: type, rest: list[str]) -> list[str]:
        who, *words = rest
        numbered = [word for word in words if word.startswith("#")]
        if not self.serials:
            self.serials.append(1)
        serial = self.serials[int(numbered[0][1:]) - 1 if numbered else -1]
        reason = " ".join(word for word in words if word not in {*numbered, "hold"})
        fields = {"group": "edge", "serial": serial}
        if kind in {peer.Request, peer.Offer, peer.Refuse}:
            fields["reason"] = reason
        if kind is peer.Offer:
            fields["hold"] = "hold" in words
        return self.handle(events.PeerSaid(who, kind(**fields)))

    def do_request(self, rest: list[str]) -> list[str]:
        """A standby asks for the group."""
        return self._said(peer.Request, rest)

    def do_offer(self, rest: list[str]) -> list[str]:
        """A master offers the group, under a number of its own."""
        self.serials.append(len(self.serials) + 1)
        return self._said(peer.Offer, rest)

    def do_again(self, rest: list[str]) -> list[str]:
        """The last offer comes over another path too."""
        return self._said(peer.Offer, rest)

    def do_accept(self, rest: list[str]) -> list[str]:
        """A standby accepts."""
        return self._said(peer.Accept, rest)

    def do_refuse(self, rest: list[str]) -> list[str]:
        """A node refuses."""
        return self._said(peer.Refuse, rest)

    def do_transfer(self, rest: list[str]) -> list[str]:
        """The giver has shut its gate."""
        return self._said(peer.Transfer, rest)

    def do_taken(self, rest: list[str]) -> list[str]:
        """The taker serves."""
        return self._said(peer.Taken, rest)

    def do_hands(self, rest: list[str]) -> list[str]:
        """Say what becomes of advertisements from now on."""
        self.obey = " ".join(rest[1:]) if rest[0] == "fail" else ""
        return []

    def do_stepdown(self, rest: list[str]) -> list[str]:
        """An operator asks for a hand-over."""
        to = rest[0] if rest else ""
        return self.handle(events.StepDownOrdered(to, "step-down", "step-down by anna"))

    def do_stop(self, _: list[str]) -> list[str]:
        """The daemon ends."""
        return self.handle(events.StepDownOrdered("", "stop", "carpoold stops"))

    def do_pause(self, _: list[str]) -> list[str]:
        """Maintenance begins."""
        return self.handle(events.StepDownOrdered("", "pause", "paused by anna"))

    def do_resume(self, _: list[str]) -> list[str]:
        """Maintenance is over."""
        self.election.resume()
        return self.do_enable([])

    def do_demotion(self, rest: list[str]) -> list[str]:
        """The demotion counter changes."""
        return self.handle(events.DemotionSet(int(rest[0]), "ordered by anna"))

    def do_companion(self, rest: list[str]) -> list[str]:
        """The group that leads this one is, or is not, mastered here."""
        return self.handle(events.CompanionSeen(rest[0] == "yes"))

    def do_conflict(self, rest: list[str]) -> list[str]:
        """Another machine answers for an address."""
        return self.handle(events.ConflictHeard(rest[0], rest[1]))

    def do_reload(self, rest: list[str]) -> list[str]:
        """A reload changes parameters in place."""
        values = {key: int(value) for key, value in (word.split("=") for word in rest)}
        changed = replace(self.election.standing.parameters, **values)
        return self.handle(events.ParametersChanged(changed))

    def do_state(self, _: list[str]) -> list[str]:
        """Say where the election stands."""
        standing = self.election.standing
        serving = "serving" if standing.serving else "not serving"
        deadline = self.election.deadline
        next_ms = "never" if deadline is None else _ms(deadline - START)
        ready = "ready" if self.election.ready else "not ready"
        return [f"{standing.state}, {serving}, {ready}, next {next_ms}, because {standing.cause}"]
