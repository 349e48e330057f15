"""`carpool status`: one screen that says who serves what, and its verdict as the exit code.

MASTER and STANDBY are the site's; ROLE HERE and what follows are of the node that answers.
The verdict is control/verdict.py's: 0 all is well, 3 degraded, 4 down or split.
"""

import argparse
import json
import sys
from typing import Final

from carpool.base.time import human_duration
from carpool.cli.render import GAP, Cell, Paint, paint_for, plain, table
from carpool.control.client import Client
from carpool.control.messages import VERSION, Answer, ExitCode, Json
from carpool.control.verdict import (
    STALE_NS,
    Verdict,
    judge,
    lease_left_ns,
    masters,
    paused_nodes,
    revisions,
    short,
    standby,
)

ADDRESSES_SHOWN_MAX: Final = 8  # a thousand would hide everything else
SILENCE_S_MAX: Final = 15.0  # a watched daemon speaks each second; then it hangs
_INDENT: Final = " " * 9
_WORDS: Final = {ExitCode.DEGRADED: ("degraded", "warn"), ExitCode.DOWN: ("DOWN", "bad")}
_CLEAR: Final = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument("--json", action="store_true", help="for programs, versioned")
    parser.add_argument("--watch", action="store_true", help="again at every change, until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    """Print the status, once or again and again; return its verdict."""
    with Client(arguments.socket) as client:
        if not arguments.watch:
            return _show(client.ask("status"), as_json=arguments.json, prefix="")
        code = int(ExitCode.OK)
        between = _CLEAR if sys.stdout.isatty() else ""
        for answer in client.watch("status", SILENCE_S_MAX):
            code = _show(answer, as_json=arguments.json, prefix=between)
            if not (between or arguments.json):
                print(flush=True)
        return code


def _show(answer: Answer, *, as_json: bool, prefix: str) -> int:
    """Print one status and return the verdict's exit code."""
    verdict = judge(answer.data, answer.now)
    if as_json:
        print(json.dumps(as_object(answer, verdict)), flush=True)
    else:
        lines = render_status(answer.data, answer.now, verdict, paint_for(sys.stdout))
        print(prefix + "\n".join(lines), flush=True)
    return int(verdict.code)


def as_object(answer: Answer, verdict: Verdict) -> dict[str, object]:
    """Return what `--json` prints: the snapshot's members, its age, the verdict."""
    reasons = [{"code": int(code), "text": text} for code, text in verdict.reasons]
    return {
        "v": VERSION,
        "now": answer.now,
        "verdict": {"code": int(verdict.code), "reasons": reasons},
        **answer.data,
    }


def render_status(status: Json, now: int, verdict: Verdict, paint: Paint) -> list[str]:
    """Return the screen's lines."""
    lines = [headline(status, paint), ""]
    rows = [_row(status, group, now) for group in status["groups"]]
    heads = ("HOT", "MASTER", "STANDBY", "ROLE HERE", "SINCE", "LEASE", "LAST CHANGE HERE")
    head, *body = table([[Cell(text, "bold") for text in heads], *rows], paint)
    lines.append(head)
    for line, group in zip(body, status["groups"], strict=True):
        lines += [line, paint(_addresses(group), "dim")]
    remarks = [*_verdict_lines(verdict, paint), *_warnings(status, paint)]
    return [*lines, "", *remarks] if remarks else lines


def headline(status: Json, paint: Paint) -> str:
    """Return the first line: the site, who says this, its configuration, which nodes are up."""
    site, here = paint(plain(status["site"]), "bold"), f"on {plain(status['node'])}"
    parts = [site, here, _revision(status), _nodes(status, paint)]
    if paused := paused_nodes(status):
        parts.append(paint(f"{' '.join(map(plain, paused))} paused", "warn"))
    return GAP.join(parts)


def _revision(status: Json) -> str:
    """Return whether all known nodes have the same configuration."""
    known = revisions(status)
    mine = plain(short(status["revision"]))
    if len(set(known.values())) > 1:
        return "revisions differ"
    if len(known) == 1:
        return f"revision {mine}"
    everywhere = len(known) == len(status["peers"]) + 1
    return f"revision {mine} on {'all nodes' if everywhere else ' '.join(map(plain, known))}"


def _nodes(status: Json, paint: Paint) -> str:
    """Return who is up, then who is down."""
    states = {status["node"]: True, **{peer["node"]: peer["up"] for peer in status["peers"]}}
    up = [plain(node) for node in sorted(states) if states[node]]
    down = [plain(node) for node in sorted(states) if not states[node]]
    text = f"{' '.join(up)} up"
    return f"{text}, {paint(' '.join(down) + ' down', 'warn')}" if down else text


def _row(status: Json, group: Json, now: int) -> list[Cell]:
    """Return one group's cells."""
    serving, waiting = masters(status, group), standby(status, group)
    left_ns = lease_left_ns(status, group)
    return [
        Cell(plain(group["group"])),
        Cell(
            plain("+".join(serving)) if serving else "none",
            "good" if len(serving) == 1 else "bad",
        ),
        Cell(plain(" ".join(waiting)) or "none", "" if waiting else "warn"),
        Cell(plain(group["state"])),
        Cell(human_duration(max(0, now - group["since"]))),
        Cell(human_duration(left_ns) if left_ns and now - status["at"] <= STALE_NS else "-"),
        Cell(_last_change(group)),
    ]


def _last_change(group: Json) -> str:
    """Return the last change of role on this node, its cause first."""
    cause, reason = plain(group["cause"]), plain(group["reason"])
    return reason if not cause or reason.startswith(cause) else f"{cause}: {reason}"


def _addresses(group: Json) -> str:
    """Return the line below a group's row."""
    addresses = [plain(address) for address in group["addresses"]]
    left_out = len(addresses) - ADDRESSES_SHOWN_MAX
    shown = "  ".join(addresses[:ADDRESSES_SHOWN_MAX])
    return f"{_INDENT}{shown}{f'  and {left_out} more' if left_out > 0 else ''}"


def _verdict_lines(verdict: Verdict, paint: Paint) -> list[str]:
    """Return the reasons of the verdict."""
    lines = []
    for code, sentence in verdict.reasons:
        word, style = _WORDS[code]
        lines.append(f"{paint(word, style)}: {plain(sentence)}")
    return lines


def _warnings(status: Json, paint: Paint) -> list[str]:
    """Return what the daemon wants the operator to know."""
    word = paint("warning", "warn")
    lines = [f"{word}: {plain(text)}" for text in status["warnings"]]
    for group in status["groups"]:
        lines += [f"{word}: {plain(group['group'])}: {plain(text)}" for text in group["warnings"]]
    for name, state in status["processes"].items():
        if not str(state).startswith(("running", "up")):
            lines.append(f"{word}: process {plain(name)}: {plain(state)}")
    return lines
