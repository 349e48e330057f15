"""What password and secret files must be like; no message ever quotes what is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.config.secrets import (
    KEY_BYTES_MAX,
    KEYS_MAX,
    SecretFile,
    check_guard,
    check_password,
    check_secret,
    password_of,
    read_keys,
    unreadable_to_service,
)

USER = 1000
KEY = b"0123456789abcdef"


def password_problems(content: bytes, *, mode: int = 0o600, owner: int = 0, **more: object) -> str:
    """Return the reasons against a password file, joined."""
    has_ucarp = bool(more.get("ucarp"))
    file = SecretFile(content, 0o100000 | mode, owner, bool(more.get("credential")))
    found = check_password(file, user=USER, has_ucarp=has_ucarp, site_keys=[KEY])
    return "; ".join(problem.reason for problem in found)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b"secret", b"secret"),
        (b"two words \n", b"two words "),
        (b"x" * 20 + b"\n", b"x" * 20),
    ],
)
def test_a_good_password(content: bytes, password: bytes) -> None:
    """One newline at the end does not belong to it, every other byte does."""
    assert password_problems(content) == ""
    assert password_of(content) == password


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"x" * 21, "the password has 21 bytes"),
        (b"a\nb\n", "the password holds a zero or a second line"),
        (b"a\n\n", "the password holds a zero or a second line"),
        (b"a\0b", "the password holds a zero or a second line"),
        (KEY + b"\n", "the password is a key of the site's secret"),
    ],
)
def test_a_bad_password(content: bytes, reason: str) -> None:
    """Empty, too long, of several lines, or the site's secret: refused."""
    assert password_problems(content) == reason


def test_ucarp_takes_19_bytes() -> None:
    """20 bytes are right for BSD and wrong as soon as ucarp is a member."""
    assert password_problems(b"x" * 20) == ""
    assert password_problems(b"x" * 19, ucarp=True) == ""
    assert "ucarp cannot join this group" in password_problems(b"x" * 20, ucarp=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o4610])
def test_a_file_that_others_may_use_is_refused(mode: int) -> None:
    """Any right of group or others is one too many."""
    assert password_problems(b"x", mode=mode) == f"others may use it (mode {mode:04o})"


def test_the_owner_is_root_or_this_user() -> None:
    """A third user could change the file, or could read it all the time."""
    assert password_problems(b"x", owner=0) == ""
    assert password_problems(b"x", owner=USER) == ""
    assert password_problems(b"x", owner=1001) == "it belongs to user 1001"


def test_the_hint_for_a_wrong_owner_names_who_must_read_it() -> None:
    """`chown root` would make a file that the service's user cannot read."""
    file = SecretFile(b"x", 0o100600, 1001)
    hints = [it.hint for it in check_guard(file, USER, "carpool")]
    assert hints == ["chown carpool, or LoadCredential="]
    assert [it.hint for it in check_guard(file, USER)] == ["chown 1000, or LoadCredential="]


def test_what_the_user_of_the_service_cannot_read() -> None:
    """A file of root's with 0600 is for root only; a credential is not, nor is root's service."""
    problem = unreadable_to_service(SecretFile(b"x", 0o100600, 0), USER, "carpool")
    assert problem is not None
    assert problem.reason == "it belongs to root: the user carpool of the service cannot read it"
    assert problem.hint == "chown carpool, or LoadCredential="
    assert unreadable_to_service(SecretFile(b"x", 0o100600, USER), USER, "carpool") is None
    assert (
        unreadable_to_service(SecretFile(b"x", 0o100440, 0, is_credential=True), USER, "carpool")
        is None
    )
    assert unreadable_to_service(SecretFile(b"x", 0o100600, 0), 0, "root") is None


def test_a_credential_is_guarded_by_systemd() -> None:
    """Its mode shows an access list as rights of the group; its content is judged all the same."""
    assert password_problems(b"x", mode=0o440, owner=5, credential=True) == ""
    assert password_problems(b"", mode=0o440, credential=True) == "the password is empty"


def test_the_keys_of_a_secret() -> None:
    """The order is kept (the first is in use); comments and empty lines do not count."""
    keys, problems = read_keys(b"# rotated in May\n\n7 " + KEY + b"new\r\n 3\t" + KEY)
    assert problems == ()
    assert list(keys.items()) == [(7, KEY + b"new"), (3, KEY)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "there is no key in it"),
        (b"# nothing\n", "there is no key in it"),
        (KEY, "line 1: it has 1 words, not 2"),
        (b"1 " + KEY + b" x", "line 1: it has 3 words, not 2"),
        (b"x " + KEY, "line 1: the id is not a number from 0 to 65535"),
        (b"-1 " + KEY, "line 1: the id is not a number from 0 to 65535"),
        (b"65536 " + KEY, "line 1: the id is not a number from 0 to 65535"),
        (b"9" * 5000 + b" " + KEY, "line 1: the id is not a number from 0 to 65535"),
        (b"\n1 short", "line 2: the key has 5 bytes, at least 16 are needed"),
        (
            b"1 " + b"x" * 257,
            f"line 1: the key has 257 bytes, at most {KEY_BYTES_MAX} are possible",
        ),
        (b"1 " + KEY + b"\n01 " + KEY + b"x", "line 2: the id 1 was given before"),
        (b"1 " + KEY + b"\n2 " + KEY, "line 2: the key was given before"),
        (
            b"\n".join(b"%d %s%d" % (number, KEY, number) for number in range(17)),
            f"there are {KEYS_MAX + 1} keys in it",
        ),
    ],
)
def test_a_bad_secret(content: bytes, reason: str) -> None:
    """Every line is `id key`, each once, the key long enough; the line is named, not shown."""
    problems = list(check_secret(SecretFile(content, 0o100600, 0), user=USER))
    assert [problem.reason for problem in problems] == [reason]


@given(st.binary(max_size=200))
def test_any_bytes_are_keys_or_problems(content: bytes) -> None:
    """No content of a secret file causes an exception, and none passes without a key."""
    keys, problems = read_keys(content)
    assert keys or problems
    assert all(len(key) >= 16 for key in keys.values())
