"""Lines come out whole however the bytes arrive, and never longer than allowed."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.control.framing import FramingError, LineReader, encode

LIMIT = 64


@given(
    lines=st.lists(st.binary(max_size=LIMIT).filter(lambda line: b"\n" not in line)), data=st.data()
)
def test_any_cut_gives_the_same_lines(lines: list[bytes], data: st.DataObject) -> None:
    """However a stream is cut into pieces, the reader gives back the lines that were written."""
    stream = b"".join(line + b"\n" for line in lines)
    reader, got = LineReader(LIMIT), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:size])
        stream = stream[size:]
    assert got == lines
    assert reader.unfinished == 0


@given(st.lists(st.binary(max_size=3 * LIMIT)))
def test_any_bytes_are_bounded(pieces: list[bytes]) -> None:
    """Any bytes give lines within the limit or FramingError, and never keep more than a line."""
    reader = LineReader(LIMIT)
    with suppress(FramingError):
        for piece in pieces:
            assert all(len(line) <= LIMIT for line in reader.feed(piece))
    assert reader.unfinished <= LIMIT


def test_the_limit_is_exact() -> None:
    """A line of exactly the limit passes, one byte more does not."""
    assert LineReader(LIMIT).feed(b"x" * LIMIT + b"\n") == [b"x" * LIMIT]
    with pytest.raises(FramingError):
        LineReader(LIMIT).feed(b"x" * (LIMIT + 1))


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_what_is_encoded_is_one_line(message: dict[str, object]) -> None:
    """An encoded message has one line end, at its end, and reads back as it was."""
    line = encode(message, 1 << 20)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == message


def test_a_message_too_long_is_not_written() -> None:
    """The writer refuses what the reader on the other side would refuse."""
    with pytest.raises(FramingError, match="64 are allowed"):
        encode({"text": "x" * LIMIT}, LIMIT)
