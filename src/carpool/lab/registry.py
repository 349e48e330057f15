"""What a lab made, written down before it is made, so that any other process can remove all of it.

One JSON file a lab, replaced atomically. `carpool lab down` and the next lab read it after the
maker is gone, even when the maker was killed.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from carpool.lab.processes import Known
from carpool.lab.waiting import LabError

FILE_NAME: Final = "registry.json"
FORMAT: Final = 1


@dataclass(slots=True)
class Registry:
    """The lab's belongings. `namespaces` maps a host of the lab to its namespace's name."""

    owner: int  # process id of the maker
    owner_started: int
    detached: bool = False  # the lab outlives its maker on purpose
    namespaces: dict[str, str] = field(default_factory=dict)
    processes: list[Known] = field(default_factory=list)
    cuts: list[list[str]] = field(default_factory=list)  # [from port, to port]
    losses: dict[str, float] = field(default_factory=dict)  # port -> share of frames dropped
    facts: dict[str, str] = field(default_factory=dict)  # anything else a later process must know

    def save(self, directory: Path) -> None:
        """Write the file, whole or not at all."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1)
        new = directory / f"{FILE_NAME}.{os.getpid()}"
        new.write_text(text)
        new.replace(directory / FILE_NAME)


def load(directory: Path) -> Registry:
    """Return the registry of the lab in `directory`.

    Raises LabError when there is no lab or its file is not ours.
    """
    try:
        data = json.loads((directory / FILE_NAME).read_text())
        if data.pop("format") != FORMAT:
            raise LabError(f"{directory}: made by another version of carpool")
        data["processes"] = [Known(**process) for process in data["processes"]]
        return Registry(**data)
    except FileNotFoundError:
        raise LabError(f"no lab in {directory}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{directory / FILE_NAME}: not a lab's registry: {error}") from error
