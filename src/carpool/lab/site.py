"""The site that a lab plays: its configuration text, its files, and who its nodes are.

The operator's own file is played with other secrets: passwords and keys are made for the lab and
live in its directory, mode 0600; the real ones are never read. Every node gets the same text, so
that all are of one revision.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from carpool.config.model import Config
from carpool.config.parse import parse
from carpool.config.render import render

PASSWORD_BYTES: Final = 6  # 12 letters: below CARP's 20 and ucarp's 19
KEY_BYTES: Final = 24
FILE_NAME: Final = "carpool.toml"


@dataclass(frozen=True, slots=True)
class Shape:
    """A site for tests, demo and bench, in the few words they differ by."""

    nodes: tuple[str, ...] = ("alpha", "bravo", "charlie")
    interval: str = "100ms"
    gate: str = "auto"
    preempt: bool = True
    addresses: tuple[str, ...] = ("192.0.2.10/24", "2001:db8::10/64")
    heartbeat: bool = True
    more: str = ""  # further keys of the group, as TOML lines
    tables: str = ""  # further tables, as TOML
    password: str = ""


def text_of(shape: Shape) -> str:
    """Return the configuration file of `shape`: one group "edge" on eth0."""
    lines = ["[site]", 'name = "lab"', 'secret_file = "/etc/carpool/secret"', ""]
    for number, node in enumerate(shape.nodes, start=1):
        lines += [f"[node.{node}]", f'address = "192.0.2.{10 + number}"']
        if shape.heartbeat:
            lines.append(f'heartbeat = ["10.9.9.{number}"]')
        lines.append("")
    lines += [
        "[hot.edge]",
        "vhid = 1",
        'interface = "eth0"',
        f"addresses = [{_strings(shape.addresses)}]",
        f"nodes = [{_strings(shape.nodes)}]",
        'password_file = "/etc/carpool/edge.pass"',
        f'interval = "{shape.interval}"',
        f'gate = "{shape.gate}"',
        f"preempt = {'true' if shape.preempt else 'false'}",
    ]
    return "\n".join([*lines, shape.more, shape.tables]) + "\n"


def _strings(values: tuple[str, ...]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def load(text: str, file: str) -> Config:
    """Return the configuration in `text`. Raises ConfigErrors as `carpool check` reports them."""
    return parse(text, file)


def with_lab_secrets(config: Config, directory: Path) -> Config:
    """Return `config` with every secret's path moved into `directory`."""
    site = config.site.model_copy(update={"secret_file": str(directory / "site.secret")})
    hot = {
        name: group.model_copy(update={"password_file": str(directory / f"{name}.pass")})
        for name, group in config.hot.items()
    }
    return config.model_copy(update={"site": site, "hot": hot})


def write_secrets(config: Config, *, password: str = "") -> None:
    """Make the files that `with_lab_secrets` named.

    password: for every group; one is made up if it is empty.
    """
    _write(Path(str(config.site.secret_file)), f"1 {secrets.token_hex(KEY_BYTES)}\n")
    for group in config.hot.values():
        made = password or secrets.token_hex(PASSWORD_BYTES)
        _write(Path(group.password_file), f"{made}\n")


def write_config(config: Config, directory: Path) -> Path:
    """Write a node's configuration file into its directory and return its path."""
    path = directory / FILE_NAME
    _write(path, render(config))
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
