"""The verbs, each with its module: loaded when it is used and not before.

`carpool status` has to be quick (DESIGN 1: below 150 ms as a process), so nothing here imports a
verb's module. Each module has `add_arguments(parser)` and `run(arguments) -> int`.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Verb(NamedTuple):
    """Where a verb lives and what it does, in one line."""

    module: str
    summary: str
    heading: str


_LOOK: Final = "look"
_ORDER: Final = "order (root, or a member of the group carpool)"
_PREPARE: Final = "prepare"

VERBS: Final[Mapping[str, Verb]] = {
    "status": Verb("status", "who serves what, who stands by, what is wrong", _LOOK),
    "explain": Verb("explain", "why this node is, or is not, master of a group", _LOOK),
    "history": Verb("history", "what happened, newest last", _LOOK),
    "metrics": Verb("metrics", "the same as Prometheus text", _LOOK),
    "step-down": Verb("orders", "hand a group over to a standby", _ORDER),
    "demote": Verb("orders", "set a group's demotion: the higher, the less preferred", _ORDER),
    "pause": Verb("orders", "maintenance: hand everything over and stay out", _ORDER),
    "resume": Verb("orders", "end a pause", _ORDER),
    "reload": Verb(
        "orders", "read the configuration again; unchanged groups are not touched", _ORDER
    ),
    "check": Verb("check", "check a configuration, change nothing", _PREPARE),
    "lab": Verb("lab", "try it: machines, switches and cables on this one machine", _PREPARE),
    "version": Verb("version", "say which version this is", _PREPARE),
}


def overview() -> str:
    """Return the verbs as the help shows them."""
    lines: list[str] = []
    heading = ""
    for name, verb in VERBS.items():
        if verb.heading != heading:
            heading = verb.heading
            lines += ["", f"{heading}:"]
        lines.append(f"  {name:<11}{verb.summary}")
    return "\n".join(lines[1:])
