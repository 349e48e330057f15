"""Files on disk: the configuration, passwords and the secret, as `carpoold` reads them."""

import errno
import os
import socket
from pathlib import Path

import pytest

from carpool.config.problems import ConfigErrors
from carpool.config.secrets import SecretFile
from carpool.control.files import (
    Identity,
    _AbsentError,
    _Reader,
    _refusal,
    _UnusableError,
    examine_secrets,
    load,
    load_examined,
    load_secrets,
    survey_file,
)

KEY = "0123456789abcdef"


class Site:
    """A directory with a file of a site of two nodes, its secret and its password."""

    def __init__(self, directory: Path) -> None:
        self.secret = directory / "secret"
        self.password = directory / "edge.pass"
        self.file = directory / "site.toml"
        self.write(self.secret, f"1 {KEY}\n")
        self.write(self.password, "open sesame\n")
        self.write_config(str(self.password))

    def write(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Write a file with a mode, whatever the umask is."""
        path.write_text(text)
        path.chmod(mode)

    def write_config(self, password_file: str) -> None:
        """Write the configuration."""
        self.file.write_text(
            f"""
site = {{ name = "test", secret_file = "{self.secret}" }}
node = {{ a = {{ address = "192.0.2.1" }}, b = {{ address = "192.0.2.2" }} }}
[hot.edge]
vhid = 1
interface = "eth0"
addresses = ["192.0.2.10/24"]
nodes = ["a", "b"]
password_file = "{password_file}"
"""
        )

    def refusal(self) -> str:
        """Return what is said against the secrets."""
        examined = load_examined(str(self.file))
        with pytest.raises(ConfigErrors) as caught:
            load_secrets(examined.config, examined)
        return caught.value.report()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site that is right."""
    return Site(tmp_path)


def test_a_site_is_read(site: Site) -> None:
    """Passwords by group and keys by id come back as bytes, and are not shown when printed."""
    secrets = load_secrets(load(str(site.file)))
    assert secrets.passwords == {"edge": b"open sesame"}
    assert secrets.keys == {1: KEY.encode()}
    assert "sesame" not in repr(secrets)
    assert KEY not in repr(secrets)


def test_a_secret_that_others_may_read_is_refused_with_its_place(site: Site) -> None:
    """The message names the key, the place in the configuration, the file and the remedy."""
    site.secret.chmod(0o640)
    assert site.refusal().splitlines()[0] == (
        f"{site.file}:2:39: error: site.secret_file: {site.secret}: "
        "others may use it (mode 0640) (chmod 0600)"
    )


def test_all_problems_of_all_files_come_at_once(site: Site) -> None:
    """A bad secret does not hide a bad password."""
    site.write(site.secret, "1 short\n")
    site.write(site.password, "x" * 21, 0o644)
    text = site.refusal()
    assert "line 1: the key has 5 bytes" in text
    assert "the password has 21 bytes" in text
    assert "others may use it (mode 0644)" in text
    assert "3 errors, nothing was changed" in text


def test_root_is_told_what_its_service_cannot_read() -> None:
    """A file of root's is a doubt for a check by root, and none for who runs carpoold itself."""
    where, file = ("site", "secret_file"), SecretFile(b"", 0o100600, 0)
    for_service = _Reader(Identity(990, "carpool", is_for_service=True))
    for_service.doubt(where, "/s", file)
    assert [(it.severity, it.path, it.hint) for it in for_service.doubtful] == [
        ("warning", where, "chown carpool, or LoadCredential=")
    ]
    for_itself = _Reader(Identity(990, "carpool"))
    for_itself.doubt(where, "/s", file)
    assert for_itself.doubtful == []


def test_the_secrets_of_a_wrong_file_are_judged(site: Site) -> None:
    """What could be read of a wrong file is enough to find its secrets; a wrong path is none."""
    site.write(site.secret, "1 short\n")
    site.write_config("relative")
    survey = survey_file(str(site.file))
    assert [it.path for it in survey.errors()] == ["hot.edge.password_file"]
    result = examine_secrets(survey.parts)
    assert [it.path for it in (*result.findings, *result.absent)] == [("site", "secret_file")]


def test_the_secret_of_the_site_is_no_password(site: Site) -> None:
    """The same bytes in two files are found, too."""
    site.write(site.password, KEY + "\n")
    assert "the password is a key of the site's secret" in site.refusal()


def test_a_file_that_is_not_there(site: Site) -> None:
    """For the daemon a missing password is an error."""
    site.password.unlink()
    assert f"{site.password}: not found here" in site.refusal()


def test_a_file_that_may_not_be_read_is_absent_for_this_user() -> None:
    """A missing right is told apart from a file that nobody could use."""
    denied = _refusal(PermissionError(errno.EACCES, "Permission denied"))
    broken = _refusal(OSError(errno.EIO, "Input/output error"))
    assert (type(denied), str(denied)) == (_AbsentError, "not readable by this user")
    assert (type(broken), str(broken)) == (_UnusableError, "cannot be read: Input/output error")


def test_only_regular_files_hold_secrets(site: Site, tmp_path: Path) -> None:
    """A directory, a socket, a device and a fifo without a writer are refused without waiting."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    for path in (fifo, tmp_path, Path("/dev/zero")):
        site.write_config(str(path))
        assert f"{path}: not a regular file" in site.refusal()
    site.write_config(str(tmp_path / "socket"))
    assert "cannot be read: No such device or address" in site.refusal()


def test_a_huge_file_is_no_secret(site: Site) -> None:
    """No more than the limit is read."""
    site.write(site.password, "x" * 100_000)
    assert "larger than 16384 bytes" in site.refusal()


def test_credentials_of_systemd(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """credential:NAME is read in the directory that systemd names, and only if it names one."""
    site.write_config("credential:edge")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "systemd gave no credentials" in site.refusal()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    site.write(tmp_path / "edge", "from systemd", 0o440)
    assert load_secrets(load(str(site.file))).passwords == {"edge": b"from systemd"}


def test_a_site_of_one_node_needs_no_secret(site: Site) -> None:
    """Without a peer link there are no keys to read."""
    text = site.file.read_text().replace(", b = { address", ", c = { address")
    lines = [
        'site.name = "test"' if line.startswith("site") else line for line in text.splitlines()
    ]
    text = "\n".join(lines).replace(', c = { address = "192.0.2.2" }', "").replace(', "b"', "")
    site.file.write_text(text)
    assert load_secrets(load(str(site.file))).keys == {}


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    """No file, a directory, and bytes that are not UTF-8 are errors with a place."""
    with pytest.raises(ConfigErrors, match=r"none\.toml:1:1: error: cannot be read: No such file"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigErrors, match="not a regular file"):
        load(str(tmp_path))
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# é\n# gr\u00fc\n".encode() + b"# gr\xfcn\n")
    with pytest.raises(ConfigErrors, match=r"latin\.toml:3:5: error: this byte is not UTF-8"):
        load(str(latin))
    latin.write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigErrors, match="larger than 1048576 bytes"):
        load(str(latin))
