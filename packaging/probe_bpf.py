"""Exit 0 if this process may load a BPF program of the gate's kind, 1 if the kernel refuses.

The program is two instructions (`r0 = 0; exit`). It goes to bpf(2) directly and not through our own
loader, so that a broken loader cannot make ./test leave out the tests that would show it.
Source: linux/bpf.h (`BPF_PROG_LOAD`, `BPF_PROG_TYPE_SCHED_CLS`), bpf(2).
"""

import ctypes
import os
import platform
import struct
import sys
from typing import Final

BPF_PROG_LOAD: Final = 5
BPF_PROG_TYPE_SCHED_CLS: Final = 3
SYSCALL_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
INSTRUCTIONS: Final = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)


def may_load() -> bool:
    """Return whether bpf(BPF_PROG_LOAD) gives a file descriptor."""
    number = SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        return False
    instructions = ctypes.create_string_buffer(INSTRUCTIONS, len(INSTRUCTIONS))
    license_text = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQ",
        BPF_PROG_TYPE_SCHED_CLS,
        len(INSTRUCTIONS) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
    )
    buffer = ctypes.create_string_buffer(attributes, 128)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(number, BPF_PROG_LOAD, ctypes.byref(buffer), len(buffer))
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


if __name__ == "__main__":
    sys.exit(0 if may_load() else 1)
