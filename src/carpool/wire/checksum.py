"""The Internet checksum, and the pseudo header that ICMPv6 adds to it.

Source: RFC 1071 (the sum), RFC 8200 8.1 (the pseudo header).

A sum of 16-bit words with end-around carry is the number that the bytes spell, modulo 65535,
because 65536 = 1 modulo 65535. One division of one long integer is therefore the whole sum. Only
zero needs care: the folded sum of bytes that are not all zero is 0xFFFF, never 0.
"""

from typing import Final

_MODULUS: Final = 0xFFFF


def internet_checksum(data: bytes) -> int:
    """Return the checksum of `data`, 0..65535, to be stored in network order.

    data: any length, the checksum's own field zero; an odd last byte counts as a high byte.
    """
    number = _number(data)
    if number == 0:
        return _MODULUS
    return -number % _MODULUS


def is_valid(data: bytes) -> bool:
    """Tell whether `data`, its checksum field included, sums to the right value.

    All zero is not valid: its folded sum is 0, that of every checked packet 0xFFFF.
    """
    number = _number(data)
    return number != 0 and number % _MODULUS == 0


def pseudo_header_v6(source: bytes, destination: bytes, length: int, next_header: int) -> bytes:
    """Return the 40 bytes that ICMPv6 sums before its own: addresses of 16 bytes, upper length."""
    return source + destination + length.to_bytes(4, "big") + bytes((0, 0, 0, next_header))


def _number(data: bytes) -> int:
    if len(data) & 1:
        data += b"\0"
    return int.from_bytes(data, "big")
