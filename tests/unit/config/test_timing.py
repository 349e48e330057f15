"""From an interval to CARP's numbers and to the lease, against values worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.base.time import NS_PER_MS, NS_PER_S, parse_duration
from carpool.config.model import Config, Peer
from carpool.config.parse import parse
from carpool.config.timing import (
    ADVSKEW_MAX,
    MARGIN_BPF_NS,
    MARGIN_NFT_NS,
    STEP_NS,
    Expression,
    advertisement_interval_ns,
    express,
    foreign_master_down_ns,
    group_timing,
    hot_timing,
    lease_ns,
    margin_ns,
    master_down_ns,
    nearest,
)


def config_of(hot: str) -> Config:
    """Return a site of three nodes with one group, whose further keys are `hot`."""
    return parse(
        f"""
        site = {{name = "test", secret_file = "/s"}}
        [node]
        a.address = "192.0.2.1"
        b.address = "192.0.2.2"
        c.address = "192.0.2.3"
        [hot.edge]
        vhid = 1
        interface = "eth0"
        addresses = ["192.0.2.10/24"]
        nodes = ["a", "b", "c"]
        password_file = "/p"
        {hot}
        """,
        "test.toml",
    )


@pytest.mark.parametrize(
    ("asked", "advbase", "base_skew"),
    [
        ("1s", 1, 0),
        ("2s", 2, 0),
        ("255s", 255, 0),
        ("4ms", 0, 1),
        ("3.9ms", 0, 1),
        ("10ms", 0, 3),
        ("100ms", 0, 26),
        ("250ms", 0, 64),
        ("500ms", 0, 128),
        ("992ms", 0, 254),
        ("999ms", 1, 0),
        ("1001ms", 1, 0),
    ],
)
def test_an_interval_becomes_carps_numbers(asked: str, advbase: int, base_skew: int) -> None:
    """Whole seconds are advbase; below one second the nearest step of 1/256 s is taken."""
    assert express(parse_duration(asked)) == Expression(advbase, base_skew)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("1500ms", [1_000_000_000, 2_000_000_000]),
        ("1ms", [STEP_NS]),
        ("1us", [STEP_NS]),
        ("0s", [STEP_NS]),
        ("256s", [255 * NS_PER_S]),
        ("1h", [255 * NS_PER_S]),
        ("996ms", [254 * STEP_NS, NS_PER_S]),
    ],
)
def test_what_carp_cannot_express_has_a_nearest(asked: str, names: list[int]) -> None:
    """An interval between two steps, too short or too long is refused, and the nearest is named."""
    assert express(parse_duration(asked)) is None
    assert [it.interval_ns for it in nearest(parse_duration(asked))] == names


@given(st.integers(0, 400 * NS_PER_S))
def test_an_expression_is_within_half_a_step(interval_ns: int) -> None:
    """What is taken is never further than 1/512 s from what was asked, and always expressible."""
    expression = express(interval_ns)
    for candidate in nearest(interval_ns):
        assert express(candidate.interval_ns) == candidate
    if expression is not None:
        assert abs(expression.interval_ns - interval_ns) * 512 <= NS_PER_S
        assert 0 <= expression.base_skew <= ADVSKEW_MAX


@pytest.mark.parametrize(
    ("advbase", "advskew", "interval_ns", "down_ns"),
    [
        (1, 0, 1_000_000_000, 3_000_000_000),
        (1, 100, 1_390_625_000, 3_390_625_000),
        (2, 254, 2_992_187_500, 6_992_187_500),
        (0, 0, 3_906_250, 11_718_750),
        (0, 1, 3_906_250, 11_718_750),
        (0, 26, 101_562_500, 304_687_500),
    ],
)
def test_the_timers_of_carp(advbase: int, advskew: int, interval_ns: int, down_ns: int) -> None:
    """Interval and master-down time follow OpenBSD, advbase 0 included."""
    assert advertisement_interval_ns(advbase, advskew) == interval_ns
    assert master_down_ns(advbase, advskew) == down_ns


def test_ranks_at_whole_seconds() -> None:
    """Rank k has advskew 10 k."""
    timing = group_timing(config_of('interval = "1s"'), "edge")
    assert timing.advbase == 1
    assert timing.advskew == {"a": 0, "b": 10, "c": 20}
    assert timing.master_down_ns["c"] == 3 * NS_PER_S + 20 * STEP_NS


def test_ranks_below_one_second() -> None:
    """Rank k has the base skew + k, so that the interval stays what was asked."""
    timing = group_timing(config_of('interval = "100ms"'), "edge")
    assert timing.advbase == 0
    assert timing.advskew == {"a": 26, "b": 27, "c": 28}
    assert timing.interval_ns["a"] == 26 * STEP_NS


def test_an_override_replaces_the_rank() -> None:
    """An advskew given for a node is taken as it is; the others keep theirs."""
    config = config_of("[hot.edge.node.b]\nadvskew = 100")
    assert group_timing(config, "edge").advskew == {"a": 0, "b": 100, "c": 20}


def test_the_lease_is_the_earliest_take_over_of_the_others() -> None:
    """A master is bound by every other member, not by itself, less the margin."""
    timing = group_timing(config_of('interval = "100ms"'), "edge")
    assert lease_ns(timing, "a", MARGIN_BPF_NS) == 3 * 27 * STEP_NS - 5 * NS_PER_MS
    assert lease_ns(timing, "b", MARGIN_NFT_NS) == 3 * 26 * STEP_NS - 20 * NS_PER_MS
    assert lease_ns(timing, "c", 0) == 3 * 26 * STEP_NS


def test_a_foreign_member_bounds_the_lease_as_declared() -> None:
    """A declared member that is more eager than ours ends our lease earlier."""
    config = config_of('interval = "2s"\npeers = [{kind = "openbsd", advbase = 1, advskew = 5}]')
    timing = group_timing(config, "edge")
    assert timing.foreign_master_down_ns == (3 * NS_PER_S + 5 * STEP_NS,)
    assert lease_ns(timing, "a", MARGIN_BPF_NS) == 3 * NS_PER_S + 5 * STEP_NS - MARGIN_BPF_NS


def test_a_foreign_member_that_declares_nothing_is_the_most_eager() -> None:
    """Without numbers it has the group's advbase and advskew 0."""
    assert foreign_master_down_ns(Peer(kind="freebsd"), 2) == 6 * NS_PER_S


def test_ucarp_at_advbase_0_waits_one_interval_only() -> None:
    """Backups of ucarp add advskew once, OpenBSD three times; the shorter time is what binds us."""
    assert foreign_master_down_ns(Peer(kind="ucarp", advbase=0, advskew=64), 1) == 64 * STEP_NS
    assert foreign_master_down_ns(Peer(kind="openbsd", advbase=0, advskew=64), 1) == 192 * STEP_NS


def test_a_node_alone_has_its_own_time_for_a_lease() -> None:
    """Nobody waits for the end of its lease, yet it has one."""
    config = config_of("").hot["edge"].model_copy(update={"nodes": ("a",)})
    assert lease_ns(hot_timing(config), "a", MARGIN_BPF_NS) == 3 * NS_PER_S - MARGIN_BPF_NS


def test_the_margin_depends_on_the_gate_unless_it_is_given() -> None:
    """5 ms for BPF, 20 ms for nft, or what the file says for both."""
    plain = config_of("").hot["edge"]
    given_one = config_of('margin = "7ms"').hot["edge"]
    assert (margin_ns(plain, "bpf"), margin_ns(plain, "nft")) == (MARGIN_BPF_NS, MARGIN_NFT_NS)
    assert margin_ns(given_one, "bpf") == margin_ns(given_one, "nft") == 7 * NS_PER_MS


def test_an_interval_that_cannot_be_is_a_value_error() -> None:
    """A group that no parser has judged does not get silent nonsense for timers."""
    hot = config_of("").hot["edge"].model_copy(update={"interval_ns": 1})
    with pytest.raises(ValueError, match="cannot be expressed"):
        hot_timing(hot)
