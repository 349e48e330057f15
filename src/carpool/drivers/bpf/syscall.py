"""The bpf(2) system call through ctypes: maps and programs as file descriptors, no library.

Follows bpf(2) and the kernel's include/uapi/linux/bpf.h (`union bpf_attr`). Descriptors returned
here are close-on-exec; the caller closes them.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import Final

from carpool.base.errors import DriverError

MAP_TYPE_HASH: Final = 1
MAP_TYPE_ARRAY: Final = 2
MAP_TYPE_PROG_ARRAY: Final = 3
MAP_TYPE_SOCKMAP: Final = 15
PROG_TYPE_SCHED_CLS: Final = 3

F_NO_PREALLOC: Final = 1 << 0  # a hash takes memory for what is in it, not for what might be
F_MMAPABLE: Final = 1 << 10

NAME_BYTES_MAX: Final = 15
LOG_BYTES: Final = 1 << 16
LOG_LINES_SHOWN: Final = 6  # the verifier says what is wrong in its last lines

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY, _PROG_LOAD = range(6)
_OBJ_GET_INFO: Final = 15

_NUMBERS: Final = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361}
_NUMBER_GENERIC: Final = 280  # aarch64, riscv64, loongarch64: include/uapi/asm-generic/unistd.h
_NUMBER: Final = _NUMBERS.get(platform.machine(), _NUMBER_GENERIC)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_CREATE: Final = struct.Struct("=IIIIIII16s")
_ELEMENT: Final = struct.Struct("=IxxxxQQQ")
_LOAD: Final = struct.Struct("=IIQQIIQII16s")
_INFO: Final = struct.Struct("=IIQ")
_U32: Final = struct.Struct("=I")


class BpfError(DriverError):
    """The kernel refused a bpf(2) call; `code` is the errno, for drivers only."""

    def __init__(self, attempted: str, code: int, detail: str = "") -> None:
        """Say what was attempted; a right that is missing is named."""
        reason = f"{os.strerror(code)}\n{detail}" if detail else os.strerror(code)
        missing = code in {errno.EPERM, errno.EACCES} and not detail
        super().__init__(
            attempted, reason, capability="CAP_BPF and CAP_NET_ADMIN" if missing else None
        )
        self.code = code


@dataclass(frozen=True, slots=True)
class MapShape:
    """What a map is made of."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries_max: int
    flags: int = 0


def call(command: int, attributes: bytes, attempted: str) -> int:
    """Do one bpf(2) call and return its result. Raises BpfError."""
    return call_in_place(command, ctypes.create_string_buffer(attributes), attempted)


def call_in_place(command: int, attributes: ctypes.Array[ctypes.c_char], attempted: str) -> int:
    """Do one bpf(2) call whose answer the kernel writes into `attributes`. Raises BpfError."""
    # create_string_buffer adds a zero byte that is not part of the structure.
    result = _LIBC.syscall(_NUMBER, command, attributes, len(attributes) - 1)
    if result < 0:
        raise BpfError(attempted, ctypes.get_errno())
    return int(result)


def create_map(shape: MapShape) -> int:
    """Return the descriptor of a new map. Raises BpfError."""
    attributes = _CREATE.pack(
        shape.kind,
        shape.key_bytes,
        shape.value_bytes,
        shape.entries_max,
        shape.flags,
        0,
        0,
        shape.name.encode()[:NAME_BYTES_MAX],
    )
    return call(_MAP_CREATE, attributes, f"make the BPF map {shape.name}")


def load_program(name: str, instructions: bytes, terms: str) -> int:
    """Return the descriptor of a tc program the verifier accepted.

    instructions: 8 bytes each, map descriptors already in place.
    terms: its licence, which decides what helpers the kernel lends it.
    Raises BpfError with the end of the verifier's log.
    """
    attempted = f"load the BPF program {name}"
    try:
        return _load(name, instructions, terms, None)
    except BpfError as refusal:
        # Without a log first: the log costs time, and without the right to load there is none.
        log = ctypes.create_string_buffer(LOG_BYTES)
        try:
            return _load(name, instructions, terms, log)
        except BpfError:
            lines = log.value.decode(errors="replace").strip().splitlines()[-LOG_LINES_SHOWN:]
            raise BpfError(attempted, refusal.code, "\n".join(lines)) from refusal


def _load(
    name: str, instructions: bytes, terms: str, log: ctypes.Array[ctypes.c_char] | None
) -> int:
    """Do the load once, with a verifier's log or without."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(terms.encode())
    attributes = _LOAD.pack(
        PROG_TYPE_SCHED_CLS,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        1 if log else 0,
        len(log) if log else 0,
        ctypes.addressof(log) if log else 0,
        0,
        0,
        name.encode()[:NAME_BYTES_MAX],
    )
    return call(_PROG_LOAD, attributes, f"load the BPF program {name}")


def program_id(program: int) -> int:
    """Return the kernel's number of a program, by which others know it. Raises BpfError."""
    # struct bpf_prog_info begins with u32 type, u32 id; the kernel fills as much as it is given.
    info = ctypes.create_string_buffer(8)
    attributes = _INFO.pack(program, 8, ctypes.addressof(info))
    call(_OBJ_GET_INFO, attributes, "ask for a BPF program's number")
    return int(_U32.unpack_from(info, 4)[0])


def update_element(bpf_map: int, key: bytes, value: bytes) -> None:
    """Set one element, new or not. Raises BpfError."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    attributes = _ELEMENT.pack(
        bpf_map, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), 0
    )
    call(_MAP_UPDATE, attributes, "write to a BPF map")


def delete_element(bpf_map: int, key: bytes) -> None:
    """Take one element out; one that is not there is left at that. Raises BpfError."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    attributes = _ELEMENT.pack(bpf_map, ctypes.addressof(key_buffer), 0, 0)
    try:
        call(_MAP_DELETE, attributes, "delete from a BPF map")
    except BpfError as exc:
        if exc.code != errno.ENOENT:
            raise
