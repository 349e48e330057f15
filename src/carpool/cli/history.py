"""`carpool history`: what happened on this node, newest last, in the words of the log."""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from typing import Final

from carpool.cli.render import Paint, clock_time, paint_for, plain
from carpool.control.client import Client
from carpool.control.messages import HISTORY_ENTRIES_DEFAULT, HISTORY_ENTRIES_MAX, VERSION, Json

_STYLES: Final = {"error": "bad", "warning": "warn", "debug": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument(
        "-n",
        dest="limit",
        metavar="N",
        type=_limit,
        default=HISTORY_ENTRIES_DEFAULT,
        help=f"the last N entries (default {HISTORY_ENTRIES_DEFAULT})",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens next")
    parser.add_argument("--json", action="store_true", help="one object a line, versioned")


def _limit(text: str) -> int:
    """Return the number of entries asked for."""
    if re.fullmatch(r"[0-9]{1,9}", text) is None or not 1 <= int(text) <= HISTORY_ENTRIES_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to {HISTORY_ENTRIES_MAX}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Print the entries."""
    with Client(arguments.socket) as client:
        data = client.ask("history", {"limit": arguments.limit}).data
        _print(data["entries"], as_json=arguments.json)
        shown = data["total"]
        if arguments.follow:
            for news in client.watch("history"):
                entries = [entry for entry in news.data["entries"] if entry["seq"] > shown]
                _print(entries, as_json=arguments.json)
                shown = max(shown, news.data["total"])
    return 0


def _print(entries: Iterable[Json], *, as_json: bool) -> None:
    """Print entries, at once: somebody may be following."""
    paint = paint_for(sys.stdout)
    for entry in entries:
        line = json.dumps({"v": VERSION, **entry}) if as_json else render_entry(entry, paint)
        print(line, flush=True)


def render_entry(entry: Json, paint: Paint) -> str:
    """Return an entry's line: when, how loud, what."""
    level = str(entry["entry"].get("level", "info"))
    words = f"{level:<7}  {plain(entry['text'])}"
    return f"{clock_time(entry['at'])}  {paint(words, _STYLES.get(level, ''))}"
