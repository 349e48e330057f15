"""`carpool`: everything an operator types. This module finds the verb and lets it run.

Exit codes (DESIGN 8): 0 ok, 1 failed, 3 degraded, 4 down or split, 5 no daemon, 64 usage,
77 permission. Errors go to stderr.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

from carpool import __version__
from carpool.cli.render import complain
from carpool.cli.verbs import VERBS, overview
from carpool.control.messages import SOCKET_PATH, ControlError, ExitCode

_INTERRUPTED: Final = 130  # what a shell gives for Ctrl-C
_PIPE_CLOSED: Final = 141  # and for a reader that went away
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_REQUIRED: Final = "the following arguments are required: "  # argparse's words


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors exit with the code for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how it is used."""
        if message.startswith(_REQUIRED) and "VERB" in message:
            message = f"say what to do: {', '.join(self._verbs())}"
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")

    def _verbs(self) -> list[str]:
        """Return what may stand where the usage says VERB."""
        verbs = next(action for action in self._actions if action.metavar == "VERB")
        return list(verbs.choices or ())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except ControlError as refused:
        complain(refused.sentence)
        return refused.code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _write_no_more()
        return _PIPE_CLOSED
    except OSError as failed:
        if failed.errno not in _FULL:
            raise
        _write_no_more()
        complain(f"cannot write the answer: {failed.strerror}")
        return ExitCode.FAILED


def _write_no_more() -> None:
    """Let what is left go nowhere: Python flushes stdout once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str]) -> int:
    """Find the verb, read its arguments, run it."""
    chosen = _top().parse_args(argv)
    verb = VERBS[chosen.verb]
    module = import_module(f"carpool.cli.{verb.module}")
    parser = _Parser(prog=f"carpool {chosen.verb}", description=verb.summary)
    parser.set_defaults(verb=chosen.verb, socket=chosen.socket)
    _add_socket(parser, argparse.SUPPRESS)
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_args(chosen.rest)))
    finally:
        sys.stdout.flush()


def _top() -> argparse.ArgumentParser:
    """Return the parser of everything up to the verb."""
    parser = _Parser(
        prog="carpool",
        usage="carpool [--socket PATH] VERB ...",
        description="Shared addresses that move when a machine fails.",
        epilog=f"{overview()}\n\ncarpool VERB --help says more about one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_socket(parser, os.environ.get("CARPOOL_SOCKET") or SOCKET_PATH)
    parser.add_argument("--version", action="version", version=f"carpool {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_socket(parser: argparse.ArgumentParser, default: str) -> None:
    """Let the control socket be named, before the verb or after it."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=default,
        help=f"the daemon's control socket (default $CARPOOL_SOCKET or {SOCKET_PATH})",
    )


if __name__ == "__main__":
    sys.exit(main())
