"""Which users there are to become."""

import pytest

from carpool.daemon.unprivileged import is_mapped

WHOLE = "         0          0 4294967295\n"
ONE = "         0       1000          1\n"
TWO = "         0       1000          1\n         1     100000      65536\n"


@pytest.mark.parametrize(
    ("uid", "uid_map", "wanted"),
    [(65534, WHOLE, True), (65534, ONE, False), (0, ONE, True), (65534, TWO, True), (7, "", False)],
)
def test_a_user_is_mapped_or_not(uid, uid_map, wanted):
    """A user namespace made for one user has nobody else; the machine's own has everybody."""
    assert is_mapped(uid, uid_map) is wanted
