"""`carpool explain GROUP`: why this node is, or is not, master (control/explanation.py)."""

import argparse
import json

from carpool.cli.render import plain
from carpool.control.client import ask
from carpool.control.messages import VERSION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument("group", metavar="GROUP", help="a group of the configuration: [hot.GROUP]")
    parser.add_argument("--json", action="store_true", help="for programs, versioned")


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation."""
    data = ask(arguments.socket, "explain", {"group": arguments.group}).data
    if arguments.json:
        print(json.dumps({"v": VERSION, **data}))
        return 0
    first, *others = data["sentences"]
    print(plain(first))
    for sentence in others:
        print(f"  {plain(sentence)}")
    return 0
