"""Running the system's own tools: ip, nft. Every refusal names the command and what it said."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from carpool.lab.waiting import LabError

COMMAND_S: Final = 30  # far longer than any of them takes; a hang must not hang the lab
NETNS_DIR: Final = Path("/run/netns")  # where iproute2 keeps named namespaces
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def tool_environment() -> dict[str, str]:
    """Return our environment with the system's own folders on PATH (users often lack sbin)."""
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{path}:{SYSTEM_PATH}", "LC_ALL": "C"}


def run(command: Sequence[str], *, text: str = "") -> str:
    """Run `command` with `text` as its input and return what it printed.

    Raises LabError with the command and its complaint.
    """
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            env=tool_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)}: {complaint or f'exit {done.returncode}'}")
    return done.stdout


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """Return `command` as it is run inside a namespace; the process id stays that of `ip`."""
    return ["ip", "netns", "exec", namespace, *command]


def ip_batch(lines: Iterable[str], *, namespace: str = "") -> None:
    """Carry out `lines` of the ip tool in one process, inside `namespace` if one is given."""
    text = "\n".join(lines)
    if text:
        run(["ip", *(["-n", namespace] if namespace else []), "-batch", "-"], text=text + "\n")
