"""The Internet checksum: RFC 1071's example, its odd cases, and a slow copy to compare with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.wire.checksum import internet_checksum, is_valid, pseudo_header_v6


def slow(data):
    """Sum word by word as RFC 1071 4.1 does."""
    padded = data + b"\0" * (len(data) & 1)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("0001f203f4f5f6f7", 0x220D),
        ("", 0xFFFF),
        ("0000", 0xFFFF),
        ("ffff", 0),
        ("ffffffff", 0),
        ("01", 0xFEFF),
    ],
)
def test_known_sums(data, expected):
    """RFC 1071 section 3, nothing, zeros, ones, and an odd byte."""
    assert internet_checksum(bytes.fromhex(data)) == expected


@given(st.binary(max_size=80))
def test_same_as_the_slow_one(data):
    """The division gives what the word-by-word sum gives."""
    assert internet_checksum(data) == slow(data)
    assert is_valid(data) is (slow(data) == 0)


@given(st.binary(max_size=80).filter(lambda data: len(data) % 2 == 0))
def test_storing_the_sum_makes_it_valid(data):
    """Data with its own checksum appended is valid, all zeros included."""
    assert is_valid(data + internet_checksum(data).to_bytes(2, "big"))


def test_zeros_are_not_valid():
    """A cleared buffer is not a checked packet."""
    assert not is_valid(bytes(20))
    assert not is_valid(b"")


def test_pseudo_header():
    """40 bytes: addresses, 32 bit of length, next header last (RFC 8200 8.1)."""
    header = pseudo_header_v6(b"\x01" * 16, b"\x02" * 16, 0x102, 58)
    assert header == b"\x01" * 16 + b"\x02" * 16 + bytes.fromhex("000001020000003a")
