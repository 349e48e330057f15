"""`make bench-hot`: measures what hot failover promises; writes build/bench/hot.json.

    tests/bench/hot.py [--only NAME,...] [--repeat N] [--output DIR]

--repeat plays scenes at most N times instead of as often as promised: quick, but a row that
promises more runs then does not hold. Exit code 1 if a bound is broken.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from failover import Bench, any_order, owners
from planned import left_behind, many_addresses, results_directory, status_command, step_down
from report import Row, write
from vectors import golden_vectors

from carpool.lab.netns import labs_directory, stop_signals_raise

PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "vectors": lambda _: golden_vectors(),
    "status": status_command,
    "step-down": step_down,
    "addresses": many_addresses,
    "owners": owners,
    "any-order": any_order,
    "left-behind": left_behind,
}


def main(arguments: list[str]) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="measure hot failover")
    parser.add_argument("--only", default=",".join(PARTS), help="comma separated: %(default)s")
    parser.add_argument("--repeat", type=int, default=0, help="at most so often")
    parser.add_argument("--output", type=Path, default=results_directory())
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)} (there are {', '.join(PARTS)})")
    began = time.monotonic()
    rows: list[Row] = []
    with stop_signals_raise():
        for name in names:
            say(f"== {name}")
            bench = Bench(labs_directory(), options.repeat, say)
            rows += PARTS[name](bench)
            write(rows, options.output)
    say(f"\nmeasured in {(time.monotonic() - began) / 60:.1f} minutes, all in {options.output}:")
    for row in rows:
        say(row.line())
    return 1 if any(row.holds is False for row in rows) else 0


def say(text: str) -> None:
    """Print a line at once: a bench is watched."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
