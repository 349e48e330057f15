"""Facts about a stage that tests wait for: what was said, which addresses stand, who answers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.control.client import ask
from carpool.lab import site
from carpool.lab.netns import labs_directory
from carpool.lab.nodes import Daemon
from carpool.lab.stage import Stage
from carpool.lab.waiting import LabError, realtime_ns, wait_for

CONTROL_S: Final = 10
HISTORY_ENTRIES: Final = 500


def place(name: str) -> Path:
    """Return the directory of a stage that no other process uses; short, for its sockets' sake."""
    return labs_directory() / f"t{os.getpid()}.{name}"


def entries(daemon: Daemon) -> list[Mapping[str, Any]]:
    """Return the newest entries of a daemon's journal, oldest first."""
    answer = ask(str(daemon.socket), "history", {"limit": HISTORY_ENTRIES}).data
    return list(answer["entries"])


def said(daemon: Daemon, *words: str, since: int = 0) -> list[str]:
    """Return the sentences of the journal that hold all `words`, since an instant."""
    return [
        str(entry["text"])
        for entry in entries(daemon)
        if entry["at"] >= since and all(word in entry["text"] for word in words)
    ]


def wait_said(daemon: Daemon, *words: str, since: int = 0, deadline_s: float = 5.0) -> str:
    """Wait until the journal has a sentence with all `words` and return it."""
    what = f"{daemon.node} to say {' ... '.join(words)}"
    return wait_for(lambda: said(daemon, *words, since=since), deadline_s, what)[0]


def addresses(stage: Stage, node: str) -> dict[str, set[str]]:
    """Return the addresses on each interface of a node."""
    listing = json.loads(stage.lab.run(node, ["ip", "-json", "address", "show"]))
    return {
        link["ifname"]: {item["local"] for item in link["addr_info"] if "local" in item}
        for link in listing
    }


def show(text: str) -> None:
    """Print what was measured; pytest shows it with -rP."""
    print(text)


def milliseconds(since: int) -> float:
    """Return the time since an instant."""
    return (realtime_ns() - since) / NS_PER_MS


def timed(fact: Callable[[], object], deadline_s: float, what: str) -> float:
    """Wait for a fact and return how many milliseconds that took."""
    began = realtime_ns()
    wait_for(fact, deadline_s, what)
    return milliseconds(began)


def passed(duration_s: float) -> Callable[[], bool]:
    """Return a fact that comes true when `duration_s` seconds are over."""
    end = realtime_ns() + int(duration_s * NS_PER_S)
    return lambda: realtime_ns() >= end


def lasting(fact: Callable[[], object], duration_s: float) -> Callable[[], bool]:
    """Return a fact that comes true when `fact` was true for `duration_s` without a break."""
    since: list[int] = []

    def held() -> bool:
        if not fact():
            since.clear()
            return False
        since.append(realtime_ns())
        return since[-1] - since[0] >= duration_s * NS_PER_S

    return held


def edit(stage: Stage, node: str, old: str, new: str) -> None:
    """Change a node's configuration file in place."""
    path = stage.daemon(node).directory / site.FILE_NAME
    text = path.read_text()
    if old not in text:
        raise LabError(f"{old!r} is not in {path}")
    path.write_text(text.replace(old, new))


def carpool(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the operator's command against a daemon."""
    command = [sys.executable, "-m", "carpool.cli.main", "--socket", str(daemon.socket)]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=CONTROL_S
    )
