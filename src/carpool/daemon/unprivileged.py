"""Giving up every privilege: what a process does before it listens to strangers.

Uid and gid become those of the system user `carpool`, else `nobody`, when we are root; all
capabilities are cleared in any case, and no later exec can bring one back (capabilities(7),
PR_SET_NO_NEW_PRIVS in prctl(2)). Files opened before, the listening socket among them, stay open.
"""

import ctypes
import grp
import os
import pwd
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

ACCOUNTS: Final = ("carpool", "nobody")  # the first one that exists

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522


def drop_privileges() -> tuple[str, ...]:
    """Become nobody in particular, and return what could not be given up and why.

    In a user namespace there may be no other user to become; the capabilities go all the same.
    """
    failed: list[str] = []
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        failed += _become(_account())
    _attempt(failed, "clear the ambient capabilities", lambda: _clear_ambient(libc))
    _attempt(failed, "clear the capabilities", lambda: _clear_capabilities(libc))
    _attempt(failed, "refuse new privileges", lambda: _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1))
    return tuple(failed)


def close_other_files(keep: Collection[int]) -> None:
    """Close every file but stdin, stdout, stderr and `keep`.

    A fork inherits all files of its parent; a socket that lives on here would never look closed to
    its other end.
    """
    low = 3
    for kept in sorted(number for number in keep if number >= low):
        os.closerange(low, kept)
        low = kept + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def group_id(name: str) -> int | None:
    """Return the number of a system group, None when there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _account() -> pwd.struct_passwd | None:
    """Return the user to become."""
    for name in ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _become(account: pwd.struct_passwd | None) -> list[str]:
    """Take the account's uid and gid, without further groups; return what failed."""
    if account is None:
        return [f"no user to become: none of {', '.join(ACCOUNTS)} exists"]
    if not is_mapped(account.pw_uid, Path("/proc/self/uid_map").read_text()):
        return []  # a user namespace with no other user: there is nobody to become
    failed: list[str] = []
    _attempt(failed, "leave all groups", lambda: os.setgroups([]))
    gid, uid = account.pw_gid, account.pw_uid
    _attempt(failed, f"take the gid {gid}", lambda: os.setresgid(gid, gid, gid))
    _attempt(failed, f"take the uid {uid}", lambda: os.setresuid(uid, uid, uid))
    return failed


def is_mapped(uid: int, uid_map: str) -> bool:
    """Return whether a user exists in this user namespace.

    uid_map: lines "first-inside first-outside count", as /proc/self/uid_map has them.
    """
    ranges = [line.split() for line in uid_map.splitlines()]
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in ranges)


def _attempt(failed: list[str], what: str, action: Callable[[], None]) -> None:
    """Do `action`; append to `failed` what could not be done."""
    try:
        action()
    except OSError as refused:
        failed.append(f"{what}: {refused.strerror}")


def _prctl(libc: ctypes.CDLL, option: int, argument: int) -> None:
    """Call prctl(2)."""
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _clear_ambient(libc: ctypes.CDLL) -> None:
    """Empty the ambient set."""
    _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def _clear_capabilities(libc: ctypes.CDLL) -> None:
    """Empty the effective, permitted and inheritable sets by capset(2)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    empty = (ctypes.c_uint32 * 6)()
    if libc.capset(header, empty) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
