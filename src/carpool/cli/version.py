"""`carpool version`: which version this is."""

import argparse

from carpool import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments of its own."""
    parser.description = "Print the version of this program."


def run(_arguments: argparse.Namespace) -> int:
    """Print the version."""
    print(f"carpool {__version__}")
    return 0
