"""The manual page carpool.toml(5), made from the model so that it cannot drift from it.

Follows DESIGN 3. The result is markdown (docs/carpool.toml.5.md); a test compares the two.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from carpool.base.time import format_duration
from carpool.config.model import ADDRESSES_MAX, GROUPS_MAX, HEARTBEATS_MAX, NODES_MAX, PEERS_MAX
from carpool.config.rules.intervals import PREEMPT_DELAY_NS_MAX
from carpool.config.schema import schema
from carpool.config.secrets import (
    KEY_BYTES_MIN,
    KEY_ID_MAX,
    KEYS_MAX,
    PASSWORD_BYTES_MAX,
    PASSWORD_BYTES_MAX_UCARP,
)
from carpool.config.timing import (
    ADVBASE_MAX,
    ADVSKEW_MAX,
    MARGIN_BPF_NS,
    MARGIN_NFT_NS,
    RANK_STEP,
)

_HEAD: Final = """\
# carpool.toml(5)

<!-- Made from src/carpool/config/model.py: REWRITE=1 pytest tests/unit/config/test_schema.py -->

## NAME

carpool.toml - configuration of carpoold(8)

## DESCRIPTION

One file in TOML, the same on every node, by default `/etc/carpool/carpool.toml`. A node finds
itself by its host name or by `--node`. `carpool check` reads the file, says everything that is
wrong with it and what its intervals become; a file with an error changes nothing. Unknown keys are
errors. A duration is a string with a unit: `us`, `ms`, `s`, `m`, `h` or `d`.

The smallest useful file:

```
{minimal}```
"""
_TABLES: Final = (
    ("Site", "[site]", "Once."),
    (
        "Node",
        "[node.NAME]",
        f"Once for every machine that runs carpoold, at most {NODES_MAX} times.",
    ),
    (
        "Hot",
        "[hot.NAME]",
        f"Once for every group of shared addresses, at most {GROUPS_MAX} times.",
    ),
    (
        "Peer",
        "Entries of peers",
        f'At most {PEERS_MAX}; `peers = [{{ kind = "openbsd", advbase = 1, advskew = 100 }}]`.',
    ),
    ("HotOverride", "[hot.GROUP.node.NAME]", "For a member of the group that is different."),
)
_MINIMAL: Final = """\
site.name = "minimal"
site.secret_file = "/etc/carpool/secret"
node.alpha.address = "192.0.2.11"
node.bravo.address = "192.0.2.12"
[hot.edge]
vhid = 1
interface = "eth0"
addresses = ["192.0.2.10/24"]
nodes = ["alpha", "bravo"]
password_file = "/etc/carpool/edge.pass"
"""
_TAIL: Final = f"""
## INTERVALS

CARP has two numbers. advbase counts seconds; advskew counts 1/256 s, and says at the same time who
is preferred. From an interval they become:

- whole seconds, `1s` to `{ADVBASE_MAX}s`: advbase is the seconds; the member of rank k has
  advskew {RANK_STEP} k;
- less than a second: advbase is 0 and the base skew the nearest number of 1/256 s; the member of
  rank k has the base skew + k, at most {ADVSKEW_MAX}.

Another interval is refused and the nearest ones are named. A backup takes over when it has heard
nothing for 3 advbase + advskew/256 s; at advbase 0 for 3 advskew/256 s.

The lease is how long the gate of a master stays open after an advertisement: the shortest such time
of any other member, foreign ones as declared in `peers`, less the margin. Without `margin` that is
{format_duration(MARGIN_BPF_NS)} with the BPF gate and {format_duration(MARGIN_NFT_NS)} with the
nft gate. `carpool check` shows both: LEASE, and that shortest time as OTHERS AFTER, which is always
longer. The margin must be smaller than the interval, and the lease longer.

## SECRETS

A password file holds CARP's password of the group: at most {PASSWORD_BYTES_MAX} bytes, or
{PASSWORD_BYTES_MAX_UCARP} if ucarp is a member. One newline at its end does not count.

The secret file holds the keys of the link between the nodes, a line each:

```
1 a-key-of-{KEY_BYTES_MIN}-bytes-or-more
```

`echo 1 $(head -c 24 /dev/urandom | base64)` makes one. The number is the key's id, 0 to
{KEY_ID_MAX}. The first key is used, every key is accepted, at most {KEYS_MAX} of them.

To change keys without an outage: add the new one as the last line on every node and reload, then
move it to the first line everywhere, then remove the old one.

Either file must belong to the user who runs carpoold (with the shipped unit: `chown carpool`), with
no rights for others (`chmod 0600`). A file of root's is accepted too, but only root can read it.
`credential:NAME` names a systemd credential instead (LoadCredential=).

## LIMITS

At most {NODES_MAX} nodes, {GROUPS_MAX} groups, {ADDRESSES_MAX} addresses in a group,
{HEARTBEATS_MAX} heartbeat paths of a node, {PEERS_MAX} foreign members of a group; `preempt_delay`
is at most {format_duration(PREEMPT_DELAY_NS_MAX)}; the file has at most 1 MiB.

## NOT IN THIS VERSION

The protocols vrrp2 and vrrp3, sealed groups, `track`, and the tables `balance`, `uplink` and `warm`
are refused with these words.

## FILES

`/etc/carpool/carpool.toml`, and examples in the source's `examples/`.

## SEE ALSO

carpool(8), carpoold(8)
"""


def manual() -> str:
    """Return the manual page as markdown."""
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    text = _HEAD.replace("{minimal}", _MINIMAL)
    for model, header, note in _TABLES:
        text += f"\n## {header.upper() if header[0] != '[' else header}\n\n{note}\n"
        text += "".join(_entries(definitions[model]))
    return text + _TAIL


def _entries(table: Mapping[str, object]) -> Iterator[str]:
    """Yield the definition of each key of a table."""
    properties, required = table["properties"], table.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    for key, value in properties.items():
        words = [_kind(value)]
        if key in required:
            words.append("required")
        elif "default" in value and value["default"] != []:
            words.append(f"default {_literal(value['default'])}")
        yield f"\n`{key}` ({', '.join(words)})\n: {value['description']}\n"


def _kind(value: Mapping[str, object]) -> str:
    """Return what a key takes, in words."""
    choices = value.get("enum")
    if isinstance(choices, list):
        return " or ".join(_literal(choice) for choice in choices)
    match value:
        case {"const": only}:
            return _literal(only)
        case {"type": "string", "pattern": str(pattern)} if pattern.endswith("(us|ms|s|m|h|d)$"):
            return "duration"
        case {"type": "array", "items": {"$ref": _}}:
            return "list of tables"
        case {"type": "array"}:
            return "list of strings"
        case {"type": "integer", "minimum": low, "maximum": high}:
            return f"{low} to {high}"
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "object"}:
            return "tables"
        case _:
            return "string"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"
