"""What the service's user may do: the claims of packaging/carpool.service, tried on this kernel.

A program of the standard library runs as an ordinary user, in a network namespace of its own that
ends with it, with the capabilities that the unit grants and no others:

    unshare --net -> setpriv (uid 65534, six ambient capabilities) -> /usr/bin/python3 -c PROGRAM
"""

import configparser
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
NOBODY: Final = "65534"
PYTHON: Final = "/usr/bin/python3"  # the tests' own may lie where an ordinary user cannot look

PROGRAM: Final = """
import ctypes, json, os, socket, sys

def attempt(action):
    try:
        action()
    except OSError as refused:
        return refused.strerror
    return "allowed"

def write_again(path):
    with open(path, "r+") as file:
        value = file.read()
        file.seek(0)
        file.write(value)

def lock_memory():
    if ctypes.CDLL(None, use_errno=True).mlockall(3):
        raise OSError(ctypes.get_errno(), "mlockall refused")

names = {"__name__": "probe"}
exec(sys.stdin.read(), names)
print(json.dumps({
    "uid": os.getuid(),
    "bpf": "allowed" if names["may_load"]() else "refused",
    "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()),
    "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 112).close()),
    "real time": attempt(
        lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))),
    "lock memory": attempt(lock_memory),
    "network sysctl": attempt(
        lambda: write_again("/proc/sys/net/ipv4/conf/lo/promote_secondaries")),
    "core pattern": attempt(lambda: write_again("/proc/sys/kernel/core_pattern")),
    "shadow": attempt(lambda: open("/etc/shadow").close()),
}))
"""


def capabilities() -> str:
    """Return the unit's capabilities as setpriv wants them."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "packaging/carpool.service")
    names = parser["Service"]["AmbientCapabilities"].lower().split()
    return ",".join(["-all", *(f"+{name.removeprefix('cap_')}" for name in names)])


@cache
def tried() -> dict[str, object]:
    """Return what the service's user was allowed and what not."""
    held = capabilities()
    done = subprocess.run(
        [
            *("unshare", "--net", "setpriv", "--reuid", NOBODY, "--regid", NOBODY),
            *("--clear-groups", "--no-new-privs", f"--bounding-set={held}"),
            *(f"--inh-caps={held}", f"--ambient-caps={held}", PYTHON, "-c", PROGRAM),
        ],
        input=(ROOT / "packaging/probe_bpf.py").read_text(),
        text=True,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.lab
@pytest.mark.bpf
@pytest.mark.parametrize(
    "what", ["bpf", "packet", "raw", "real time", "lock memory", "network sysctl"]
)
def test_service_may(what: str) -> None:
    """The six capabilities are enough for what carpoold does, without being root."""
    assert tried()[what] == "allowed"


@pytest.mark.lab
@pytest.mark.bpf
@pytest.mark.parametrize("what", ["core pattern", "shadow"])
def test_service_may_not(what: str) -> None:
    """What a process of user id 0 could do without any capability, the service cannot."""
    assert tried()["uid"] == int(NOBODY)
    assert tried()[what] == "Permission denied"
