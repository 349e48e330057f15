"""`serve` as a process: what it answers, what it passes on, what it survives, what it gave up."""

import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carpool.base import journal
from carpool.base.errors import LocalError
from carpool.control.client import Client, ask
from carpool.control.messages import CONNECTIONS_MAX, REQUEST_BYTES_MAX, ControlError
from carpool.daemon.serve import listen
from carpool.lab.waiting import wait_for

WAIT_S = 20.0
Parent = Any  # tests/unit/conftest.py has it


def _entries(count: int) -> list[dict[str, Any]]:
    """Return journal entries as the parent sends them."""
    made = (journal.Noted("edge", "test", f"entry {number}") for number in range(count))
    return [{"at": 10**18, "entry": journal.to_json(entry)} for entry in made]


def _raw(parent: Parent) -> socket.socket:
    """Return a bare connection."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(WAIT_S)
    connection.connect(parent.path)
    return connection


def _read_to_end(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    pieces = []
    try:
        while data := connection.recv(1 << 16):
            pieces.append(data)
    except ConnectionResetError:  # closed while our bytes were unread
        pass
    return b"".join(pieces)


def test_before_the_first_snapshot_there_is_no_status(parent: Parent) -> None:
    """A daemon that has just started says so, with the code for "no daemon"."""
    with pytest.raises(ControlError, match="just started") as caught:
        ask(parent.path, "status")
    assert caught.value.code == 5


def test_status_is_the_latest_snapshot(parent: Parent, status: dict[str, Any]) -> None:
    """What the parent sent last is what a reader gets, with the instant of the answer."""
    parent.snapshot({**status, "node": "old"})
    parent.snapshot(status)
    answer = ask(parent.path, "status")
    assert answer.data == status
    assert answer.now > 0


def test_history_keeps_order_and_limit(parent: Parent) -> None:
    """The newest entries come, oldest first, each with the sentence of the log."""
    parent.say(type="entries", data=_entries(30))
    data = ask(parent.path, "history", {"limit": 2}).data
    assert [entry["text"] for entry in data["entries"]] == ["edge: entry 28", "edge: entry 29"]
    assert [entry["seq"] for entry in data["entries"]] == [29, 30]
    assert data["total"] == 30


def test_a_history_longer_than_an_answer_is_cut(parent: Parent) -> None:
    """Asked for more than an answer may hold, the newest entries that fit come."""
    for _ in range(20):
        parent.say(type="entries", data=_entries(520))
    data = ask(parent.path, "history", {"limit": 10_000}).data
    assert data["total"] == 10_400
    assert 3_000 < len(data["entries"]) < 10_000
    assert data["entries"][-1]["seq"] == 10_400


def test_an_entry_of_another_version_is_shown(parent: Parent) -> None:
    """An entry this program does not know is shown by its members."""
    parent.say(type="entries", data=[{"at": 5, "entry": {"kind": "Later", "level": "info"}}])
    (entry,) = ask(parent.path, "history").data["entries"]
    assert entry["text"] == "kind=Later level=info"


def test_explain_and_metrics_are_answered(parent: Parent, status: dict[str, Any]) -> None:
    """The other two readers' verbs come from the same snapshot."""
    parent.snapshot(status)
    explained = ask(parent.path, "explain", {"group": "edge"}).data
    assert explained["sentences"][0].startswith("alpha is MASTER of edge")
    assert "carpool_group_state" in ask(parent.path, "metrics").data["text"]


def test_several_requests_on_one_connection(parent: Parent, status: dict[str, Any]) -> None:
    """Requests written in one go are answered one after the other, the last half-closed."""
    parent.snapshot(status)
    with _raw(parent) as connection:
        connection.sendall(b'{"v":1,"verb":"status"}\nnonsense\n{"v":1,"verb":"metrics"}\n')
        connection.shutdown(socket.SHUT_WR)
        answers = [json.loads(line) for line in _read_to_end(connection).splitlines()]
    assert [answer["ok"] for answer in answers] == [True, False, True]


def test_an_order_goes_to_the_parent_and_back(parent: Parent, status: dict[str, Any]) -> None:
    """An order carries its arguments and who gave it; the parent's answer comes back."""
    parent.snapshot(status)
    with _raw(parent) as connection:
        request = {"v": 1, "verb": "step-down", "args": {"group": "edge", "to": "bravo"}}
        connection.sendall(json.dumps(request).encode() + b"\n")
        order = parent.obey("edge: handed over to bravo")
        answer = json.loads(connection.recv(1 << 16))
    assert (order["type"], order["verb"]) == ("order", "step-down")
    assert order["args"] == {"group": "edge", "to": "bravo"}
    assert order["who"] == f"uid {os.getuid()} pid {os.getpid()}"
    assert answer["data"] == {"text": "edge: handed over to bravo"}


def test_a_refused_order_keeps_its_code(parent: Parent) -> None:
    """The parent's refusal arrives with its sentence and code."""
    with _raw(parent) as connection:
        connection.sendall(b'{"v":1,"verb":"reload"}\n')
        number = parent.order()["id"]
        parent.say(type="answer", id=number, ok=False, error="site.toml: 2 errors", code=1)
        answer = json.loads(connection.recv(1 << 16))
    assert answer == {"v": 1, "ok": False, "error": "site.toml: 2 errors", "code": 1}


@pytest.mark.parametrize(
    ("number", "relative", "passed"), [(5, False, 5), (2, True, "+2"), (-1, True, "-1")]
)
def test_a_demotion_says_whether_it_is_relative(
    parent: Parent, number: int, *, relative: bool, passed: object
) -> None:
    """A relative demotion reaches the parent with its sign, an absolute one as a number."""
    with _raw(parent) as connection:
        args = {"group": "edge", "n": number, "relative": relative}
        connection.sendall(json.dumps({"v": 1, "verb": "demote", "args": args}).encode() + b"\n")
        assert parent.obey()["args"] == {"group": "edge", "n": passed}


def test_a_demotion_below_nothing_is_refused(parent: Parent) -> None:
    """An absolute demotion is 0 to 255; less is refused as wrong usage."""
    with pytest.raises(ControlError, match="0 to 255") as caught:
        ask(parent.path, "demote", {"group": "edge", "n": -1})
    assert caught.value.code == 64


def test_an_order_for_no_group_is_refused_here(parent: Parent, status: dict[str, Any]) -> None:
    """A misspelt group does not reach the parent."""
    parent.snapshot(status)
    for verb, args in (("step-down", {}), ("demote", {"n": 1})):
        with pytest.raises(ControlError, match="no group egde"):
            ask(parent.path, verb, {"group": "egde", **args})


def test_a_client_that_left_does_not_matter(parent: Parent, status: dict[str, Any]) -> None:
    """An answer to an order whose client is gone is dropped, and so is one nobody asked for."""
    parent.snapshot(status)
    with _raw(parent) as connection:
        connection.sendall(b'{"v":1,"verb":"pause"}\n')
        parent.order()
    parent.say(type="answer", id=1, ok=True, data={})
    parent.say(type="answer", id=77, ok=True, data={})
    assert ask(parent.path, "status").data == status


def test_a_watcher_is_told_of_changes(parent: Parent, status: dict[str, Any]) -> None:
    """A watcher gets the state at once and again when something in it moved."""
    parent.snapshot(status)
    with Client(parent.path) as client:
        news = client.watch("status", WAIT_S)
        assert next(news).data["paused"] is False
        parent.snapshot({**status, "paused": True})
        assert next(news).data["paused"] is True


def test_a_watcher_of_the_history_gets_each_entry_once(parent: Parent) -> None:
    """Entries come to a watcher in order, none twice, none lost."""
    parent.say(type="entries", data=_entries(3))
    with Client(parent.path) as client:
        news, numbers = client.watch("history", WAIT_S), []
        numbers += [entry["seq"] for entry in next(news).data["entries"]]
        for _ in range(5):
            parent.say(type="entries", data=_entries(2))
        while len(numbers) < 13:
            numbers += [entry["seq"] for entry in next(news).data["entries"]]
    assert numbers == list(range(1, 14))


def test_garbage_changes_nothing(parent: Parent, status: dict[str, Any]) -> None:
    """Random bytes, in many connections, get refusals or a close; then all is as before."""
    parent.snapshot(status)
    lot = random.Random(7)
    for _ in range(60):
        with _raw(parent) as connection:
            connection.sendall(lot.randbytes(lot.randrange(1, 4000)))
            connection.shutdown(socket.SHUT_WR)
            for line in _read_to_end(connection).splitlines():
                assert json.loads(line)["ok"] is False
    assert ask(parent.path, "status").data == status
    assert parent.process.poll() is None


def test_a_request_without_end_is_cut_off(parent: Parent) -> None:
    """A line longer than a request may be gets a refusal and the connection is closed."""
    with _raw(parent) as connection:
        connection.sendall(b"x" * (REQUEST_BYTES_MAX + 1))
        answer = json.loads(_read_to_end(connection))
    assert answer["error"] == f"a line is longer than {REQUEST_BYTES_MAX} bytes"


def test_a_flood_of_requests_is_cut_off(parent: Parent) -> None:
    """Who writes requests without reading answers is closed, after being told."""
    with _raw(parent) as connection:
        connection.sendall(b"\n" * 30_000)
        last = json.loads(_read_to_end(connection).splitlines()[-1])
    assert last["error"] == "too many requests without waiting for an answer"


def test_there_are_at_most_so_many_connections(parent: Parent, status: dict[str, Any]) -> None:
    """One connection too many is refused; when another leaves there is room again."""
    parent.snapshot(status)
    held = [_raw(parent) for _ in range(CONNECTIONS_MAX)]
    try:
        with pytest.raises(ControlError, match="too many connections"):
            ask(parent.path, "status")
    finally:
        for connection in held:
            connection.close()

    def room() -> bool:
        try:
            return ask(parent.path, "status").data == status
        except ControlError:
            return False

    wait_for(room, WAIT_S, "room for a connection")


def test_nonsense_from_the_parent_is_survived(parent: Parent, status: dict[str, Any]) -> None:
    """A message that cannot be understood is complained about and skipped."""
    for nonsense in (b"{", b"[]", b'{"type":"later"}', b'{"type":"answer"}', b'{"type":"entries"}'):
        parent.channel.send(nonsense)
    parent.snapshot(status)
    assert ask(parent.path, "status").data == status


def test_it_ends_with_its_parent(parent: Parent) -> None:
    """When the parent's end is closed the process exits by itself, with 0."""
    parent.channel.close()
    assert parent.process.wait(WAIT_S) == 0


def test_it_has_no_capabilities(parent: Parent, status: dict[str, Any]) -> None:
    """Of the privileges of its parent nothing is left, and none can come back."""
    parent.snapshot(status)
    ask(parent.path, "metrics")  # it serves, so it has dropped them
    lines = Path(f"/proc/{parent.process.pid}/status").read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(facts[name], 16) == 0
    assert facts["NoNewPrivs"] == "1"


def test_it_keeps_no_file_of_its_parent(
    start_serve: Callable[..., Parent], status: dict[str, Any]
) -> None:
    """A socket it inherited is closed, so that the other end sees who really has it."""
    ours, inherited = socket.socketpair()
    with ours, inherited:
        parent = start_serve((inherited.fileno(),))
        parent.snapshot(status)
        ask(parent.path, "status")
        inherited.close()
        ours.settimeout(WAIT_S)
        assert ours.recv(1) == b""


def test_a_new_serve_takes_the_path_over(
    start_serve: Callable[..., Parent], status: dict[str, Any]
) -> None:
    """After a crash the next process listens at the same path, at once and open to readers."""
    first = start_serve()
    first.process.kill()
    first.process.wait(WAIT_S)
    second = start_serve()
    second.snapshot(status)

    def answered() -> bool:
        try:
            return ask(second.path, "status").data == status
        except ControlError:  # the old socket's file, for a moment
            return False

    wait_for(answered, WAIT_S, "the second serve")
    assert Path(second.path).stat().st_mode & 0o777 == 0o666


def test_a_path_that_cannot_be_is_said(tmp_path: Path) -> None:
    """A directory that is missing and a path that is too long are errors with a sentence."""
    with pytest.raises(LocalError, match="No such file"):
        listen(str(tmp_path / "missing" / "control.sock"))
    with pytest.raises(LocalError, match="too long"):
        listen(str(tmp_path / ("x" * 200)))
