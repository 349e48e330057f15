"""One table of the file to its model, also if some of its fields are wrong.

Follows DESIGN 3 and STYLE 22 (every error at once). What is wrong is said and left out, and the
rest is validated again, so that the rules across fields can judge it. A required field needs a
value all the same: a stand-in, that no rule looks at (`rules.parts`) or that is neutral: an empty
list, the empty path of a file.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from carpool.config.model import Hot, Node, Peer, Site
from carpool.config.problems import Finding, Path
from carpool.config.translation import translate

Table: TypeAlias = dict[str, object]
Model = TypeVar("Model", bound=BaseModel)

_ROUNDS_MAX: Final = 4  # a list may be called too long only when what is in it is right
_STAND_INS: Final[Mapping[type[BaseModel], Table]] = {
    Site: {"name": "unknown"},
    Node: {"address": "192.0.2.1"},
    Peer: {"kind": "carpool"},
    Hot: {
        "vhid": 1,
        "interface": "unknown",
        "addresses": ["192.0.2.1/32"],
        "nodes": ["unknown"],
        "password_file": "/unknown",
    },
}
_NEUTRAL: Final[Table] = {"addresses": (), "nodes": (), "password_file": ""}  # of Hot


@dataclass(slots=True)
class Mended(Generic[Model]):
    """A table without what is wrong in it. All paths begin at the root of the file.

    made: None only if nothing of the table can be used. origins: see `rules.parts.Parts`.
    """

    made: Model | None = None
    findings: list[Finding] = field(default_factory=list)
    left_out: set[Path] = field(default_factory=set)
    origins: dict[Path, tuple[int, ...]] = field(default_factory=dict)


def mend(value: Table, base: Path, model: type[Model]) -> Mended[Model]:
    """Return the table `value`, found at `base`, as far as it is right, and what is wrong."""
    result: Mended[Model] = Mended()
    table, stand_ins = value, set[Path]()
    for _ in range(_ROUNDS_MAX):
        made, errors = _validate(model, table)
        if made is not None:
            result.made = _neutral(made, base, stand_ins)
            break
        if table is value:
            table = deepcopy(value)
        _note(result, errors, base, model)
        _leave_out(result, table, [error["loc"] for error in errors], base)
        stand_ins |= _fill(table, base, model)
    meant = _meant(result.findings)
    result.left_out |= {path for path in meant if not _is_in(value, path[len(base) :])}
    result.findings = [
        it for it in result.findings if it.reason != "missing" or it.path not in meant
    ]
    return result


def _validate(model: type[Model], value: Table) -> tuple[Model | None, list[ErrorDetails]]:
    try:
        return model.model_validate(value), []
    except ValidationError as wrong:
        return None, wrong.errors(include_url=False)


def _note(
    result: Mended[Model], errors: Sequence[ErrorDetails], base: Path, model: type[Model]
) -> None:
    """Keep what is wrong, and where, with the indices of the file."""
    for error in errors:
        original: ErrorDetails = {**error, "loc": _original(result, base, error["loc"])}
        if not _is_echo(error):
            result.findings.append(translate(original, base, model))
        if error["type"] != "extra_forbidden":
            path: Path = (*base, *original["loc"])
            result.left_out.add(path[:-1] if path[-1] == "[key]" else path)


def _original(result: Mended[Model], base: Path, loc: Path) -> Path:
    """Return a place in the table as it is in the file; only lists of the table lose values."""
    indices = result.origins.get((*base, *loc[:1]))
    if indices is None or len(loc) < 2 or not isinstance(loc[1], int):
        return loc
    return (loc[0], indices[loc[1]], *loc[2:])


def _leave_out(result: Mended[Model], table: Table, locs: Sequence[Path], base: Path) -> None:
    """Take what is at `locs` out of the table, the last values of a list first."""
    spoilt: dict[Path, set[int]] = {}
    for loc in locs:
        path = loc[:-1] if loc[-1] == "[key]" else loc
        inside = _inside(table, path[:-1])
        if isinstance(inside, dict):
            inside.pop(path[-1], None)
        elif isinstance(inside, list) and isinstance(path[-1], int):
            spoilt.setdefault(path[:-1], set()).add(path[-1])
    for path, indices in spoilt.items():
        values = _inside(table, path)
        if isinstance(values, list):
            where = (*base, *path)
            known = result.origins.get(where, tuple(range(len(values))))
            result.origins[where] = tuple(
                origin for index, origin in enumerate(known) if index not in indices
            )
            values[:] = [it for index, it in enumerate(values) if index not in indices]


def _fill(table: Table, base: Path, model: type[BaseModel]) -> set[Path]:
    """Put stand-ins where required fields are missing; return where they are."""
    filled = set[Path]()
    for key, stand_in in _STAND_INS.get(model, {}).items():
        if key not in table or table[key] == []:
            table[key] = deepcopy(stand_in)
            filled.add((*base, key))
    peers = table.get("peers")
    if model is Hot and isinstance(peers, list):
        for peer in peers:
            if isinstance(peer, dict):
                _fill(peer, base, Peer)
    return filled


def _neutral(made: Model, base: Path, stand_ins: set[Path]) -> Model:
    """Return the table with nothing in place of the stand-ins that can be nothing."""
    update = {key: value for key, value in _NEUTRAL.items() if (*base, key) in stand_ins}
    return made.model_copy(update=update) if update else made


def _inside(table: Table, path: Path) -> object:
    """Return what is at `path`, None if it is not there."""
    inside: object = table
    for part in path:
        if isinstance(inside, dict):
            inside = inside.get(part)
        elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
            inside = inside[part]
        else:
            return None
    return inside


def _is_in(table: Table, path: Path) -> bool:
    return _inside(table, path) is not None


def _is_echo(error: ErrorDetails) -> bool:
    """Whether a list is called empty because what is in it is wrong, which is said already."""
    return error["type"] == "too_short" and bool(error["input"])


def _meant(findings: Sequence[Finding]) -> set[Path]:
    """Return the places of the keys that are there, but misspelt."""
    return {
        (*finding.path[:-1], finding.hint.split("`")[1])
        for finding in findings
        if finding.reason == "unknown key" and "`" in finding.hint
    }
