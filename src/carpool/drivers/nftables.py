"""libnftables in this process, through ctypes: text in, text out, one transaction a call.

Follows libnftables(3), soname 1 (nftables 1.0.6 and newer). A context belongs to the network
namespace in which it was made, and so does its netlink socket.
"""

import ctypes
import os
import socket
from pathlib import Path
from typing import Final

from carpool.base.errors import DriverError

LIBRARY: Final = "libnftables.so.1"
NETLINK_NETFILTER: Final = 12

STATELESS: Final = 1 << 1  # no counters, no remaining times
TERSE: Final = 1 << 11  # no set elements


class NftablesError(DriverError):
    """nftables refused a transaction; nothing of it was done."""

    @property
    def is_absent(self) -> bool:
        """Whether it was refused because something named in it does not exist."""
        return "No such file or directory" in self.reason


class Nftables:
    """One libnftables context."""

    def __init__(self) -> None:
        """Load the library and open its netlink socket. Raises DriverError."""
        try:
            self._library = _load_library()
        except OSError as exc:
            raise DriverError("load libnftables", str(exc)) from exc
        before = _netfilter_sockets()
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise DriverError("open libnftables", "no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        opened = sorted(_netfilter_sockets() - before)
        if not opened:
            self.close()
            raise DriverError("open libnftables", "no netlink socket")
        self._descriptor = opened[0]
        # libmnl leaves it open across exec; a program we start must not keep our tables alive.
        os.set_inheritable(self._descriptor, False)

    def fileno(self) -> int:
        """Return the library's netlink socket."""
        return self._descriptor

    def run(self, commands: str, *, attempted: str, flags: int = 0) -> str:
        """Run `commands` as one transaction and return what they print.

        flags: STATELESS and so on, for listings. Raises NftablesError.
        """
        if self._context is None:
            raise NftablesError(attempted, "the nftables context is closed")
        self._library.nft_ctx_output_set_flags(self._context, flags)
        result = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        printed = self._library.nft_ctx_get_output_buffer(self._context) or b""
        refused = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if result != 0:
            reason = _shorten(refused.decode(errors="replace"))
            capability = "CAP_NET_ADMIN" if "not permitted" in reason else None
            raise NftablesError(attempted, reason, capability=capability)
        return str(printed.decode(errors="replace"))

    def close(self) -> None:
        """Free the context; tables it owns go with its socket."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _load_library() -> ctypes.CDLL:
    """Return the library with its signatures. Raises OSError when it is not installed."""
    library = ctypes.CDLL(LIBRARY)
    context = ctypes.c_void_p
    signatures: dict[str, tuple[object, list[object]]] = {
        "nft_ctx_new": (context, [ctypes.c_uint32]),
        "nft_ctx_free": (None, [context]),
        "nft_ctx_buffer_output": (ctypes.c_int, [context]),
        "nft_ctx_buffer_error": (ctypes.c_int, [context]),
        "nft_ctx_get_output_buffer": (ctypes.c_char_p, [context]),
        "nft_ctx_get_error_buffer": (ctypes.c_char_p, [context]),
        "nft_ctx_output_set_flags": (None, [context, ctypes.c_uint]),
        "nft_run_cmd_from_buffer": (ctypes.c_int, [context, ctypes.c_char_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _netfilter_sockets() -> set[int]:
    """Return this process's descriptors that are netfilter netlink sockets."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        try:
            if not entry.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.family == socket.AF_NETLINK and copy.proto == NETLINK_NETFILTER:
                    found.add(descriptor)
        except OSError:  # the descriptor that reads the directory is gone by now
            continue
    return found


def _shorten(text: str) -> str:
    """Return the first message of nft without its drawing of the line."""
    lines = [line.strip() for line in text.splitlines() if "Error:" in line]
    return lines[0].partition("Error: ")[2] if lines else text.strip() or "no reason given"
