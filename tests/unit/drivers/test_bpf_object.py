"""The compiled gate from build to link: packaging/hatch_build.py and carpool.drivers.bpf.object."""

import importlib.util
import json
import struct
import subprocess
from pathlib import Path

import pytest

from carpool.base.errors import DriverError
from carpool.drivers.bpf.object import Program, link_program, parse_object, read_object
from carpool.drivers.bpf_gate import _HOLDER, _SHAPES

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src/carpool/drivers/bpf/gate.bpf.c"
GLOBAL_DATA = """
char terms[] __attribute__((section("license"))) = "GPL";
int x;
__attribute__((section("tc/f"))) int f(void *skb) { return x++; }
"""


@pytest.fixture(scope="module")
def build():
    """Return the build script as a module."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "packaging/hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def container(head, code=b""):
    """Return a file as the build writes it."""
    text = json.dumps(head).encode() if isinstance(head, dict) else head
    return b"carpbpf1" + struct.pack("<I", len(text)) + text + code


def test_the_shipped_object_is_built_from_this_source(build, tmp_path):
    """Compiling the source again gives the bytes that are loaded, and a second build is a no-op."""
    compiled = tmp_path / "gate.o"
    build.compile_object(SOURCE, compiled)
    fresh = build.distil(compiled.read_bytes())
    assert parse_object(fresh) == read_object("gate")
    stamp = SOURCE.with_name("gate.bin").stat().st_mtime_ns
    assert SOURCE.with_name("gate.bin") in build.build(ROOT)
    assert SOURCE.with_name("gate.bin").stat().st_mtime_ns == stamp


def test_every_map_of_the_programs_is_made():
    """The loader makes exactly the maps the programs refer to."""
    compiled = read_object("gate")
    wanted = {name for program in compiled.programs for _index, name in program.maps}
    assert wanted == {shape.name for shape in (*_SHAPES, _HOLDER)}
    assert compiled.terms == "Dual BSD/GPL"
    assert {program.name for program in compiled.programs} == {
        "gate_ingress",
        "gate_egress",
        "permit",
        "permit_held",
    }


def test_the_script_runs_without_hatchling():
    """A plain interpreter without any package builds the source tree."""
    command = ["python3", "-I", "-S", str(ROOT / "packaging/hatch_build.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "gate.bin" in done.stdout


def test_linking_puts_descriptors_in_place():
    """A load of a map becomes a load of its descriptor; the rest of the program stays."""
    code = bytes([0x18, 0x03]) + bytes(14) + bytes([0x95]) + bytes(7)
    linked = link_program(Program("p", code, ((0, "leases"),)), {"leases": 77})
    assert linked[:8] == bytes([0x18, 0x13, 0, 0, 77, 0, 0, 0])
    assert linked[8:] == code[8:]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (Program("p", bytes([0x18]) + bytes(15), ((0, "nothing"),)), "there is no map nothing"),
        (Program("p", bytes(16), ((0, "leases"),)), "instruction 0 loads no map"),
        (Program("p", bytes([0x18]) + bytes(7), ((0, "leases"),)), "instruction 0 loads no map"),
        (Program("p", bytes(16), ((9, "leases"),)), "instruction 9 loads no map"),
    ],
)
def test_linking_refuses(program, words):
    """A relocation that fits no instruction or no map is an error."""
    with pytest.raises(DriverError, match=words):
        link_program(program, {"leases": 3})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"carpbpf1",
        b"\x7fELF" + bytes(60),
        container(b"{"),
        container(b"[]"),
        container({"license": "GPL"}),
        container({"license": "GPL", "programs": {"p": {}}}),
        container({"license": "GPL", "programs": {"p": {"offset": 0, "count": 2, "maps": []}}}),
        container({"license": "GPL", "programs": {"p": {"offset": 0, "count": 0, "maps": []}}}),
        container({"license": "GPL", "programs": {"p": {"offset": 0, "count": 1, "maps": [[1]]}}}),
    ],
)
def test_damaged_objects_are_refused(data):
    """A file that is cut or not ours is a DriverError, never a crash."""
    with pytest.raises(DriverError, match="BPF object"):
        parse_object(data)


def test_a_missing_object_says_how_to_build_it():
    """Without the built file the error names the command that makes it."""
    with pytest.raises(DriverError, match=r"hatch_build\.py"):
        read_object("nothing")
    with pytest.raises(DriverError, match="does not hold"):
        read_object("gate").only(["nothing"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int f(", "clang refused"),
        ("int x;", "holds no program"),
        (GLOBAL_DATA, "refers to x, not a map"),
    ],
)
def test_the_build_refuses_what_the_loader_cannot_load(build, tmp_path, text, words):
    """Broken C, an object without programs and global data are build errors with the reason."""
    source, compiled = tmp_path / "bad.bpf.c", tmp_path / "bad.o"
    source.write_text(text)

    def attempt():
        build.compile_object(source, compiled)
        build.distil(compiled.read_bytes())

    with pytest.raises(build.BuildError, match=words):
        attempt()
