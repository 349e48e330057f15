"""Requests are checked in full, answers understood, and no bytes can do worse than a refusal."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.control.framing import encode
from carpool.control.messages import (
    ORDERS,
    READS,
    REQUEST_BYTES_MAX,
    ControlError,
    Request,
    answer,
    parse_answer,
    parse_request,
    refusal,
    request,
)

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_VERBS = st.sampled_from([*READS, *ORDERS])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(line: bytes) -> None:
    """Bytes from a stranger raise ControlError or are a known verb: nothing else happens."""
    parsed = None
    with suppress(ControlError):
        parsed = parse_request(line)
    assert parsed is None or parsed.verb in {**READS, **ORDERS}


@given(_VERBS, st.dictionaries(st.sampled_from(["group", "to", "n", "limit", "of"]), _JSON))
def test_any_arguments_are_checked(verb: str, args: dict[str, Any]) -> None:
    """What passes has only arguments of the verb, each of its type and within its bounds."""
    parsed = Request(verb, {})
    with suppress(ControlError):
        parsed = parse_request(encode(request(verb, args), REQUEST_BYTES_MAX))
    assert set(parsed.args) <= set({**READS, **ORDERS}[verb])
    for name in ("group", "to"):
        assert str(parsed.args.get(name, "x")).isprintable()
    assert -255 <= parsed.args.get("n", 0) <= 255


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("status", {}),
        ("history", {"limit": 10}),
        ("explain", {"group": "edge"}),
        ("watch", {"of": "history"}),
        ("step-down", {"group": "edge", "to": "bravo"}),
        ("demote", {"group": "edge", "n": -1, "relative": True}),
        ("pause", {}),
        ("reload", {}),
    ],
)
def test_a_good_request_passes(verb: str, args: dict[str, Any]) -> None:
    """What the command line sends is what the daemon reads."""
    parsed = parse_request(encode(request(verb, args), REQUEST_BYTES_MAX))
    assert (parsed.verb, parsed.args) == (verb, args)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"", "not a line of JSON"),
        (b"\xff\xfe", "not a line of JSON"),
        (b"\x00{\x00}", "not a line of JSON"),
        (b"[" * 60_000, "not a line of JSON"),
        (b'{"v":1,"verb":"status","args":NaN}', "not a line of JSON"),
        (b"7", "not a JSON object"),
        (b'{"v":2,"verb":"status"}', "version 1"),
        (b'{"v":1}', "unknown verb"),
        (b'{"v":1,"verb":["status"]}', "unknown verb"),
        (b'{"v":1,"verb":"status","args":[]}', "args is not an object"),
        (b'{"v":1,"verb":"status","args":{"x":1}}', "no such argument"),
        (b'{"v":1,"verb":"explain"}', "explain needs group"),
        (b'{"v":1,"verb":"explain","args":{"group":"a\\u001b"}}', "group is not a name"),
        (b'{"v":1,"verb":"explain","args":{"group":"\\ud800"}}', "group is not a name"),
        (b'{"v":1,"verb":"explain","args":{"group":""}}', "group is not a name"),
        (b'{"v":1,"verb":"history","args":{"limit":0}}', "limit is not a whole number"),
        (b'{"v":1,"verb":"history","args":{"limit":true}}', "limit is not a whole number"),
        (b'{"v":1,"verb":"demote","args":{"group":"a","n":256}}', "n is not a whole number"),
        (b'{"v":1,"verb":"demote","args":{"group":"a","n":1,"relative":1}}', "neither true nor"),
        (b'{"v":1,"verb":"watch","args":{"of":"all"}}', "none of status, history"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(line: bytes, sentence: str) -> None:
    """Each way to be wrong has its own sentence."""
    with pytest.raises(ControlError, match=sentence):
        parse_request(line)


def test_an_answer_reads_back() -> None:
    """An accepted answer gives its data and its instant."""
    got = parse_answer(encode(answer({"text": "done"}, 17), 1000))
    assert (got.now, got.data) == (17, {"text": "done"})


def test_an_answer_of_bare_text_is_wrapped() -> None:
    """A parent that answers with a sentence instead of an object is understood all the same."""
    assert parse_answer(b'{"v":1,"ok":true,"data":"done"}').data == {"text": "done"}
    assert parse_answer(b'{"v":1,"ok":true,"data":null}').data == {}


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        (json.dumps(refusal("no group x", 64)).encode(), 64, "no group x"),
        (b'{"v":1,"ok":false}', 1, "without a reason"),
        (b'{"v":9,"ok":true}', 1, "does not speak version 1"),
        (b"<html>", 1, "not a line of JSON"),
    ],
)
def test_a_refusal_keeps_its_sentence_and_code(line: bytes, code: int, sentence: str) -> None:
    """What the daemon refuses arrives with its words and its exit code."""
    with pytest.raises(ControlError, match=sentence) as caught:
        parse_answer(line)
    assert caught.value.code == code
