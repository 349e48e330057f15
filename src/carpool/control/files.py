"""The files that an operator writes: the configuration, passwords and the secret, from disk.

Shared by the daemon and by `carpool check`; `config` judges what is read here (it opens no file).
A path "credential:NAME" means the file NAME in the directory that systemd names in
CREDENTIALS_DIRECTORY. An OSError becomes a problem with a sentence; none leaves this module.
"""

import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from carpool.base.errors import LocalError
from carpool.config.fields import CREDENTIAL_PREFIX
from carpool.config.model import Config, Hot, foreign_peers
from carpool.config.parse import Examined, Survey, survey
from carpool.config.problems import ConfigErrors, Finding, Problem, format_path, warning
from carpool.config.rules.parts import Parts
from carpool.config.secrets import (
    ROOT,
    SECRET_FILE_BYTES_MAX,
    SecretFile,
    SecretProblem,
    check_password,
    check_secret,
    password_of,
    read_keys,
    unreadable_to_service,
)
from carpool.config.syntax import TEXT_BYTES_MAX

CONFIG_FILE: Final = "/etc/carpool/carpool.toml"
SERVICE_USER: Final = "carpool"  # packaging/carpool.sysusers.conf
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True, slots=True)
class Secrets:
    """The passwords by group, and the keys of the peer link by id, the one in use first.

    Neither is shown when this is printed.
    """

    passwords: Mapping[str, bytes] = field(repr=False)
    keys: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExaminedSecrets:
    """What could be read, what is wrong, and what is not on this machine or not readable here.

    doubtful: what root can read, but not the user of the service.
    """

    secrets: Secrets
    findings: tuple[Finding, ...]
    absent: tuple[Finding, ...]
    doubtful: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who reads the secrets: the user beside root who may own them.

    is_for_service: whether root looks at them for the user of the service, who runs carpoold.
    """

    user: int
    name: str
    is_for_service: bool = False


class _AbsentError(LocalError):
    """A file is not there, or may not be read by this user."""


class _UnusableError(LocalError):
    """A file is there, but is nothing that can hold a secret."""


def load(path: str) -> Config:
    """Return the configuration in the file `path`.

    Raises ConfigErrors with everything that is wrong, also if it cannot be read.
    """
    return load_examined(path).config


def load_examined(path: str) -> Examined:
    """Return the configuration in the file `path`, with warnings and places.

    Raises ConfigErrors with everything that is wrong, also if it cannot be read.
    """
    return survey_file(path).examined()


def survey_file(path: str) -> Survey:
    """Return everything that can be known about the file `path`, right or wrong.

    Raises ConfigErrors if it cannot be read or is not TOML.
    """
    try:
        content = _read(path, TEXT_BYTES_MAX)[0]
    except OSError as wrong:
        reason = f"cannot be read: {wrong.strerror or wrong}"
        raise ConfigErrors(path, [Problem(1, 1, "", reason)]) from wrong
    except _UnusableError as wrong:
        raise ConfigErrors(path, [Problem(1, 1, "", str(wrong))]) from wrong
    return survey_content(content, path)


def survey_content(content: bytes, name: str) -> Survey:
    """Return everything that can be known about the bytes of a file called `name`.

    Raises ConfigErrors if they are not TOML.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as wrong:
        before = content[: wrong.start]
        line = before.count(b"\n") + 1
        col = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        problem = Problem(line, col, "", "this byte is not UTF-8", "save the file as UTF-8")
        raise ConfigErrors(name, [problem]) from wrong
    return survey(text, name)


def load_secrets(config: Config, examined: Examined | None = None) -> Secrets:
    """Return the passwords and keys that `config` names.

    examined: where `config` came from, so that the problems have their places.
    Raises ConfigErrors if a file is not there, not readable, or not what it must be.
    """
    result = examine_secrets(config)
    findings = (*result.findings, *result.absent)
    if findings:
        raise ConfigErrors(
            examined.file if examined else "configuration",
            [examined.locate(it) if examined else _unplaced(it) for it in findings],
        )
    return result.secrets


def examine_secrets(config: Config | Parts, identity: Identity | None = None) -> ExaminedSecrets:
    """Read every password and the secret that `config` names; never raises.

    config: also a file that is wrong, as far as it could be read.
    """
    reader = _Reader(identity or _identity())
    keys: Mapping[int, bytes] = {}
    if config.site is not None and config.site.secret_file is not None:
        keys = reader.keys(config.site.secret_file)
    passwords: dict[str, bytes] = {}
    for name, hot in config.hot.items():
        if not hot.password_file:  # left out, because it is wrong
            continue
        password = reader.password(hot, name, tuple(keys.values()))
        if password is not None:
            passwords[name] = password
    return ExaminedSecrets(
        Secrets(passwords, keys),
        tuple(reader.findings),
        tuple(reader.absent),
        tuple(reader.doubtful),
    )


def _identity() -> Identity:
    """Return who may own a secret beside root: who runs this, or for root the service's user."""
    user = os.geteuid()
    try:
        if user != ROOT:
            return Identity(user, pwd.getpwuid(user).pw_name)
        return Identity(pwd.getpwnam(SERVICE_USER).pw_uid, SERVICE_USER, is_for_service=True)
    except KeyError:
        return Identity(user, "root" if user == ROOT else str(user))


class _Reader:
    """Reads secrets one after the other and keeps what is wrong."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.doubtful: list[Finding] = []
        self.findings: list[Finding] = []
        self.absent: list[Finding] = []

    def keys(self, path: str) -> Mapping[int, bytes]:
        """Return the keys of the peer link."""
        where = ("site", "secret_file")
        file = self._file(path, where)
        if file is None:
            return {}
        user, name = self.identity.user, self.identity.name
        self._keep(where, path, check_secret(file, user=user, user_name=name))
        self.doubt(where, path, file)
        return read_keys(file.content)[0]

    def password(self, hot: Hot, group: str, keys: tuple[bytes, ...]) -> bytes | None:
        """Return the password of `group`, None if there is none to read."""
        where = ("hot", group, "password_file")
        file = self._file(hot.password_file, where)
        if file is None:
            return None
        problems = check_password(
            file,
            user=self.identity.user,
            user_name=self.identity.name,
            has_ucarp=bool(foreign_peers(hot, "ucarp")),
            site_keys=keys,
        )
        self._keep(where, hot.password_file, problems)
        self.doubt(where, hot.password_file, file)
        return password_of(file.content)

    def doubt(self, where: tuple[str, ...], path: str, file: SecretFile) -> None:
        """Keep a warning about a file that root can read, but not the user of the service."""
        if not self.identity.is_for_service:
            return
        problem = unreadable_to_service(file, self.identity.user, self.identity.name)
        if problem is not None:
            self.doubtful.append(warning(where, f"{path}: {problem.reason}", problem.hint))

    def _file(self, path: str, where: tuple[str, ...]) -> SecretFile | None:
        try:
            return _secret_file(path)
        except _AbsentError as wrong:
            self.absent.append(Finding(where, f"{path}: {wrong}"))
        except _UnusableError as wrong:
            self.findings.append(Finding(where, f"{path}: {wrong}"))
        return None

    def _keep(self, where: tuple[str, ...], path: str, problems: Iterator[SecretProblem]) -> None:
        for problem in problems:
            self.findings.append(Finding(where, f"{path}: {problem.reason}", problem.hint))


def _secret_file(path: str) -> SecretFile:
    """Return a secret's file, or say why there is none."""
    is_credential = path.startswith(CREDENTIAL_PREFIX)
    if is_credential:
        directory = os.environ.get(CREDENTIALS_VARIABLE)
        if not directory:
            raise _AbsentError(f"systemd gave no credentials ({CREDENTIALS_VARIABLE} is not set)")
        path = str(Path(directory) / path.removeprefix(CREDENTIAL_PREFIX))
    try:
        content, facts = _read(path, SECRET_FILE_BYTES_MAX)
    except OSError as wrong:
        raise _refusal(wrong) from wrong
    return SecretFile(content, facts.st_mode, facts.st_uid, is_credential)


def _refusal(wrong: OSError) -> LocalError:
    """Return what the kernel's refusal to open or read a secret means for us."""
    if isinstance(wrong, FileNotFoundError | NotADirectoryError):
        return _AbsentError("not found here")
    if isinstance(wrong, PermissionError):
        return _AbsentError("not readable by this user")
    return _UnusableError(f"cannot be read: {wrong.strerror or wrong}")


def _read(path: str, size_max: int) -> tuple[bytes, os.stat_result]:
    """Return the content of a regular file and the facts about that same file."""
    # A fifo must not make us wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _UnusableError("not a regular file")
        parts = []
        wanted = size_max + 1
        while wanted and (part := os.read(descriptor, wanted)):
            parts.append(part)
            wanted -= len(part)
    finally:
        os.close(descriptor)
    content = b"".join(parts)
    if len(content) > size_max:
        raise _UnusableError(f"larger than {size_max} bytes")
    return content, facts


def _unplaced(finding: Finding) -> Problem:
    return Problem(0, 0, format_path(finding.path), finding.reason, finding.hint)
