"""Load the compiled gate: read `gate.bin`, make its maps, hand its programs to the kernel.

`gate.bin` is made from `gate.bpf.c` by packaging/hatch_build.py:

    8 bytes  magic "carpbpf1"
    4 bytes  length of the JSON, little endian
    n bytes  JSON: {"license": text, "programs": {name: {"offset": byte, "count": instructions,
             "maps": [[instruction, map name], ...]}}}; offsets count from the end of the JSON
    rest     instructions, 8 bytes each, little endian

Why not libbpf or a light skeleton: the programs refer to nothing but maps, so loading is "put the
map's descriptor into the instruction and call bpf(2)". That needs no library on the user's machine,
no compiler, no BTF, no kernel newer than 5.10, and the maps get the size the caller wants.
"""

import contextlib
import json
import os
import struct
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from carpool.base.errors import DriverError
from carpool.drivers.bpf.syscall import MapShape, create_map, load_program

MAGIC: Final = b"carpbpf1"
INSTRUCTION_BYTES: Final = 8
PSEUDO_MAP: Final = 1  # BPF_PSEUDO_MAP_FD: the 64-bit immediate is a map's descriptor

_LOAD_64: Final = 0x18
_WIDE: Final = struct.Struct("<BBhiBBhi")


@dataclass(frozen=True, slots=True)
class Program:
    """One compiled program: instructions, and which of them load a map's address."""

    name: str
    instructions: bytes
    maps: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class CompiledObject:
    """What the build made of one C file."""

    terms: str  # its licence, as the kernel wants it
    programs: tuple[Program, ...]

    def only(self, names: Collection[str]) -> "CompiledObject":
        """Return the object with these programs alone. Raises DriverError if one is missing."""
        programs = tuple(program for program in self.programs if program.name in names)
        if len(programs) != len(names):
            raise DriverError("read a compiled BPF object", f"it does not hold {sorted(names)}")
        return CompiledObject(self.terms, programs)


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """Descriptors of maps and programs by name; the caller closes them."""

    maps: Mapping[str, int]
    programs: Mapping[str, int]

    def close(self) -> None:
        """Close every descriptor; the kernel keeps what is attached."""
        for descriptor in (*self.maps.values(), *self.programs.values()):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def read_object(name: str) -> CompiledObject:
    """Return the compiled object `name` ("gate") that is shipped with the package.

    Raises DriverError when it was never built or is not ours.
    """
    attempted = f"read the compiled BPF object {name}"
    if sys.byteorder != "little":
        raise DriverError(attempted, "it is compiled for little-endian machines only")
    try:
        data = Path(__file__).with_name(f"{name}.bin").read_bytes()
    except OSError as exc:
        reason = "it was not built (run python packaging/hatch_build.py in the source tree)"
        raise DriverError(attempted, reason) from exc
    return parse_object(data)


def parse_object(data: bytes) -> CompiledObject:
    """Return the object in `data`. Raises DriverError when it is damaged."""
    if data[: len(MAGIC)] != MAGIC or len(data) < len(MAGIC) + 4:
        raise DriverError("read a compiled BPF object", "this is not one")
    start = len(MAGIC) + 4
    end = start + struct.unpack_from("<I", data, len(MAGIC))[0]
    try:
        head = json.loads(data[start:end])
        programs = tuple(
            Program(
                name,
                _slice(data, end + entry["offset"], entry["count"] * INSTRUCTION_BYTES),
                tuple((int(index), str(target)) for index, target in entry["maps"]),
            )
            for name, entry in head["programs"].items()
        )
        return CompiledObject(str(head["license"]), programs)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DriverError("read a compiled BPF object", f"it is damaged: {exc}") from exc


def link_program(program: Program, maps: Mapping[str, int]) -> bytes:
    """Return the instructions with the maps' descriptors in place.

    Raises DriverError for a map that does not exist or an instruction that loads none.
    """
    code = bytearray(program.instructions)
    for index, name in program.maps:
        if name not in maps:
            raise DriverError(f"link the BPF program {program.name}", f"there is no map {name}")
        offset = index * INSTRUCTION_BYTES
        if offset + 2 * INSTRUCTION_BYTES > len(code) or code[offset] != _LOAD_64:
            reason = f"instruction {index} loads no map"
            raise DriverError(f"link the BPF program {program.name}", reason)
        operation, registers, *_ = _WIDE.unpack_from(code, offset)
        destination = registers & 0x0F
        _WIDE.pack_into(
            code, offset, operation, PSEUDO_MAP << 4 | destination, 0, maps[name], 0, 0, 0, 0
        )
    return bytes(code)


def load_object(compiled: CompiledObject, shapes: Sequence[MapShape]) -> LoadedObject:
    """Make the maps, load the programs. On failure nothing is left. Raises DriverError."""
    maps: dict[str, int] = {}
    programs: dict[str, int] = {}
    loaded = LoadedObject(maps, programs)
    try:
        for shape in shapes:
            maps[shape.name] = create_map(shape)
        for program in compiled.programs:
            instructions = link_program(program, maps)
            programs[program.name] = load_program(program.name, instructions, compiled.terms)
    except DriverError:
        loaded.close()
        raise
    return loaded


def _slice(data: bytes, start: int, length: int) -> bytes:
    """Return `length` bytes at `start`; ValueError when they are not there."""
    part = data[start : start + length]
    if len(part) != length or not length:
        raise ValueError(f"{length} bytes of instructions at {start} are missing")
    return part
