"""What a password file and the site's secret file must be like. Pure: the bytes are given.

A password file holds CARP's password, at most 20 bytes (CARP_KEY_LEN; ucarp keeps one for a zero);
one newline at its end does not count. The secret file holds the peer link's keys, a line each:
`id key`, the first one in use, further ones accepted (rotation); empty lines and lines that begin
with # do not count. Either is refused if anyone but its owner can read it, or if its owner is
neither root nor the user who runs this. What systemd hands over as a credential it has guarded.
Source for the lengths: OpenBSD sys/netinet/ip_carp.h; UCarp src/carp.c. No message quotes a secret.
"""

import hmac
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

PASSWORD_BYTES_MAX: Final = 20  # CARP_KEY_LEN
PASSWORD_BYTES_MAX_UCARP: Final = 19  # ucarp keeps a byte for C's closing zero
KEY_BYTES_MIN: Final = 16  # 128 bits if they are random
KEY_BYTES_MAX: Final = 256
KEY_ID_MAX: Final = 65535  # two bytes on the peer link
KEYS_MAX: Final = 16  # a rotation needs two or three
SECRET_FILE_BYTES_MAX: Final = 16384  # more than KEYS_MAX lines can fill
ROOT: Final = 0


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file as it was found; `is_credential` if systemd handed it over."""

    content: bytes
    mode: int
    owner: int
    is_credential: bool = False


@dataclass(frozen=True, slots=True)
class SecretProblem:
    """What is wrong with a secret, in a sentence that does not quote it."""

    reason: str
    hint: str = ""


def check_guard(file: SecretFile, user: int, user_name: str = "") -> Iterator[SecretProblem]:
    """Yield what is wrong with the rights on a file.

    user: the number of the user who runs carpoold. user_name: what to call that user in a hint,
    the number if empty.
    """
    if file.is_credential:
        return
    mode = stat.S_IMODE(file.mode)
    if mode & 0o077:
        yield SecretProblem(f"others may use it (mode {mode:04o})", "chmod 0600")
    if file.owner not in {ROOT, user}:
        hint = f"chown {user_name or user}, or LoadCredential="
        yield SecretProblem(f"it belongs to user {file.owner}", hint)


def unreadable_to_service(
    file: SecretFile, service_user: int, service_name: str
) -> SecretProblem | None:
    """Return what keeps the service's user, who is not root, from reading a file of root's."""
    if file.is_credential or file.owner != ROOT or service_user == ROOT:
        return None
    return SecretProblem(
        f"it belongs to root: the user {service_name} of the service cannot read it",
        f"chown {service_name}, or LoadCredential=",
    )


def password_of(content: bytes) -> bytes:
    """Return the password in a file: everything but one newline at the end."""
    return content.removesuffix(b"\n").removesuffix(b"\r")


def check_password(
    file: SecretFile,
    *,
    user: int,
    has_ucarp: bool,
    site_keys: Sequence[bytes],
    user_name: str = "",
) -> Iterator[SecretProblem]:
    """Yield what is wrong with a password file.

    has_ucarp: ucarp is a member of the group. site_keys: the keys of the peer link.
    """
    yield from check_guard(file, user, user_name)
    password = password_of(file.content)
    if not password:
        yield SecretProblem("the password is empty")
    elif len(password) > PASSWORD_BYTES_MAX:
        yield SecretProblem(
            f"the password has {len(password)} bytes", f"CARP has {PASSWORD_BYTES_MAX} at most"
        )
    elif has_ucarp and len(password) > PASSWORD_BYTES_MAX_UCARP:
        yield SecretProblem(
            f"the password has {len(password)} bytes: ucarp cannot join this group",
            f"ucarp has {PASSWORD_BYTES_MAX_UCARP} at most",
        )
    if b"\0" in password or b"\n" in password:
        yield SecretProblem("the password holds a zero or a second line")
    if any(hmac.compare_digest(password, key) for key in site_keys):
        yield SecretProblem(
            "the password is a key of the site's secret",
            "CARP's hash is weak and goes over the wire: use another one",
        )


def read_keys(content: bytes) -> tuple[Mapping[int, bytes], tuple[SecretProblem, ...]]:
    """Return the keys of a secret file by id, in its order, and what is wrong with it."""
    keys: dict[int, bytes] = {}
    problems: list[SecretProblem] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        words = stripped.split()
        reason = _wrong_key(words, keys)
        if reason:
            problems.append(SecretProblem(f"line {number}: {reason}", 'a line is "id key"'))
        else:
            keys[int(words[0])] = words[1]
    if not keys and not problems:
        problems.append(SecretProblem("there is no key in it", 'a line is "id key"'))
    if len(keys) > KEYS_MAX:
        problems.append(SecretProblem(f"there are {len(keys)} keys in it", f"at most {KEYS_MAX}"))
    return keys, tuple(problems)


def check_secret(file: SecretFile, *, user: int, user_name: str = "") -> Iterator[SecretProblem]:
    """Yield what is wrong with the site's secret file."""
    yield from check_guard(file, user, user_name)
    yield from read_keys(file.content)[1]


def _wrong_key(words: Sequence[bytes], keys: Mapping[int, bytes]) -> str:
    """Return what is wrong with the words of a line, nothing if it is a key."""
    if len(words) != 2:
        return f"it has {len(words)} words, not 2"
    identifier, key = words
    if not identifier.isdigit() or len(identifier) > 5 or int(identifier) > KEY_ID_MAX:
        return f"the id is not a number from 0 to {KEY_ID_MAX}"
    if int(identifier) in keys:
        return f"the id {int(identifier)} was given before"
    if len(key) < KEY_BYTES_MIN:
        return f"the key has {len(key)} bytes, at least {KEY_BYTES_MIN} are needed"
    if len(key) > KEY_BYTES_MAX:
        return f"the key has {len(key)} bytes, at most {KEY_BYTES_MAX} are possible"
    if key in keys.values():
        return "the key was given before"
    return ""
