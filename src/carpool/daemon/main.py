"""carpoold: arguments, what must be true before anything starts, then the parent's loop."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from carpool import __version__
from carpool.base.errors import LocalError
from carpool.base.journal import ConfigChanged
from carpool.config.problems import ConfigErrors
from carpool.control.files import CONFIG_FILE
from carpool.control.messages import ExitCode
from carpool.daemon.parent import Options, Parent, load
from carpool.daemon.places import Places
from carpool.drivers.realtime import effective_capabilities

NEEDED = ("CAP_NET_ADMIN", "CAP_NET_RAW")


class _Parser(argparse.ArgumentParser):
    """argparse with the exit code of a usage error that the rest of carpool has."""

    def error(self, message: str) -> None:  # type: ignore[override]  # exits, as the original does
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of carpoold's command line."""
    found = _Parser(prog="carpoold", description="The daemon of carpool: one on each node.")
    found.add_argument(
        "--config", default=CONFIG_FILE, metavar="FILE", help=f"the configuration ({CONFIG_FILE})"
    )
    found.add_argument("--node", default="", help="this node's name; the host's name if not given")
    state, runtime = "/var/lib/carpool", "/run/carpool"
    found.add_argument(
        "--state-dir", default=state, metavar="DIR", help=f"history and standing orders ({state})"
    )
    found.add_argument(
        "--runtime-dir", default=runtime, metavar="DIR", help=f"socket and locks ({runtime})"
    )
    found.add_argument(
        "--gate",
        choices=("auto", "bpf", "nft"),
        default="auto",
        help="what holds the lease in the kernel (auto: the strictest that a group asks for)",
    )
    found.add_argument(
        "--log-level",
        choices=("info", "warning", "error"),
        default="info",
        help="the least that is logged (info)",
    )
    found.add_argument(
        "--no-realtime", action="store_true", help="keep the ordinary scheduler (for a laboratory)"
    )
    found.add_argument("--version", action="version", version=f"carpoold {__version__}")
    return found


def missing_capabilities() -> list[str]:
    """Return which of the capabilities that nothing works without are not there."""
    have = effective_capabilities()
    return [name for name in NEEDED if name not in have]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit code."""
    given = parser().parse_args(arguments)
    node = given.node or socket.gethostname().split(".")[0]
    places = Places(Path(given.runtime_dir), Path(given.state_dir))
    missing = missing_capabilities()
    if missing:
        lacking = ", ".join(missing)
        sys.stderr.write(f"carpoold: needs {lacking} (run it as root, or by the systemd unit)\n")
        return ExitCode.PERMISSION
    try:
        loaded = load(given.config, node)
        places.lock()
        places.end_orphan()
        places.write_pid("carpoold", os.getpid())
    except ConfigErrors as wrong:
        sys.stderr.write(f"{wrong}\n")
        return ExitCode.FAILED
    except LocalError as wrong:
        sys.stderr.write(f"carpoold: {wrong}\n")
        return ExitCode.FAILED
    options = Options(
        config_file=given.config,
        node=node,
        places=places,
        gate=given.gate,
        log_level=given.log_level,
        realtime=not given.no_realtime,
    )
    parent = Parent(options, loaded)
    alone = False
    try:
        parent.start_entry(ConfigChanged(loaded.revision, f"carpoold {__version__} on {node}"))
        status = parent.run()
        alone = True
    finally:
        places.tidy(alone=alone)
    return status


if __name__ == "__main__":
    sys.exit(main())
