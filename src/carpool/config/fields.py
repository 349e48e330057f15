"""The values of the configuration: each kind, its limits, and what is said when it is wrong.

Every validator takes what TOML gave and either returns the typed value or raises through `fail`,
whose sentence and hint are ours (DESIGN 3: errors a person can act on). Source for the limits:
CARP's header (vhid one byte, research: OpenBSD sys/netinet/ip_carp.h), Linux's IFNAMSIZ.
"""

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Annotated, Final, Literal, NoReturn, TypeAlias

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from carpool.base.time import NS_PER_US, parse_duration

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface

NAME_LENGTH_MAX: Final = 63  # a host name's label; the peer link's messages hold 64
GROUP_LENGTH_MAX: Final = 32  # also part of the names of nftables sets and of metrics' labels
INTERFACE_BYTES_MAX: Final = 15  # Linux IFNAMSIZ is 16 with the closing zero
NUMBER_BITS_MAX: Final = 64  # TOML's integers; Python refuses to print those of 4300 digits
CREDENTIAL_PREFIX: Final = "credential:"

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_GROUP: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

_DURATION_SCHEMA: Final = {
    "type": "string",
    "pattern": r"^\d{1,12}(\.\d{1,9})?(us|ms|s|m|h|d)$",
    "examples": ["250ms", "1s", "2m"],
}


def fail(reason: str, hint: str = "") -> NoReturn:
    """Refuse a value: `reason` is the sentence, `hint` what to write instead."""
    raise PydanticCustomError("carpool", "{reason}", {"reason": reason, "hint": hint})


def show(value: object) -> str:
    """Return a wrong value as it may appear in a message: short, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > NUMBER_BITS_MAX:
        return "a number of many digits"
    text = str(value)
    text = ascii(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."


def check_name(value: object) -> str:
    """Return the name of a site or node, or fail."""
    return _named(value, _NAME, NAME_LENGTH_MAX, 'letters, digits, ".", "_" and "-"')


def check_group_name(value: object) -> str:
    """Return the name of a group, or fail."""
    return _named(value, _GROUP, GROUP_LENGTH_MAX, 'letters, digits, "_" and "-"')


def _named(value: object, pattern: re.Pattern[str], length_max: int, allowed: str) -> str:
    if not isinstance(value, str):
        fail(f"{show(value)} is not a name", "a name is a string in quotes")
    if not value:
        fail("the name is empty")
    if len(value) > length_max:
        fail(f"the name has {len(value)} characters, the limit is {length_max}")
    if pattern.fullmatch(value) is None:
        fail(
            f'"{show(value)}" is not a name',
            f"{allowed}; it begins and ends with a letter or a digit",
        )
    return value


def _address(value: object) -> IPAddress:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if not isinstance(value, str):
        fail(f"{show(value)} is not an IP address", 'an address is a string: "192.0.2.11"')
    if "/" in value:
        fail(f"{show(value)} has a prefix length", f'write "{show(value.split("/")[0])}"')
    if "%" in value:
        fail(f"{show(value)} has a zone", "write it without")
    try:
        address = ip_address(value)
    except ValueError:
        fail(f'"{show(value)}" is not an IP address', "host names are not looked up here")
    return _unicast(address)


def _unicast(address: IPAddress) -> IPAddress:
    """Refuse what cannot be the address of a machine."""
    if address.is_unspecified:
        fail(f"{address} is the unspecified address")
    if address.is_multicast:
        fail(f"{address} is a multicast address")
    if address == IPv4Address("255.255.255.255"):
        fail(f"{address} is the broadcast address")
    if isinstance(address, IPv6Address) and address.is_link_local:
        fail(f"{address} is a link-local address: it has no meaning without an interface")
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        fail(f"{address} is an IPv4-mapped address", f'write "{address.ipv4_mapped}"')
    return address


def _shared_address(value: object) -> IPInterface:
    if isinstance(value, IPv4Interface | IPv6Interface):
        return value
    if not isinstance(value, str):
        fail(f"{show(value)} is not an address", 'an address is a string: "192.0.2.10/24"')
    if "%" in value:
        fail(f"{show(value)} has a zone", "the interface is given by `interface`")
    host = value.split("/")[0]
    try:
        address = ip_interface(value)
    except ValueError:
        _refuse_interface(value, host)
    if "/" not in value:
        width = 24 if address.version == 4 else 64
        fail(
            f"{show(value)} has no prefix length",
            f'"{host}/{width}" if the network is a /{width}, '
            f'"{host}/{address.max_prefixlen}" for the address alone',
        )
    if "." in value.split("/")[1]:
        fail(f"{show(value)}: the prefix length is a number", f'write "{address.with_prefixlen}"')
    return _sharable(address)


def _refuse_interface(value: str, host: str) -> NoReturn:
    """Say which half of "address/prefix" is wrong."""
    try:
        address = ip_address(host)
    except ValueError:
        fail(f'"{show(value)}" is not an IP address with its prefix length')
    fail(
        f'{show(host)}: "{show(value.partition("/")[2])}" is not a prefix length',
        f"0 < prefix length <= {address.max_prefixlen}",
    )


def _sharable(address: IPInterface) -> IPInterface:
    """Refuse what no group can serve."""
    host, network = address.ip, address.network
    if host.is_unspecified:
        fail(f"{host} is the unspecified address")
    if host.is_loopback:
        fail(f"{host} is a loopback address: no other machine can reach it")
    if host.is_multicast:
        fail(f"{host} is a multicast address")
    if isinstance(host, IPv6Address) and host.ipv4_mapped:
        fail(f"{host} is an IPv4-mapped address", f'write "{host.ipv4_mapped}/24"')
    if network.prefixlen == 0:
        fail(f"{address}: the prefix length is 0", "it would claim that everything is on the link")
    if isinstance(host, IPv4Address) and (host.is_reserved or host in _THIS_NETWORK):
        fail(f"{host} is a reserved address")
    if network.prefixlen < network.max_prefixlen - 1:
        if host == network.network_address:
            word = "network" if address.version == 4 else "subnet router anycast"
            fail(f"{host} is the {word} address of {network}")
        if address.version == 4 and host == network.broadcast_address:
            fail(f"{host} is the broadcast address of {network}")
    return address


_THIS_NETWORK: Final = ip_interface("0.0.0.0/8").network


def _duration(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        fail(f"{show(value)} is not a duration", 'write for example "250ms", "1s" or "2m"')
    if not isinstance(value, str):
        text = show(value)
        fail(f"{text} has no unit", f'write "{text}s" or "{text}ms"')
    try:
        duration_ns = parse_duration(value)
    except ValueError as wrong:
        _, _, hint = str(wrong).partition(" (")
        fault = "has no unit" if value.replace(".", "").isdigit() else "is not a duration"
        fail(f'"{show(value)}" {fault}', hint.removesuffix(")") if len(value) <= 60 else "")
    if duration_ns % NS_PER_US:
        fail(f"{show(value)} is finer than a microsecond")
    return duration_ns


def _interface(value: object) -> str:
    if not isinstance(value, str):
        fail(f"{show(value)} is not the name of an interface", 'for example "eth0"')
    if not value:
        fail("the name of the interface is empty")
    if len(value.encode(errors="surrogatepass")) > INTERFACE_BYTES_MAX:
        fail(f'"{show(value)}" is longer than {INTERFACE_BYTES_MAX} bytes, the limit of Linux')
    if value in {".", ".."} or not all("!" <= char <= "~" and char not in "/:%" for char in value):
        fail(
            f'"{show(value)}" is not the name of an interface', "no blank, slash, colon or percent"
        )
    return value


def _file(value: object) -> str:
    if not isinstance(value, str):
        fail(f"{show(value)} is not the path of a file")
    if value.startswith(CREDENTIAL_PREFIX):
        name = value.removeprefix(CREDENTIAL_PREFIX)
        if _CREDENTIAL.fullmatch(name) is None:
            fail(f'"{show(name)}" is not the name of a systemd credential')
        return value
    if not value.startswith("/"):
        fail(
            f'"{show(value)}" is not an absolute path',
            f'"/etc/carpool/..." or "{CREDENTIAL_PREFIX}NAME" for a systemd credential',
        )
    if not value.isprintable() or value.endswith("/"):
        fail(f'"{show(value)}" is not the path of a file')
    return value


def _built(value: object) -> str:
    if value != "off":
        fail("sealed groups are not in this version", 'remove it, or write "off"')
    return "off"


def _carp(value: object) -> str:
    if isinstance(value, str) and value in {"vrrp3", "vrrp2"}:
        fail(f"{show(value)} is not in this version", 'write "carp"')
    if value != "carp":
        fail(f'"{show(value)}" is not a protocol', 'write "carp"')
    return "carp"


Name: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=f"^{_NAME.pattern}$", max_length=NAME_LENGTH_MAX),
    BeforeValidator(check_name),
]
GroupKey: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=f"^{_GROUP.pattern}$", max_length=GROUP_LENGTH_MAX),
    BeforeValidator(check_group_name),
]
Address: TypeAlias = Annotated[
    IPAddress,
    BeforeValidator(_address),
    WithJsonSchema({"type": "string", "examples": ["192.0.2.11", "2001:db8::11"]}),
]
SharedAddress: TypeAlias = Annotated[
    IPInterface,
    BeforeValidator(_shared_address),
    WithJsonSchema({"type": "string", "pattern": "/", "examples": ["192.0.2.10/24"]}),
]
Duration: TypeAlias = Annotated[int, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
Interface: TypeAlias = Annotated[
    str,
    BeforeValidator(_interface),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": INTERFACE_BYTES_MAX}),
]
FilePath: TypeAlias = Annotated[
    str,
    BeforeValidator(_file),
    WithJsonSchema({"type": "string", "pattern": f"^(/|{CREDENTIAL_PREFIX})"}),
]
Off: TypeAlias = Annotated[Literal["off"], BeforeValidator(_built)]
Carp: TypeAlias = Annotated[Literal["carp"], BeforeValidator(_carp)]
