"""The house rules that no linter knows, checked over the whole tree.

Sizes and docstrings of modules and functions, docstrings and assertions of tests, words and names
that do not belong into the tree, and the few files that have to be there. Limits only go down.
"""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
MODULE_LINES_MAX: Final = 600
FUNCTION_LINES_MAX: Final = 60

# Not ours, or made from what is: nobody commits it (.gitignore).
LEFT_OUT: Final = {".git", ".venv", "build", "dist", "__pycache__", ".hypothesis"}
TEXT_SUFFIXES: Final = frozenset(
    ("", ".py", ".md", ".toml", ".txt", ".sh", ".c", ".h", ".in", ".service", ".conf", ".json")
)

# One letter in brackets each, so that this file does not hold what it forbids.
UNFINISHED: Final = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b")
REGISTRY_HOSTS: Final = re.compile(
    r"pyp[i]\.org|pythonhoste[d]|debia[n]\.org/debian|registry\.np[m]"
)
MACHINE_PATHS: Final = re.compile(r"/wor[k]/|/tmp/c[p]|/roo[t]/|/opt/(pyp[i]|wheel[s])")
# A document, or the source that serves as one.
SOURCES: Final = re.compile(r"RFC \d+|ip_carp|carp\.c|IEEE|IANA|ARCHITECTURE|docs/|linux/\S+\.h")
NOQA: Final = re.compile(r"#\s*noqa(?P<rest>.*)")
NOQA_WITH_REASON: Final = re.compile(r": [A-Z]+\d+(, ?[A-Z]+\d+)*\s+\S.*")
# Calls that fail the test by themselves.
JUDGES: Final = ("assert", "check", "expect", "verify", "prove", "wait_for", "raises", "fail")
FORBIDDEN_MARKS: Final = {"skip", "skipif", "xfail", "importorskip"}


@cache
def files() -> tuple[Path, ...]:
    """Return every text file that belongs to the tree, sorted."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in LEFT_OUT and not name.endswith(("_cache", ".egg-info"))
        ]
        found += [Path(folder) / name for name in names if Path(name).suffix in TEXT_SUFFIXES]
    return tuple(sorted(found))


@cache
def modules() -> tuple[tuple[Path, ast.Module], ...]:
    """Return every Python file with its syntax tree."""
    return tuple((file, ast.parse(file.read_text())) for file in files() if file.suffix == ".py")


def name_of(file: Path) -> str:
    """Return the file's path as the reader of a failure wants it."""
    return str(file.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def every_test() -> Iterator[tuple[str, ast.Module, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every test with where it stands and the module around it."""
    for file, tree in modules():
        if file.name.startswith("test_") and file.is_relative_to(ROOT / "tests"):
            for function in functions(tree):
                if function.name.startswith("test_"):
                    yield f"{name_of(file)}:{function.lineno} {function.name}", tree, function


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    """Return file:line of every line of the tree that `pattern` finds."""
    return [
        f"{name_of(file)}:{number}"
        for file in files()
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]


def called(node: ast.AST) -> Iterator[str]:
    """Yield the last name of everything that is called below `node`."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            if isinstance(call.func, ast.Attribute):
                yield call.func.attr
            elif isinstance(call.func, ast.Name):
                yield call.func.id


def judges(node: ast.AST, tree: ast.Module, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether `node` asserts something, itself or by a function of its own module."""
    if any(isinstance(child, ast.Assert | ast.Raise) for child in ast.walk(node)):
        return True
    names = set(called(node))
    if any(name.startswith(JUDGES) for name in names):
        return True
    return any(
        judges(function, tree, seen | {function.name})
        for function in functions(tree)
        if function.name in names and function.name not in seen
    )


def test_modules_are_short() -> None:
    """No Python or C file is longer than what one reads in a sitting."""
    sources = [file for file in files() if file.suffix in {".py", ".c", ".h"}]
    long = [name_of(f) for f in sources if len(f.read_text().splitlines()) > MODULE_LINES_MAX]
    assert not long


def test_functions_are_short() -> None:
    """No function is longer than a screen."""
    long = [
        f"{name_of(file)}:{function.lineno} {function.name}"
        for file, tree in modules()
        for function in functions(tree)
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES_MAX
    ]
    assert not long


def test_modules_say_what_is_in_them() -> None:
    """Every module, test modules too, opens with a docstring."""
    assert not [name_of(file) for file, tree in modules() if not ast.get_docstring(tree)]


def test_protocols_name_their_document() -> None:
    """Every module of wire/ names the document or source that it follows."""
    wire = ROOT / "src/carpool/wire"
    silent = [
        name_of(file)
        for file, tree in modules()
        if file.is_relative_to(wire)
        and file.name != "__init__.py"
        and not SOURCES.search(ast.get_docstring(tree) or "")
    ]
    assert not silent


def test_tests_say_what_they_prove() -> None:
    """Every test has a docstring."""
    assert not [where for where, _, function in every_test() if not ast.get_docstring(function)]


def test_tests_prove_something() -> None:
    """Every test asserts, itself or through a function that does."""
    assert not [where for where, tree, function in every_test() if not judges(function, tree)]


def test_tests_are_not_skipped() -> None:
    """No test is skipped or expected to fail: what cannot run is left out aloud, by ./test."""
    skipped = [
        f"{name_of(file)}:{node.lineno}"
        for file, tree in modules()
        if file.is_relative_to(ROOT / "tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_MARKS
    ]
    assert not skipped


def test_fakes_not_patches() -> None:
    """Nothing imports a mock library: a test has fakes."""
    patched = [
        name_of(file)
        for file, tree in modules()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any("mock" in alias.name for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and "mock" in (node.module or ""))
        or (isinstance(node, ast.ImportFrom) and any(a.name == "mock" for a in node.names))
    ]
    assert not patched


def test_nothing_is_left_unfinished() -> None:
    """No marker of unfinished work stands anywhere."""
    assert not lines_matching(UNFINISHED)


def test_suppressions_have_a_reason() -> None:
    """Each noqa names its rule and says why."""
    bare = [
        f"{name_of(file)}:{number}"
        for file, _ in modules()
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if (match := NOQA.search(line))
        and file != Path(__file__)
        and not NOQA_WITH_REASON.match(match["rest"])
    ]
    assert not bare


def test_no_registry_is_named() -> None:
    """No package registry's host stands in the tree, the locked requirements included."""
    assert not lines_matching(REGISTRY_HOSTS)


def test_no_machine_is_named() -> None:
    """No path of a developer's machine stands in the tree."""
    assert not lines_matching(MACHINE_PATHS)


def test_changelog_is_open() -> None:
    """The changelog has a place for what the next commit changes."""
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["demo", "test", ".ci/run", "packaging/prove-fresh"])
def test_scripts_can_be_run(name: str) -> None:
    """The scripts that people start are executable and say what runs them."""
    script = ROOT / name
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/sh\n")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_locked(name: str) -> None:
    """Every requirement is pinned to one version and has hashes; nothing says where to fetch it."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    requirements = [
        line for line in text.splitlines() if line and not line.lstrip().startswith("#")
    ]
    assert requirements
    for line in requirements:
        assert re.match(r"[a-z0-9-]+==\S+ ", line), line
        assert "--hash=sha256:" in line
    assert "://" not in text
