"""TOML text to a Config, or to everything that is wrong with it.

Follows DESIGN 3 and STYLE 22. The text is read in three steps, and a table that fails in one step
takes no other table with it:
1. syntax (`syntax`): one problem, because nothing behind it can be trusted;
2. each table by itself, against its model: unknown keys, missing keys, wrong values;
3. the rules across tables (`check`), over every table that is right by itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic_core import PydanticCustomError

from carpool.config import syntax
from carpool.config.check import check
from carpool.config.fields import check_group_name, check_name
from carpool.config.mending import Model, Table, mend
from carpool.config.model import GROUPS_MAX, NODES_MAX, Config, Hot, Node, Site
from carpool.config.positions import Positions
from carpool.config.problems import (
    At,
    ConfigErrors,
    Finding,
    Path,
    Problem,
    Severity,
    counted,
    format_path,
    suggestion,
)
from carpool.config.rules.parts import Parts
from carpool.config.rules.ties import closed
from carpool.config.translation import describe

_UNBUILT: Final = {"balance": "pools", "uplink": "uplinks", "warm": "warm pairs"}


@dataclass(frozen=True, slots=True)
class Examined:
    """A file that is right, with what is doubtful about it."""

    file: str
    config: Config
    warnings: tuple[Problem, ...]
    positions: Positions

    def locate(self, finding: Finding) -> Problem:
        """Return the finding with its place in this file."""
        return _locate(self.positions, finding)


@dataclass(frozen=True, slots=True)
class Survey:
    """A file, right or wrong: what could be read of it, and everything that was found."""

    file: str
    parts: Parts
    findings: tuple[Finding, ...]
    positions: Positions

    def errors(self) -> list[Problem]:
        """Return what is wrong, with its places, in the order of the text."""
        wrong = (it for it in self.findings if it.severity is Severity.ERROR)
        return sorted(self.locate(finding) for finding in wrong)

    def locate(self, finding: Finding) -> Problem:
        """Return the finding with its place in this file."""
        return _locate(self.positions, finding)

    def examined(self) -> Examined:
        """Return the configuration. Raises ConfigErrors with everything that is wrong."""
        errors, parts = self.errors(), self.parts
        if errors:  # a warning about a file that is half understood may be wrong: later
            raise ConfigErrors(self.file, errors)
        assert parts.site is not None
        hots = closed(parts.hot)
        config = Config.model_construct(site=parts.site, node=dict(parts.node), hot=hots)
        warnings = sorted(self.locate(finding) for finding in self.findings)
        return Examined(self.file, config, tuple(warnings), self.positions)


@dataclass(slots=True)
class _Reading:
    """What one reading of a file has found so far."""

    findings: list[Finding] = field(default_factory=list)
    left_out: set[Path] = field(default_factory=set)
    origins: dict[Path, tuple[int, ...]] = field(default_factory=dict)

    def tables(self, document: Table, key: str) -> Table:
        """Return the table `key` of tables, empty if there is none."""
        value = document.get(key, {})
        if isinstance(value, dict):
            return value
        self.findings.append(Finding((key,), f"{describe(value)} is not a table", f"[{key}.NAME]"))
        self.left_out.add((key,))
        return {}

    def model(self, value: object, base: Path, model: type[Model]) -> Model | None:
        """Return one table as its model, without what is wrong; None if it is no table."""
        if not isinstance(value, dict):
            self.findings.append(Finding(base, f"{describe(value)} is not a table"))
            self.left_out.add(base)
            return None
        mended = mend(value, base, model)
        self.findings.extend(mended.findings)
        self.left_out |= mended.left_out
        self.origins |= mended.origins
        return mended.made

    def missing(self, key: str, hint: str) -> None:
        """Say that a table is not there, unless it is there and misspelt."""
        meant = any(f"`{key}`" in it.hint for it in self.findings if it.reason == "unknown key")
        self.left_out.add((key,))
        if not meant:
            self.findings.append(Finding((key,), "missing", hint))


def parse(text: str, file: str) -> Config:
    """Return the configuration that `text` says.

    file: its name, for messages. Raises ConfigErrors with every problem.
    """
    return examine(text, file).config


def examine(text: str, file: str) -> Examined:
    """Return the configuration that `text` says, with warnings and places.

    file: its name, for messages. Raises ConfigErrors with every problem.
    """
    return survey(text, file).examined()


def survey(text: str, file: str) -> Survey:
    """Return everything that can be known about `text`, right or wrong.

    file: its name, for messages. Raises ConfigErrors only if it is not TOML.
    """
    document = syntax.load(text)
    if isinstance(document, Problem):
        raise ConfigErrors(file, [document])
    try:
        positions = Positions(text)
        reading = _Reading()
        parts = _read(reading, document)
    except RecursionError:
        raise ConfigErrors(file, [syntax.TOO_DEEP]) from None
    crossed = (replace(finding, path=parts.origin(finding.path)) for finding in check(parts))
    return Survey(file, parts, (*reading.findings, *crossed), positions)


def _read(reading: _Reading, document: Table) -> Parts:
    """Return the parts of the document, without what is wrong by itself."""
    for key in document:
        if key not in Config.model_fields:
            reading.findings.append(_unknown_table(key))
    site = None
    if "site" in document:
        site = reading.model(document["site"], ("site",), Site)
    else:
        reading.missing("site", "[site] with a name")
    nodes, hots = reading.tables(document, "node"), reading.tables(document, "hot")
    if document.get("node", {}) == {}:
        reading.missing("node", "[node.NAME] for every machine")
    reading.findings.extend(_too_many("node", nodes, NODES_MAX))
    reading.findings.extend(_too_many("hot", hots, GROUPS_MAX))
    return Parts(
        site=site,
        node=dict(_named(reading, _few(nodes, NODES_MAX), "node", Node, check_name)),
        hot=dict(_named(reading, _few(hots, GROUPS_MAX), "hot", Hot, check_group_name)),
        node_names=tuple(nodes),
        group_names=tuple(hots),
        left_out=frozenset(reading.left_out),
        origins=reading.origins,
    )


def _named(
    reading: _Reading,
    tables: Table,
    key: str,
    model: type[Model],
    judge: Callable[[object], str],
) -> Iterator[tuple[str, Model]]:
    """Yield the tables `[key.NAME]` that are right, under their names."""
    for name, value in tables.items():
        try:
            judge(name)
        except PydanticCustomError as wrong:
            context = wrong.context or {}
            finding = Finding((key, name), context["reason"], context["hint"], at=At.KEY)
            reading.findings.append(finding)
        made = reading.model(value, (key, name), model)
        if made is not None:
            yield name, made


def _unknown_table(key: str) -> Finding:
    if key in _UNBUILT:
        return Finding((key,), f"{_UNBUILT[key]} are not in this version", "remove it", at=At.KEY)
    hint = suggestion(key, ["site", "node", "hot"])
    return Finding((key,), "unknown key", hint, at=At.KEY)


def _few(tables: Table, limit: int) -> Table:
    """Return the tables up to the limit; the others are refused as a whole."""
    return dict(list(tables.items())[:limit])


def _too_many(key: str, tables: Table, limit: int) -> Iterator[Finding]:
    if len(tables) > limit:
        yield Finding((key,), counted(len(tables), "table"), f"at most {limit}")


def _locate(positions: Positions, finding: Finding) -> Problem:
    line, col = positions.find(finding.path, finding.at)
    path = format_path(finding.path)
    return Problem(line, col, path, finding.reason, finding.hint, finding.severity)
