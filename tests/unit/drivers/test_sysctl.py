"""Kernel settings held for a while, on a directory that stands for /proc/sys/net."""

from pathlib import Path

import pytest

from carpool.base.errors import DriverError
from carpool.drivers.sysctl import Sysctls, interface_setting

KEY = interface_setting("ipv4", "eth0", "arp_ignore")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A settings directory with one setting, 0."""
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_text("0\n")
    return tmp_path


def test_last_holder_restores(root: Path) -> None:
    """A setting goes back to what it was when its last holder lets go, not before."""
    settings = Sysctls(root)
    settings.hold(KEY, 1, "carp-1")
    settings.hold(KEY, 1, "carp-2")
    assert settings.release("carp-1") == []
    assert settings.get(KEY) == "1"
    assert settings.release("carp-2") == []
    assert settings.get(KEY) == "0"


def test_first_value_is_remembered(root: Path) -> None:
    """Setting again after another program interfered does not change what is put back."""
    settings = Sysctls(root)
    settings.hold(KEY, 1, "carp-1")
    (root / KEY).write_text("2\n")
    settings.hold(KEY, 1, "carp-1")
    assert settings.get(KEY) == "1"
    settings.release("carp-1")
    assert settings.get(KEY) == "0"


def test_right_value_is_left_alone(root: Path) -> None:
    """A setting that was right before is not touched when it is let go."""
    (root / KEY).write_text("1\n")
    settings = Sysctls(root)
    settings.hold(KEY, 1, "carp-1")
    assert settings.release("carp-1") == []
    assert settings.get(KEY) == "1"


def test_interface_that_went_needs_nothing(root: Path) -> None:
    """A setting whose interface is gone is no failure at the end."""
    settings = Sysctls(root)
    settings.hold(KEY, 1, "carp-1")
    (root / KEY).unlink()
    assert settings.release("carp-1") == []
    assert settings.get(KEY) is None


def test_missing_setting_is_an_error(root: Path) -> None:
    """Holding what does not exist names the setting."""
    with pytest.raises(DriverError, match="arp_filter"):
        Sysctls(root).hold("ipv4/conf/none/arp_filter", 1, "x")
