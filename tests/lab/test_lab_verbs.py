"""`carpool lab` as an operator calls it: files that are valid in unusual ways, orders that are not.

web1   web2   client  asker  watcher
=+======+=======+=======+======+==  lan0
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from carpool.cli.main import main
from carpool.lab import operate, site
from carpool.lab.netns import stop_signals_raise
from carpool.lab.site import Shape
from carpool.lab.stage import Stage
from carpool.lab.waiting import LabError

pytestmark = pytest.mark.lab

STAYS = """
[site]
name = "web"
secret_file = "/etc/carpool/secret"
[node.web1]
address = "192.0.2.11"
[node.web2]
address = "192.0.2.12"
[hot.www]
vhid = 1
interface = "eth0"
addresses = ["192.0.2.10/24"]
nodes = ["web1", "web2"]
password_file = "/etc/carpool/www.pass"
interval = "100ms"
preempt = false
[hot.mail]
vhid = 2
interface = "eth0"
addresses = ["192.0.2.20/24"]
nodes = ["web2", "web1"]
password_file = "/etc/carpool/mail.pass"
interval = "100ms"
preempt = false
"""


def test_groups_that_do_not_preempt_start(lab_directory: Path) -> None:
    """A lab starts although the best node of a group, up second, does not become its master."""
    with stop_signals_raise(), Stage.build(lab_directory, site.load(STAYS, "web")) as stage:
        stage.start()
        assert {group: stage.master(group) for group in stage.config.hot} == {
            "www": "web1",
            "mail": "web1",
        }
        with pytest.raises(LabError, match=r"for web2 to be master of mail, in vain: ") as late:
            stage.wait_master("web2", "mail", patience_s=0.1)
        assert str(late.value).endswith(": web2 is BACKUP, web1 is MASTER")


def test_dead_daemon_is_not_killed_again(
    build: Callable[..., Stage],
    lab_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killing or freezing what does not run is refused with exit code 1; killing works once."""
    build(Shape(nodes=("web1",), heartbeat=False)).start_daemons()
    monkeypatch.setattr(operate, "directory", lambda: lab_directory)
    assert main(["lab", "kill", "web1"]) == 0
    for verb in ("kill", "freeze", "thaw"):
        capsys.readouterr()
        assert main(["lab", verb, "web1"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("carpool: web1: carpoold is not running")


def test_broken_file_is_reported_as_check_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lab up` prints exactly the lines of `check`, each with its own place."""
    path = tmp_path / "broken.toml"
    path.write_text("a = 1\nb = 2\n")
    assert main(["check", str(path)]) == 1
    checked = capsys.readouterr().err
    assert main(["lab", "up", str(path)]) == 1
    assert capsys.readouterr().err == checked
    assert all(re.match(re.escape(str(path)), line) for line in checked.splitlines())
