"""Compile the BPF programs: hatchling's build hook, and a script for the source tree.

`python packaging/hatch_build.py` writes `src/carpool/drivers/bpf/gate.bin` next to its source; the
wheel's build does the same, so users of a wheel need no compiler. Needs clang, the kernel's UAPI
headers and bpf_helpers.h (Debian: clang libbpf-dev linux-libc-dev).

What is written is not the ELF object but its essence, so that the loader needs no ELF reader and
no libbpf (docstring of carpool.drivers.bpf.object):

    8 bytes  magic "carpbpf1"
    4 bytes  length of the JSON, little endian
    n bytes  JSON: {"license": text, "programs": {name: {"offset": byte, "count": instructions,
             "maps": [[instruction, map name], ...]}}}; offsets count from the end of the JSON
    rest     instructions, 8 bytes each, little endian
"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script where hatchling is not installed
    BuildHookInterface = object  # type: ignore[assignment,misc]  # never used as a hook then

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = Path("src/carpool/drivers/bpf")
MAGIC: Final = b"carpbpf1"
INSTRUCTION_BYTES: Final = 8
LICENSE_SECTION: Final = "license"

_CLANG_SECONDS_MAX: Final = 120
_SECTION_PROGRAM, _SECTION_SYMBOLS, _SECTION_RELOCATIONS = 1, 2, 9
_EXECUTABLE: Final = 4
_SYMBOL_FUNCTION: Final = 2
_RELOCATION_MAP: Final = 1  # R_BPF_64_64: a 16-byte load of a map's address


class BuildError(RuntimeError):
    """The programs could not be compiled, and what to do about it."""


@dataclass(frozen=True)
class Section:
    """One ELF section."""

    name: str
    kind: int
    flags: int
    info: int
    data: bytes


@dataclass(frozen=True)
class Symbol:
    """One ELF symbol."""

    name: str
    kind: int
    section: int


def compile_object(source: Path, output: Path) -> None:
    """Compile `source` to an ELF object. Raises BuildError."""
    clang = shutil.which("clang")
    if clang is None:
        raise BuildError("clang is missing (Debian: apt-get install clang libbpf-dev)")
    # Debian keeps asm/ below the machine's triple, where clang does not look for the bpf target.
    triples = sorted(path.parent.parent for path in Path("/usr/include").glob("*/asm/types.h"))
    command = [clang, "-O2", "-target", "bpfel", "-mcpu=v3", "-Wall", "-Werror"]
    command += [f"-I{triple}" for triple in triples]
    command += ["-c", str(source), "-o", str(output)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_CLANG_SECONDS_MAX
    )
    if done.returncode != 0:
        raise BuildError(f"clang refused {source.name}:\n{done.stderr.strip()}")


def read_sections(elf: bytes) -> list[Section]:
    """Return the sections of a little-endian ELF64 object, in order."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise BuildError("clang did not write a little-endian ELF64 object")
    table = struct.unpack_from("<Q", elf, 40)[0]
    size, count, names_index = struct.unpack_from("<HHH", elf, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", elf, table + size * i) for i in range(count)]
    names = _contents(elf, heads[names_index])
    return [
        Section(_text(names, head[0]), head[1], head[2], head[7], _contents(elf, head))
        for head in heads
    ]


def read_symbols(elf: bytes, sections: list[Section]) -> list[Symbol]:
    """Return the symbols, in order."""
    table = next(section for section in sections if section.kind == _SECTION_SYMBOLS)
    link = struct.unpack_from("<Q", elf, 40)[0]
    size = struct.unpack_from("<H", elf, 58)[0]
    names_index = struct.unpack_from("<I", elf, link + size * sections.index(table) + 40)[0]
    names = sections[names_index].data
    return [
        Symbol(_text(names, name), info & 15, section)
        for name, info, _other, section, _value, _size in struct.iter_unpack("<IBBHQQ", table.data)
    ]


def distil(elf: bytes) -> bytes:
    """Return the file the loader reads (module docstring) from an ELF object. Raises BuildError."""
    sections = read_sections(elf)
    symbols = read_symbols(elf, sections)
    programs: dict[str, dict[str, object]] = {}
    code = b""
    for index, section in enumerate(sections):
        executable = section.kind == _SECTION_PROGRAM and section.flags & _EXECUTABLE
        if not executable or not section.data:
            continue
        functions = [
            symbol.name
            for symbol in symbols
            if symbol.section == index and symbol.kind == _SYMBOL_FUNCTION
        ]
        if len(functions) != 1:
            raise BuildError(f"section {section.name} holds {functions}, wanted one program")
        programs[functions[0]] = {
            "offset": len(code),
            "count": len(section.data) // INSTRUCTION_BYTES,
            "maps": _map_loads(index, sections, symbols),
        }
        code += section.data
    terms = b"".join(section.data for section in sections if section.name == LICENSE_SECTION)
    if not terms or not programs:
        raise BuildError("the object holds no program, or no licence for the kernel")
    head = {"license": terms.rstrip(b"\0").decode(), "programs": programs}
    text = json.dumps(head, sort_keys=True).encode()
    return MAGIC + struct.pack("<I", len(text)) + text + code


def build(root: Path) -> list[Path]:
    """Compile every `*.bpf.c` below `root`'s driver and return what was written."""
    written = []
    for source in sorted((root / SOURCES).glob("*.bpf.c")):
        output = source.with_name(source.name.removesuffix(".bpf.c") + ".bin")
        with tempfile.TemporaryDirectory() as scratch:
            compiled = Path(scratch) / "program.o"
            compile_object(source, compiled)
            fresh = distil(compiled.read_bytes())
        if not output.exists() or output.read_bytes() != fresh:
            partial = output.with_suffix(".partial")
            partial.write_bytes(fresh)
            partial.replace(output)
        written.append(output)
    return written


class BpfBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # `object` has no argument
    """Compile before files are collected; `artifacts` in pyproject.toml picks the results up."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the programs into the source tree. Called by hatchling for wheel and editable."""
        del version, build_data
        build(Path(self.root))


def _contents(elf: bytes, head: tuple[int, ...]) -> bytes:
    """Return the bytes of the section with the header `head`."""
    return elf[head[4] : head[4] + head[5]]


def _text(names: bytes, offset: int) -> str:
    """Return the name at `offset` of a string table."""
    return names[offset : names.index(b"\0", offset)].decode()


def _map_loads(
    program: int, sections: list[Section], symbols: list[Symbol]
) -> list[tuple[int, str]]:
    """Return (instruction, map name) of each relocation of a program. Raises BuildError."""
    loads = []
    for section in sections:
        if section.kind != _SECTION_RELOCATIONS or section.info != program:
            continue
        for offset, info in struct.iter_unpack("<QQ", section.data):
            symbol = symbols[info >> 32]
            if info & 0xFFFFFFFF != _RELOCATION_MAP or sections[symbol.section].name != ".maps":
                raise BuildError(f"{sections[program].name}: refers to {symbol.name}, not a map")
            loads.append((offset // INSTRUCTION_BYTES, symbol.name))
    return loads


def main() -> int:
    """Build for the source tree this script is in."""
    try:
        for path in build(ROOT):
            sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes\n")
    except BuildError as exc:
        sys.stderr.write(f"hatch_build: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
