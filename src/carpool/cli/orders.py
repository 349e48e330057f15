"""`carpool step-down|demote|pause|resume|reload`: orders, which the daemon carries out."""

import argparse
import re

from carpool.cli.render import plain_lines
from carpool.control.client import ask
from carpool.control.messages import DEMOTION_MAX


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the order takes."""
    verb = parser.get_default("verb")
    if verb in {"step-down", "demote"}:
        parser.add_argument("group", metavar="GROUP", help="a group: [hot.GROUP]")
    if verb == "step-down":
        parser.add_argument(
            "--to", metavar="NODE", help="the successor (default: the best standby)"
        )
    if verb == "pause":
        parser.add_argument(
            "--force", action="store_true", help="also where nobody is there to take over"
        )
    if verb == "demote":
        parser.add_argument(
            "n",
            metavar="N",
            type=_demotion,
            help=f"0 to {DEMOTION_MAX}, or +N / -N for more or less than now",
        )


def _demotion(text: str) -> tuple[int, bool]:
    """Return the number and whether it counts from the present one."""
    if re.fullmatch(r"[+-]?\d{1,3}", text) is None or abs(int(text)) > DEMOTION_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to {DEMOTION_MAX}, +N or -N")
    return int(text), text[0] in "+-"


def run(arguments: argparse.Namespace) -> int:
    """Give the order and print what came of it."""
    args: dict[str, object] = {}
    if "group" in arguments:
        args["group"] = arguments.group
    if getattr(arguments, "to", None) is not None:
        args["to"] = arguments.to
    if getattr(arguments, "force", False):
        args["force"] = True
    if "n" in arguments:
        args["n"], args["relative"] = arguments.n
    data = ask(arguments.socket, arguments.verb, args).data
    print(plain_lines(data.get("text", f"{arguments.verb}: done")))
    return 0
