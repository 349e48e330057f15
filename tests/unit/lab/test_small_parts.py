"""Screen, wiring, registry, neighbours, waiting: the small parts of the lab."""

import os
import struct
from pathlib import Path

import pytest

from carpool.lab import registry, site
from carpool.lab.neighbours import deletion
from carpool.lab.netns import own_directory
from carpool.lab.plan import topology_of
from carpool.lab.processes import Known, alive, start_time
from carpool.lab.registry import Registry
from carpool.lab.screen import Colour, paint, table
from carpool.lab.site import Shape
from carpool.lab.stamps import SO_TIMESTAMPNS, stamp_of
from carpool.lab.waiting import LabError, wait_for
from carpool.lab.wiring import cable_lines, host_lines, switch_lines


def test_table_aligns_numbers_right() -> None:
    """Words stand left, numbers right, and no line ends in blanks."""
    assert table(("A", "GAP"), [("word", "1 ms"), ("x", "12 ms")]) == (
        "A     GAP\nword   1 ms\nx     12 ms"
    )


def test_no_colour_off_a_terminal() -> None:
    """Off a terminal nothing is painted."""
    assert paint("text", Colour.RED) == "text"


def test_wait_for_returns_the_fact() -> None:
    """The first true value is what waiting returns."""
    values = iter([0, "", "there"])
    assert wait_for(lambda: next(values), 1.0, "it") == "there"


def test_wait_for_names_what_did_not_come() -> None:
    """After the deadline the error names the fact and its last value, if that says anything."""
    with pytest.raises(LabError, match=r"^waited 0.01 s for the moon, in vain: it stayed 0$"):
        wait_for(lambda: 0, 0.01, "the moon")
    with pytest.raises(LabError, match=r"^waited 0.01 s for the moon, in vain$"):
        wait_for(lambda: False, 0.01, "the moon")


def test_wait_for_says_what_was_there_instead() -> None:
    """The error's sentence ends with what the waiter found in place of the fact."""
    with pytest.raises(LabError, match=r"^waited 0.01 s for the moon, in vain: there is the sun$"):
        wait_for(lambda: False, 0.01, "the moon", lambda: "there is the sun")


def test_registry_reads_back(tmp_path: Path) -> None:
    """What is saved is what is loaded."""
    made = Registry(1, 2, True, {"alpha": "cp-1-0"}, [Known("daemon", "alpha", 3, 4)])
    made.save(tmp_path)
    assert registry.load(tmp_path) == made


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "x": 2}'])
def test_broken_registry_is_refused(tmp_path: Path, text: str) -> None:
    """A file that is not ours is an error with a sentence, never a traceback of another kind."""
    (tmp_path / registry.FILE_NAME).write_text(text)
    with pytest.raises(LabError):
        registry.load(tmp_path)


def test_no_lab_is_said(tmp_path: Path) -> None:
    """Without a registry there is no lab, and that is what the error says."""
    with pytest.raises(LabError, match="no lab in"):
        registry.load(tmp_path)


def test_directory_of_others_is_refused(tmp_path: Path) -> None:
    """A symbolic link in the place of the lab's directory is not followed."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(LabError, match="another user"):
        own_directory(link)


def test_process_identity() -> None:
    """A process is known by id and start time; another start time is another process."""
    own = start_time(os.getpid())
    assert alive(Known("x", "y", os.getpid(), own))
    assert not alive(Known("x", "y", os.getpid(), own + 1))


def test_wiring_keeps_the_order_of_ports() -> None:
    """Ports are attached to the bridge in the order of the topology."""
    found = topology_of(site.load(site.text_of(Shape()), "test"))
    names = {host: f"cp-1-{number}" for number, host in enumerate(("switch", *found.hosts))}

    def attached(lines: list[str]) -> list[str]:
        return [line.split()[3] for line in lines if " master sw0bri" in line]

    straight = attached(switch_lines(found))
    assert straight == [f"sw0pt{number}" for number in range(6)]
    assert attached(switch_lines(found.reversed_ports())) == straight[::-1]
    assert all("netns cp-1-" in line for line in cable_lines(found, names))
    assert "address add 192.0.2.11/24 dev eth0" in host_lines(found, "alpha")


def test_secrets_are_for_us_alone(tmp_path: Path) -> None:
    """Made secrets are of mode 0600, and the configuration names the lab's files only."""
    config = site.with_lab_secrets(site.load(site.text_of(Shape()), "test"), tmp_path)
    site.write_secrets(config, password="a-password")
    path = Path(config.hot["edge"].password_file)
    assert path.parent == tmp_path
    assert path.read_text() == "a-password\n"
    assert path.stat().st_mode & 0o777 == 0o600
    written = site.write_config(config, tmp_path).read_text()
    assert "/etc/carpool" not in written
    assert site.load(written, "again") == config


def test_neighbour_deletion_message() -> None:
    """The message says RTM_DELNEIGH, its own length, the interface and the address."""
    message = deletion("192.0.2.10", 7, 3)
    length, kind, _, sequence, _ = struct.unpack_from("@IHHII", message)
    assert (length, kind, sequence) == (len(message), 29, 3)
    assert struct.unpack_from("@BBHi", message, 16)[3] == 7
    assert message.endswith(bytes((192, 0, 2, 10)))


def test_kernel_stamp_is_read() -> None:
    """Seconds and nanoseconds of the ancillary data become one number."""
    data = struct.pack("@qq", 5, 7)
    assert stamp_of([(1, SO_TIMESTAMPNS, data)]) == 5_000_000_007
