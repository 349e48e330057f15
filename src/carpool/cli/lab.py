"""`carpool lab VERB`: machines, switches and cables on this one machine, with the real daemon.

Needs root, or works in a user namespace of its own and says what that leaves out. Everything is in
namespaces that `carpool lab down` removes, also after a crash; Ctrl-C during `up` removes them too.
"""

import argparse
import sys
from collections.abc import Callable

from carpool.base.errors import CarpoolError
from carpool.config.problems import ConfigErrors
from carpool.lab import demo, operate
from carpool.lab.netns import labs_directory

_NODE_VERBS = {
    "kill": (operate.kill, "kill -9 the daemon on NODE"),
    "start": (operate.start, "start the daemon on NODE again"),
    "freeze": (operate.freeze, "stop the daemon on NODE (SIGSTOP)"),
    "thaw": (operate.thaw, "let it go on"),
}
_PLACE_VERBS = {
    "unplug": (operate.unplug, "pull the cables of NODE, or the one of NODE:INTERFACE"),
    "plug": (operate.plug, "plug them in again"),
}
_PLAIN_VERBS = {
    "status": (operate.status, "nodes, roles, cables and faults"),
    "heal": (operate.heal, "take back every partition and loss, plug every cable in"),
    "down": (operate.down, "remove everything"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the lab's own verbs."""
    verbs = parser.add_subparsers(dest="lab_verb", metavar="VERB", required=True)
    up = verbs.add_parser("up", help="boot the nodes of FILE (default: the shipped example)")
    up.add_argument("file", metavar="FILE", nargs="?", default="")
    for name, (_, text) in _PLAIN_VERBS.items():
        verbs.add_parser(name, help=text)
    for name, (_, text) in _PLACE_VERBS.items():
        verbs.add_parser(name, help=text).add_argument("place", metavar="NODE[:INTERFACE]")
    for name, (_, text) in _NODE_VERBS.items():
        verbs.add_parser(name, help=text).add_argument("node", metavar="NODE")
    sides = verbs.add_parser("partition", help="no frame passes between the sides: a,b / c")
    sides.add_argument("sides", metavar="A,B / C", nargs="+")
    sides.add_argument("--network", default="", help="only in this network (default: in all)")
    loss = verbs.add_parser("loss", help="drop a share of what NODE sends: 30%%")
    loss.add_argument("node", metavar="NODE")
    loss.add_argument("share", metavar="SHARE")
    verbs.add_parser("demo", help="a minute of failures, measured")


def run(arguments: argparse.Namespace) -> int:
    """Carry out one verb of the lab."""
    verb = arguments.lab_verb
    try:
        work = "new" if verb in {"up", "demo"} else "open"
        operate.settle(operate.ourselves(_again(arguments)), work)
        return _action(arguments)()
    except ConfigErrors as wrong:  # its lines say file and place themselves, as in `check`
        sys.stderr.write(f"{wrong.report()}\n")
        return 1
    except CarpoolError as wrong:
        sys.stderr.write(f"carpool: {wrong}\n")
        return 1


def _action(arguments: argparse.Namespace) -> Callable[[], int]:
    verb = arguments.lab_verb
    if verb in _PLAIN_VERBS:
        return _PLAIN_VERBS[verb][0]
    if verb in _PLACE_VERBS:
        return lambda: _PLACE_VERBS[verb][0](arguments.place)
    if verb in _NODE_VERBS:
        return lambda: _NODE_VERBS[verb][0](arguments.node)
    if verb == "partition":
        return lambda: operate.partition(arguments.sides, arguments.network)
    if verb == "loss":
        return lambda: operate.loss(arguments.node, arguments.share)
    if verb == "demo":
        return lambda: demo.run(labs_directory() / "demo")
    return lambda: operate.up(arguments.file)


def _again(arguments: argparse.Namespace) -> list[str]:
    """Return the words that make these arguments once more."""
    given = [getattr(arguments, name, "") for name in ("file", "place", "node", "share")]
    words = [arguments.lab_verb, *filter(None, given), *getattr(arguments, "sides", [])]
    if getattr(arguments, "network", ""):
        words += ["--network", arguments.network]
    return words
