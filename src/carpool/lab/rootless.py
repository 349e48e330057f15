"""The lab without root: a user namespace in which we are, and what that leaves out.

    python -m carpool.lab.rootless COMMAND...        runs COMMAND in one

`unshare -Urnm` gives a user, network and mount namespace; a tmpfs on /run takes the names of the
lab's own namespaces. The kernel refuses BPF programs and real-time ranks there, so daemons fall
back to the nft gate. Another process joins through one that lives inside (nsenter).
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from carpool.lab.netns import labs_directory
from carpool.lab.shell import SYSTEM_PATH, run, tool_environment
from carpool.lab.waiting import LabError

MARK: Final = "CARPOOL_LAB_ROOTLESS"  # set inside; its value is the user id outside
LEFT_OUT: Final = (
    "left out without root: the BPF gate (the nft gate is played instead)",
    "left out without root: real-time ranks (gaps come out longer)",
)


def inside() -> bool:
    """Tell whether this process already is in such a user namespace."""
    return MARK in os.environ


def needed() -> bool:
    """Tell whether a lab needs one: we are not root."""
    return os.geteuid() != 0


def notice(write: "Sequence[str]" = LEFT_OUT) -> str:
    """Return what is left out here, in lines; nothing if we are root outside."""
    return "\n".join(write) if inside() else ""


def enter(command: Sequence[str]) -> NoReturn:
    """Become `command` inside a new user namespace."""
    environment = _environment()
    _become(
        ["unshare", "-Urnm", "--", sys.executable, "-m", "carpool.lab.rootless", *command],
        environment,
    )


def join(pid: int, command: Sequence[str]) -> NoReturn:
    """Become `command` inside the user namespace in which `pid` lives."""
    _become(
        ["nsenter", "-t", str(pid), "-U", "-m", "-n", "--preserve-credentials", "--", *command],
        _environment(),
    )


def _environment() -> dict[str, str]:
    """Return our environment with the lab's directory fixed: /run and the user id differ inside."""
    return {
        **tool_environment(),
        "CARPOOL_LAB_DIR": str(labs_directory()),
        MARK: os.environ.get(MARK, str(os.geteuid())),
    }


def _become(command: Sequence[str], environment: dict[str, str]) -> NoReturn:
    program = shutil.which(command[0], path=f"{environment['PATH']}:{SYSTEM_PATH}")
    if program is None:
        raise LabError(f"{command[0]} is not installed; without it the lab needs root")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, list(command), environment)  # noqa: S606  no shell is wanted


def main(command: list[str]) -> int:
    """Prepare the fresh user namespace, then become `command`."""
    if needed() and not inside():
        enter(command)
    if inside():
        run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
        Path("/run/netns").mkdir()
    _become(command, tool_environment())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
