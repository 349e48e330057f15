"""`carpool metrics`: this node as Prometheus text (control/metrics.py has the names)."""

import argparse

from carpool.control.client import ask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments of its own."""
    parser.description = "Print this node's state and counters as Prometheus text."


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    print(ask(arguments.socket, "metrics").data["text"], end="")
    return 0
