"""`carpool check`: is this file right, and what do its intervals become?

Follows DESIGN 3 and 8. It only checks: nothing is changed, no daemon is asked. Problems go to
standard error as `file:line:col: error: path: reason`, results to standard output. The file "-" is
standard input. Exit code 0 if
the file is right (warnings or not), 1 if it is not.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Final

from carpool.base.time import NS_PER_MS, NS_PER_S
from carpool.config.model import Config, interface_on
from carpool.config.parse import Examined, Survey
from carpool.config.problems import ConfigErrors, Finding, Problem, Severity, suggestion
from carpool.config.render import render
from carpool.config.revision import revision
from carpool.config.schema import schema_text
from carpool.config.syntax import TEXT_BYTES_MAX
from carpool.config.timing import group_timing, lease_ns, margin_ns, others_after_ns
from carpool.control.files import CONFIG_FILE, examine_secrets, survey_content, survey_file

OK: Final = 0
FAILED: Final = 1
VERSION: Final = 1  # of the JSON answer

_COLUMNS: Final = (
    "NODE",
    "INTERFACE",
    "ADVBASE",
    "ADVSKEW",
    "INTERVAL",
    "DETECTION",
    "LEASE",
    "OTHERS AFTER",
)
_FOOTNOTE: Final = (
    "DETECTION: a backup hears nothing for so long and takes over. LEASE: a master answers for so\n"
    "long after an advertisement. OTHERS AFTER: the earliest take-over by any other member."
)
STDIN: Final = "-"
STDIN_NAME: Final = "<stdin>"  # in messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "file", nargs="?", default=CONFIG_FILE, help=f"default: {CONFIG_FILE}; - is stdin"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--print", action="store_true", dest="is_print", help="print the file back")
    shown.add_argument("--json", action="store_true", dest="is_json", help="answer in JSON")
    shown.add_argument(
        "--schema", action="store_true", dest="is_schema", help="print the JSON Schema and stop"
    )
    parser.add_argument("--node", metavar="NAME", help="only what concerns this node")
    parser.add_argument(
        "--strict", action="store_true", help="a secret that is not on this machine is an error"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the file; return the exit code."""
    if arguments.is_schema:
        sys.stdout.write(schema_text())
        return OK
    try:
        examined, warnings = _examine(arguments.file, arguments.node, is_strict=arguments.strict)
    except ConfigErrors as wrong:
        if arguments.is_json:
            _answer({"ok": False, "file": wrong.file, "problems": _plain(wrong.problems)})
        else:
            print(wrong.report(), file=sys.stderr)
        return FAILED
    if arguments.is_json:
        _answer(_facts(examined, warnings, arguments.node))
        return OK
    for problem in warnings:
        print(problem.text(examined.file), file=sys.stderr)
    if arguments.is_print:
        sys.stdout.write(render(examined.config))
    else:
        print("\n".join(_report(examined, arguments.node)))
    return OK


def _examine(path: str, node: str | None, *, is_strict: bool) -> tuple[Examined, list[Problem]]:
    """Return the file and every warning; raises ConfigErrors."""
    survey = _survey(path)
    findings: list[Finding] = []
    are_nodes_known = survey.parts.is_known(("node",))
    if node is not None and are_nodes_known and node not in survey.parts.node_names:
        hint = suggestion(node, survey.parts.node_names)
        findings.append(Finding(("node",), f"there is no node {node}", hint))
    secrets = examine_secrets(survey.parts)
    level = Severity.ERROR if is_strict else Severity.WARNING
    findings.extend((*secrets.findings, *secrets.doubtful))
    findings.extend(replace(finding, severity=level) for finding in secrets.absent)
    others = [survey.locate(finding) for finding in findings]
    wrong = survey.errors()
    if wrong or any(problem.severity is Severity.ERROR for problem in others):
        doubtful = () if wrong else survey.examined().warnings
        raise ConfigErrors(survey.file, [*wrong, *doubtful, *others])
    examined = survey.examined()
    return examined, sorted([*examined.warnings, *others])


def _survey(path: str) -> Survey:
    """Return what is in the file, or comes from standard input; raises ConfigErrors."""
    if path != STDIN:
        return survey_file(path)
    content = sys.stdin.buffer.read(TEXT_BYTES_MAX + 1)
    return survey_content(content, STDIN_NAME)


def _report(examined: Examined, node: str | None) -> Iterator[str]:
    """Yield what is printed about a file that is right."""
    config = examined.config
    yield f"{examined.file}: ok, revision {revision(config)}"
    for name in _groups(config, node):
        hot = config.hot[name]
        addresses = "  ".join(str(address) for address in hot.addresses[:4])
        more = f"  and {len(hot.addresses) - 4} more" if len(hot.addresses) > 4 else ""
        yield ""
        yield f"hot.{name}   vhid {hot.vhid}   {addresses}{more}"
        rows = [_COLUMNS, *(_row(config, name, it) for it in hot.nodes if node in {None, it})]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield ("  " + "  ".join(cells)).rstrip()
    if _groups(config, node):
        yield f"\n{_FOOTNOTE}"


def _groups(config: Config, node: str | None) -> list[str]:
    """Return the groups that concern `node`."""
    return [name for name, hot in config.hot.items() if node is None or node in hot.nodes]


def _row(config: Config, group: str, node: str) -> tuple[str, ...]:
    """Return the numbers of one node of a group."""
    hot, timing = config.hot[group], group_timing(config, group)
    others_ns = others_after_ns(timing, node)
    leases = [
        f"{_time(lease_ns(timing, node, margin_ns(hot, gate)))} ({gate})"
        for gate in (("bpf", "nft") if hot.gate == "auto" else (hot.gate,))
    ]
    if hot.gate != "auto" or hot.margin_ns is not None:
        leases = [leases[0].split(" (")[0]]
    return (
        node,
        interface_on(hot, node),
        str(timing.advbase),
        str(timing.advskew[node]),
        _time(timing.interval_ns[node]),
        _time(timing.master_down_ns[node]),
        ", ".join(leases),
        "-" if others_ns is None else _time(others_ns),
    )


def _time(duration_ns: int) -> str:
    """Return a duration: tenths of a millisecond, from one second on milliseconds."""
    if duration_ns < NS_PER_S:
        return f"{duration_ns / NS_PER_MS:.1f} ms"
    return f"{duration_ns / NS_PER_S:.3f} s"


def _facts(examined: Examined, warnings: list[Problem], node: str | None) -> dict[str, object]:
    """Return the same for machines; times in nanoseconds."""
    config = examined.config
    groups: dict[str, object] = {}
    for name in _groups(config, node):
        hot, timing = config.hot[name], group_timing(config, name)
        groups[name] = {
            "vhid": hot.vhid,
            "addresses": [str(address) for address in hot.addresses],
            "advbase": timing.advbase,
            "nodes": {
                member: {
                    "interface": interface_on(hot, member),
                    "advskew": timing.advskew[member],
                    "interval_ns": timing.interval_ns[member],
                    "master_down_ns": timing.master_down_ns[member],
                    "others_after_ns": others_after_ns(timing, member),
                    "lease_ns": {
                        gate: lease_ns(timing, member, margin_ns(hot, gate))
                        for gate in (("bpf", "nft") if hot.gate == "auto" else (hot.gate,))
                    },
                }
                for member in hot.nodes
                if node in {None, member}
            },
        }
    return {
        "ok": True,
        "file": examined.file,
        "revision": revision(config),
        "problems": _plain(warnings),
        "groups": groups,
    }


def _plain(problems: Iterable[Problem]) -> list[dict[str, object]]:
    return [asdict(problem) for problem in problems]


def _answer(facts: dict[str, object]) -> None:
    print(json.dumps({"v": VERSION, **facts}, indent=2))
