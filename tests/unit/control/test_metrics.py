"""The metrics page is what Prometheus reads: families, labels, values."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from carpool.control.metrics import escape, render_metrics

_SAMPLE = re.compile(r'(\w+)(?:\{(?:\w+="(?:[^"\\\n]|\\.)*",?)*\})? (-?[0-9.e+-]+)')


def _page(status: dict[str, Any]) -> list[str]:
    """Return the page's lines."""
    return render_metrics(status, status["at"] + 500_000_000).splitlines()


def test_every_line_has_the_form(status: dict[str, Any]) -> None:
    """Each family is together, opened by one HELP and one TYPE, and each sample has the form."""
    family, seen = "", set()
    for line in _page(status):
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen
            seen.add(family)
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
        else:
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match.group(1) == family
    assert len(seen) > 20


def test_states_are_one_hot(status: dict[str, Any]) -> None:
    """Exactly the present state of a group is 1."""
    lines = [line for line in _page(status) if line.startswith("carpool_group_state{")]
    assert lines == [
        'carpool_group_state{group="edge",state="INIT"} 0',
        'carpool_group_state{group="edge",state="BACKUP"} 0',
        'carpool_group_state{group="edge",state="MASTER"} 1',
    ]


def test_values_are_the_snapshot_s(status: dict[str, Any]) -> None:
    """Times are seconds, counters keep their numbers, prefixes become labels."""
    page = _page(status)
    for line in (
        'carpool_lease_remaining_seconds{group="edge"} 2.12',
        'carpool_lease_seconds{group="edge"} 2.995',
        'carpool_group_changes_total{group="edge"} 3',
        'carpool_group_masters{group="edge"} 1',
        'carpool_peer_up{node="bravo",path="192.0.2.12"} 1',
        'carpool_config_info{site="example",node="alpha",revision="1f3a5c7e9b0d"} 1',
        'carpool_advertisements_sent_total{group="edge"} 270000',
        'carpool_advertisements_received_total{group="edge"} 12',
        'carpool_rejected_total{reason="hmac"} 2',
        'carpool_gate_dropped_total{group="edge"} 7',
        'carpool_events_total{name="repaired"} 1',
        'carpool_elect_lateness_seconds{statistic="max"} 0.00125',
        "carpool_status_age_seconds 0.5",
    ):
        assert line in page


def test_every_node_counts_the_same_standbys(status: dict[str, Any], group: dict[str, Any]) -> None:
    """The master and a standby give the same number: a standby counts itself."""
    line = 'carpool_group_standby{group="edge"} 2'
    assert line in _page(status)
    group.update(state="BACKUP", standby=["charlie"])
    status["peers"][0]["states"] = {"edge": "MASTER"}
    assert line in _page(status)
    status["paused"] = True
    assert 'carpool_group_standby{group="edge"} 1' in _page(status)


def test_a_shut_gate_has_no_lease(status: dict[str, Any], group: dict[str, Any]) -> None:
    """A lease that ended shows as 0, never as a negative time."""
    group["lease_until"] = 0
    assert 'carpool_lease_remaining_seconds{group="edge"} 0' in _page(status)


@given(st.text())
def test_labels_cannot_break_out(text: str) -> None:
    """Whatever stands in a label stays between its quotes, and reads back as it was."""
    inner = escape(text)
    assert "\n" not in inner
    plain = inner.replace(r"\\", "\0").replace(r"\"", '"').replace(r"\n", "\n")
    if "\0" not in text:
        assert '"' not in re.sub(r"\\.", "", inner)
        assert plain.replace("\0", "\\") == text
