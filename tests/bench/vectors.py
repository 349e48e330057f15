"""Bench row about the wire: every golden CARP frame and HMAC, byte for byte."""

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from report import Row

from carpool.base.errors import DecodeError
from carpool.wire import carp, ethernet, ip

FOLDER = Path(__file__).parents[1] / "unit" / "wire" / "vectors"


def golden_vectors() -> list[Row]:
    """Return the row: 0 for each vector that agrees, 1 for each that does not."""
    wrong, notes = [], []
    for name, agrees in (("carp_captured", captured_agrees), ("carp_derived_hmac", hmac_agrees)):
        for vector in json.loads((FOLDER / f"{name}.json").read_text()):
            good = agrees(vector)
            wrong.append(float(not good))
            if not good:
                notes.append(vector["id"])
    return [
        Row(
            "golden vectors that do not agree (CARP, derived HMACs)",
            "vectors",
            wrong,
            "all agree, byte for byte",
            0,
            by="max",
            notes=notes,
            needed=17,
        )
    ]


def captured_agrees(vector: dict[str, Any]) -> bool:
    """Tell whether a captured frame decodes, verifies and is encoded again to the same bytes."""
    frame = bytes.fromhex(vector["frame"])
    payload = ip.parse_v4(ethernet.parse(frame).payload, ip.PROTOCOL_CARP).payload
    advertisement = carp.decode(payload)
    authenticator = carp.Authenticator(
        vector["password"].encode(), vector["vhid"], [IPv4Address(vector["address"])], []
    )
    try:
        carp.verify(advertisement, authenticator)
    except DecodeError:
        return False
    return carp.encode(advertisement) == payload


def hmac_agrees(vector: dict[str, Any]) -> bool:
    """Tell whether a derived HMAC comes out."""
    lladdr = bytes.fromhex(vector["lladdr"]) if vector["lladdr"] else None
    authenticator = carp.Authenticator(
        vector["key"].encode(),
        vector["vhid"],
        [IPv4Address(each) for each in vector["v4"]],
        [IPv6Address(each) for each in vector["v6"]],
        lladdr,
    )
    signed = authenticator.sign(int(vector["counter"], 16), carp.Variant(vector["variant"]))
    return signed.hex() == vector["hmac"]
