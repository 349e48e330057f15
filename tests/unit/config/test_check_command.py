"""`carpool check`: what it prints, its exit codes, its JSON, and what it asks of secrets."""

import argparse
import io
import json
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from carpool.cli import check
from carpool.config.parse import parse
from carpool.config.revision import revision
from carpool.config.schema import schema

KEY = "0123456789abcdef"
TEXT = """\
site = { name = "test", secret_file = "SECRET" }
node.alpha.address = "192.0.2.11"
node.bravo.address = "192.0.2.12"

[hot.edge]
vhid = 1
interface = "eth0"
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
nodes = ["alpha", "bravo"]
password_file = "PASSWORD"
interval = "100ms"
node.bravo.interface = "ens3"

[hot.slow]
vhid = 2
interface = "eth0"
addresses = ["192.0.2.20/24"]
nodes = ["bravo"]
password_file = "PASSWORD"
interval = "2s"
gate = "nft"
margin = "30ms"
"""
TABLES = """
hot.edge   vhid 1   192.0.2.10/24  2001:db8::10/64
  NODE   INTERFACE  ADVBASE  ADVSKEW  INTERVAL  DETECTION  LEASE                           {others}
  alpha  eth0       0        26       101.6 ms  304.7 ms   311.4 ms (bpf), 296.4 ms (nft)  316.4 ms
  bravo  ens3       0        27       105.5 ms  316.4 ms   299.7 ms (bpf), 284.7 ms (nft)  304.7 ms

hot.slow   vhid 2   192.0.2.20/24
  NODE   INTERFACE  ADVBASE  ADVSKEW  INTERVAL  DETECTION  LEASE    {others}
  bravo  eth0       2        0        2.000 s   6.000 s    5.970 s  -

DETECTION: a backup hears nothing for so long and takes over. LEASE: a master answers for so
long after an advertisement. OTHERS AFTER: the earliest take-over by any other member.
""".format(others="OTHERS AFTER")


def run(*words: str) -> int:
    """Run the verb with these arguments and return its exit code."""
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.run(parser.parse_args(words))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file that is right, with its secrets in place."""
    for name, text in (("secret", f"1 {KEY}\n"), ("password", "open sesame\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "site.toml"
    text = TEXT.replace("SECRET", str(tmp_path / "secret"))
    path.write_text(text.replace("PASSWORD", str(tmp_path / "password")))
    return path


def test_a_good_file_shows_what_its_intervals_become(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The revision, then CARP's numbers, detection, lease, and the longer time of the others."""
    assert run(str(file)) == 0
    output = capsys.readouterr()
    name = revision(parse(file.read_text(), "x"))
    assert output.out == f"{file}: ok, revision {name}\n{TABLES}"
    assert output.err == ""


def test_one_node_sees_what_concerns_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--node leaves out other nodes and the groups that the node is not in."""
    assert run(str(file), "--node", "alpha") == 0
    output = capsys.readouterr().out
    assert "alpha  eth0" in output
    assert "ens3" not in output
    assert "hot.slow" not in output


def test_a_node_that_is_not_in_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt --node is an error with a hint."""
    assert run(str(file), "--node", "alhpa") == 1
    assert "there is no node alhpa (did you mean `alpha`?)" in capsys.readouterr().err


def test_a_broken_file_fails(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every problem goes to standard error, nothing to standard output, exit code 1."""
    file.write_text(file.read_text().replace('"100ms"', "5").replace("vhid = 2", "vihd = 2"))
    assert run(str(file)) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f'{file}:11:12: error: hot.edge.interval: 5 has no unit (write "5s" or "5ms")\n'
        f"{file}:15:1: error: hot.slow.vihd: unknown key (did you mean `vhid`?)\n"
        f"{file}: 2 errors, nothing was changed\n"
    )


def test_secrets_and_the_file_are_judged_in_one_report(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value hides neither a rule across fields nor a bad password, in its group or not."""
    text = file.read_text().replace("vhid = 1", "vhid = 500").replace('["bravo"]', '["brvao"]')
    file.write_text(text)
    (file.parent / "password").write_text("x" * 21)
    assert run(str(file)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"{file}:").split(" (")[0] for line in lines] == [
        "6:8: error: hot.edge.vhid: 500 is too large",
        f"10:17: error: hot.edge.password_file: {file.parent}/password: the password has 21 bytes",
        "18:10: error: hot.slow.nodes[0]: there is no node brvao",
        f"19:17: error: hot.slow.password_file: {file.parent}/password: the password has 21 bytes",
        " 4 errors, nothing was changed",
    ]


def test_standard_input(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file "-" is one that is not saved yet; messages call it <stdin>."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert run("-") == 0
    assert capsys.readouterr().out.startswith("<stdin>: ok, revision ")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# gr\xfcn")))
    assert run("-") == 1
    assert capsys.readouterr().err.startswith("<stdin>:1:5: error: this byte is not UTF-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"#" * (1 << 21))))
    assert run("-") == 1
    assert "the limit is 1048576 bytes" in capsys.readouterr().err


def test_a_missing_secret_is_a_warning(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file can be checked on a machine that has no secrets."""
    (file.parent / "password").unlink()
    assert run(str(file)) == 0
    output = capsys.readouterr()
    warning = f"warning: hot.edge.password_file: {file.parent}/password: not found here"
    assert f"{file}:10:17: {warning}\n" in output.err
    assert "ok, revision" in output.out


def test_a_missing_secret_is_an_error_when_strict(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--strict asks for what the daemon needs."""
    (file.parent / "password").unlink()
    assert run(str(file), "--strict") == 1
    assert "2 errors, nothing was changed" in capsys.readouterr().err


def test_a_secret_that_others_may_read_fails(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is here and wrong is an error, strict or not."""
    (file.parent / "secret").chmod(stat.S_IRUSR | stat.S_IROTH)
    assert run(str(file)) == 1
    assert "others may use it (mode 0404) (chmod 0600)" in capsys.readouterr().err


def test_the_printed_file_checks_as_the_same(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--print writes a file of the same revision, and that file only."""
    assert run(str(file), "--print") == 0
    printed = capsys.readouterr().out
    assert revision(parse(printed, "x")) == revision(parse(file.read_text(), "x"))
    assert tomllib.loads(printed)["hot"]["edge"]["sealed"] == "off"


def test_the_answer_for_machines(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json says the same with times in nanoseconds, and a version."""
    assert run(str(file), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["v"], answer["ok"], answer["problems"]) == (1, True, [])
    assert answer["groups"]["edge"]["nodes"]["bravo"] == {
        "interface": "ens3",
        "advskew": 27,
        "interval_ns": 105_468_750,
        "master_down_ns": 316_406_250,
        "others_after_ns": 304_687_500,
        "lease_ns": {"bpf": 299_687_500, "nft": 284_687_500},
    }


def test_problems_for_machines(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json of a broken file lists its problems with line and column."""
    file.write_text("[site]\nname = 1\n")
    assert run(str(file), "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert [(it["line"], it["col"], it["path"]) for it in answer["problems"]] == [
        (1, 1, "node"),
        (2, 8, "site.name"),
    ]


def test_the_schema_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    """--schema prints the schema, whether there is a configuration or not."""
    assert run("/nowhere/at/all.toml", "--schema") == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """The default file or a named one that is missing is an error as any other."""
    assert run("/nowhere/at/all.toml") == 1
    assert capsys.readouterr().err.splitlines() == [
        "/nowhere/at/all.toml:1:1: error: cannot be read: No such file or directory",
        "/nowhere/at/all.toml: 1 error, nothing was changed",
    ]
