"""What is wrong with the switch, as data, and the nft rules that make it so.

The whole of it is one table of the bridge family that is replaced in one transaction: frames from
port A to port B are dropped when the pair is cut, and a share of what enters a lossy port is.
Carrier stays, so nothing but the missing frames tells a node about it.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations

from carpool.lab.waiting import LabError

LOSS_STEPS = 10_000  # losses are expressed in hundredths of a per cent


def parse_groups(words: Sequence[str], nodes: Sequence[str]) -> list[list[str]]:
    """Return the sides of a partition written as `alpha,bravo / charlie`.

    A node that is not named stays with everybody. Raises LabError for an unknown node or one
    that stands on two sides.
    """
    sides = [
        [name.strip() for name in side.replace(" ", ",").split(",") if name.strip()]
        for side in " ".join(words).split("/")
    ]
    named = [name for side in sides for name in side]
    for name in named:
        if name not in nodes:
            raise LabError(f"no node {name!r} (there are {', '.join(nodes)})")
        if named.count(name) > 1:
            raise LabError(f"{name} cannot be on two sides")
    if len(sides) < 2 or not all(sides):
        raise LabError("write the sides of a partition with a slash: alpha,bravo / charlie")
    return sides


def partition_pairs(sides: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Return every (from, to) of different sides."""
    return [
        (first, second)
        for one, other in permutations(list(sides), 2)
        for first in one
        for second in other
    ]


def rules(cuts: Iterable[Sequence[str]], losses: Mapping[str, float]) -> str:
    """Return the nft text for these faults of switch ports; it replaces whatever stood before.

    cuts: pairs (from port, to port). losses: port -> share 0..1 of the frames entering there.
    """
    pairs = ", ".join(f'"{source}" . "{target}"' for source, target in sorted(map(tuple, cuts)))
    elements = f"elements = {{ {pairs} }}" if pairs else ""
    drops = "\n".join(
        f'    iifname "{port}" numgen random mod {LOSS_STEPS} < {round(share * LOSS_STEPS)} drop'
        for port, share in sorted(losses.items())
        if share > 0
    )
    return f"""\
table bridge lab
delete table bridge lab
table bridge lab {{
  set cut {{
    type ifname . ifname
    {elements}
  }}
  chain pairs {{
    type filter hook forward priority 0
    iifname . oifname @cut drop
  }}
  chain losses {{
    type filter hook prerouting priority 0
{drops}
  }}
}}
"""
