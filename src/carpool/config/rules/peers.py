"""Rules about foreign members: what each kind of program can and cannot do.

Sources: FreeBSD sys/netinet/ip_carp.c (advbase 1..255); UCarp src/ucarp.c and src/carp.c (one IPv4
address, no unicast, not advbase 0 with advskew 0); OpenBSD sys/netinet/ip_carp.c (advbase 0..255).
"""

from collections.abc import Iterator

from carpool.config.model import Hot, Peer
from carpool.config.problems import Finding, warning
from carpool.config.rules.parts import Parts
from carpool.config.timing import express

_NAMES = {"freebsd": "FreeBSD", "netbsd": "NetBSD", "ucarp": "ucarp", "openbsd": "OpenBSD"}


def ucarp(parts: Parts) -> Iterator[Finding]:
    """Ucarp knows one IPv4 address and multicast."""
    whole = dict(parts.groups("addresses"))
    for name, hot in parts.hot.items():
        for index, peer in enumerate(hot.peers):
            if peer.kind != "ucarp":
                continue
            for reason in _ucarp_reasons(hot) if name in whole else ():
                yield Finding(
                    ("hot", name, "peers", index, "kind"),
                    f"ucarp cannot join {name}: {reason}",
                    "give it a group of its own, with one IPv4 address",
                )
            if peer.unicast is not None:
                yield Finding(("hot", name, "peers", index, "unicast"), "ucarp knows no unicast")


def _ucarp_reasons(hot: Hot) -> Iterator[str]:
    if len(hot.addresses) > 1:
        yield f"it signs one address, and the group has {len(hot.addresses)}"
    if any(address.version == 6 for address in hot.addresses):
        yield "it knows no IPv6"


def subsecond(parts: Parts) -> Iterator[Finding]:
    """Below one second advskew is the interval: a foreign member must know that, and be known."""
    for name, hot in parts.hot.items():
        is_known = parts.is_known(("hot", name, "interval"))
        expression = express(hot.interval_ns) if is_known else None
        for index, peer in parts.peers(name, "kind", "advbase", "advskew"):
            base = peer.advbase
            if base is None and expression is not None:
                base = expression.advbase
            if base != 0:
                continue
            path = ("hot", name, "peers", index)
            where = (*path, "advbase") if peer.advbase == 0 else path
            if peer.kind in {"freebsd", "netbsd"}:
                yield Finding(
                    where,
                    f"{_NAMES[peer.kind]} knows no advbase 0, which intervals below 1 s need",
                    'interval = "1s" or longer',
                )
            elif peer.advskew is None:
                yield Finding(
                    where,
                    "at advbase 0 the advskew of this member must be known",
                    "its advskew is its interval in 1/256 s: advskew = ...",
                )
            elif peer.advskew == 0 and peer.kind == "ucarp":
                yield Finding((*path, "advskew"), "ucarp refuses advbase 0 with advskew 0")


def demotion(parts: Parts) -> Iterator[Finding]:
    """A demotion in its own byte is read by OpenBSD and carpool only."""
    for name, hot in parts.hot.items():
        deaf: dict[str, Peer] = {
            _NAMES[peer.kind]: peer
            for peer in hot.peers
            if peer.kind in {"freebsd", "netbsd", "ucarp"}
        }
        if deaf and hot.demote == "openbsd":
            yield warning(
                ("hot", name, "peers"),
                f"{' and '.join(deaf)} cannot see a demotion of this group",
                'demote = "freebsd"',
            )


RULES = (ucarp, subsecond, demotion)
