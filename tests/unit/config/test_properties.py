"""Properties: printing and parsing are inverse; no text causes anything but ConfigErrors."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.base.time import format_duration
from carpool.config.model import Config
from carpool.config.parse import examine, parse
from carpool.config.problems import ConfigErrors, format_key
from carpool.config.render import quote, render
from carpool.config.revision import revision
from carpool.config.rules.ties import closed

HERE = Path(__file__).parent
TEXTS = [
    path.read_text()
    for path in sorted([*HERE.glob("good/*.toml"), *HERE.glob("broken/*.toml")])
    if path.stat().st_size < 4000
]
NAMES = st.text("abcXYZ019._-", min_size=1, max_size=9).map(lambda text: f"n{text}0")
GROUP_NAMES = st.text("abcXYZ019_-", min_size=1, max_size=9).map(lambda text: f"g{text}0")
PATHS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    .filter(str.isprintable)
    .map(lambda text: f"/etc/{text}x"),
    st.just("credential:edge.pass"),
)
INTERFACES = st.text("abz019.-_@\"'\\#", min_size=1, max_size=14).map(lambda text: f"e{text}")
LONG = st.integers(1, 84).map(lambda seconds: seconds * 1_000_000_000)
SHORT = st.integers(50_000, 900_000).map(lambda microseconds: microseconds * 1000)


@st.composite
def groups(draw: st.DrawFn, number: int, nodes: list[str]) -> dict[str, object]:
    """A group that breaks no rule: everything that must be its own is numbered."""
    interval_ns = draw(LONG | SHORT)
    group: dict[str, object] = {
        "vhid": number + 1,
        "interface": draw(INTERFACES),
        "addresses": [
            *(f"10.{number}.{index}.1/24" for index in range(draw(st.integers(1, 30)))),
            *(f"2001:db8:{number:x}::{index + 1:x}/64" for index in range(draw(st.integers(0, 3)))),
        ],
        "nodes": draw(st.permutations(nodes)),
        "password_file": draw(PATHS),
        "interval": format_duration(interval_ns),
        "mac": draw(st.sampled_from(["interface", "virtual"])),
        "preempt": draw(st.booleans()),
        "preempt_delay": draw(st.sampled_from(["0s", "1500ms", "1h"])),
        "demote": draw(st.sampled_from(["openbsd", "freebsd"])),
        "gate": draw(st.sampled_from(["auto", "bpf", "nft"])),
        "firewall": draw(st.booleans()),
        "node": {
            name: {"interface": draw(INTERFACES)}
            for name in draw(st.lists(st.sampled_from(nodes), unique=True))
        },
    }
    if draw(st.booleans()):
        group["margin"] = format_duration(draw(st.integers(1, 20_000)) * 1000)
    if interval_ns in range(1_000_000_000, 85_000_000_000):
        skews = draw(st.lists(st.integers(0, 254), max_size=3))
        group["peers"] = [
            {"kind": "openbsd", "advbase": interval_ns // 1_000_000_000, "advskew": skew}
            for skew in skews
        ]
    return group


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """A configuration that breaks no rule."""
    nodes = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    names = draw(st.lists(GROUP_NAMES, max_size=4, unique=True))
    hots = {name: draw(groups(number, nodes)) for number, name in enumerate(names)}
    for name, group in hots.items():
        others = [other for other in names if other != name]
        is_tied = draw(st.booleans())
        if others and is_tied:
            group["with"] = draw(st.lists(st.sampled_from(others), unique=True))
    config = Config.model_validate(
        {
            "site": {"name": draw(NAMES), "secret_file": f"{draw(PATHS)}.secret"},
            "node": {
                name: {"address": f"192.0.2.{index + 1}", "port": draw(st.integers(1, 65535))}
                for index, name in enumerate(nodes)
            },
            "hot": hots,
        }
    )
    return config.model_copy(update={"hot": closed(config.hot)})


@given(configs())
@settings(max_examples=150, deadline=None)
def test_printing_and_parsing_are_inverse(config: Config) -> None:
    """Any valid configuration comes back equal from its text, and so does its revision."""
    text = render(config)
    again = parse(text, "printed.toml")
    assert again == config
    assert revision(again) == revision(config)


@given(configs(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_revision_ignores_the_order_of_tables(config: Config, random: object) -> None:
    """Two files that say the same in another order have one revision."""
    assert hasattr(random, "sample")
    shuffled = config.model_copy(
        update={
            "node": dict(random.sample(sorted(config.node.items()), len(config.node))),
            "hot": dict(random.sample(sorted(config.hot.items()), len(config.hot))),
        }
    )
    assert revision(shuffled) == revision(config)


@given(st.text(st.characters()))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_config_or_errors(text: str) -> None:
    """Text of any kind, lone surrogates included, causes no other exception."""
    assert all(line.startswith("any.toml:") for line in outcome(text))


@given(st.sampled_from(TEXTS), st.data())
@settings(max_examples=400, deadline=None)
def test_a_damaged_file_is_a_config_or_errors(text: str, data: st.DataObject) -> None:
    """A file with a few characters lost, doubled or replaced causes no other exception."""
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        middle = data.draw(st.text("\"'[]{}=.,#\\\n abe019-_é", max_size=6))
        text = text[:start] + middle + text[end:]
    assert all(line.startswith("any.toml:") for line in outcome(text))


VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**70), 2**70).map(str),
        st.floats(allow_nan=True).map(lambda number: repr(number).replace("inf", "inf")),
        st.booleans().map(lambda truth: "true" if truth else "false"),
        st.text(max_size=5).map(quote),
        st.sampled_from(['"192.0.2.1/24"', '"1s"', "1979-05-27", "07:32:00", '"off"', '"alpha"']),
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]")
        | st.dictionaries(st.sampled_from(["kind", "x", "alpha"]), inner, max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=5,
)
KEYS = {
    "site": ["name", "secret_file", "x"],
    "node.alpha": ["address", "heartbeat", "port"],
    "hot.edge": [
        *("vhid", "interface", "addresses", "nodes", "password_file", "peers", "interval"),
        *("sealed", "mac", "preempt", "preempt_delay", "demote", "with", "margin", "transport"),
        *("gate", "firewall", "node", "track", "protocol"),
    ],
}


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_any_value_anywhere_is_answered_in_our_words(data: st.DataObject) -> None:
    """Every kind of value at every key is accepted or refused with a sentence that we wrote."""
    lines = []
    for table, keys in KEYS.items():
        lines.append(f"[{table}]")
        chosen = data.draw(st.lists(st.sampled_from(keys), unique=True, max_size=6))
        lines.extend(f"{format_key(key)} = {data.draw(VALUES)}" for key in chosen)
    for reason in outcome("\n".join(lines)):
        assert "Input should" not in reason
        assert "cannot be used here" not in reason
        assert "\n" not in reason


def outcome(text: str) -> list[str]:
    """Return what is said about the text; anything but ConfigErrors fails the test."""
    try:
        return [problem.text("any.toml") for problem in examine(text, "any.toml").warnings]
    except ConfigErrors as wrong:
        return [problem.text("any.toml") for problem in wrong.problems]


@pytest.mark.parametrize("opening", ["[", "{a=", "a.", "[a."])
def test_deep_nesting_is_refused(opening: str) -> None:
    """Brackets by the ten thousand end in an error, not in a crash of the interpreter."""
    with pytest.raises(ConfigErrors):
        parse("x = " + opening * 20_000, "deep.toml")
    with pytest.raises(ConfigErrors):
        parse("x = " + "[" * 300 + "]" * 300, "deep.toml")


@pytest.mark.parametrize("part", ["a", "'a'", '"a" '])
def test_a_key_of_endless_parts_is_refused_at_once(part: str) -> None:
    """A dotted key of 100,000 parts, for which tomllib would take minutes, is not given to it."""
    for text in (f"[{'.'.join([part] * 100_000)}]", f"{'.'.join([part] * 100_000)} = 1"):
        with pytest.raises(ConfigErrors, match="a key has more than 16 parts"):
            parse(f"x = 1\n{text}", "long.toml")


@pytest.mark.parametrize(
    "text",
    [
        "a = [ }",
        "a = [\n}",
        "a = [,",
        "a = [ #",
        "a = {,",
        "a = { # }",
        "a = [{]}",
        "[a",
        "[[a]",
        "a",
    ],
)
def test_the_scanner_ends_on_what_is_not_toml(text: str) -> None:
    """Brackets that do not match once kept the scanner going without moving on, for ever."""
    with pytest.raises(ConfigErrors):
        parse(text, "broken.toml")


@pytest.mark.parametrize("key", ["vhid", "interface", "addresses", "interval", "sealed", "x"])
def test_a_number_of_endless_digits_is_refused(key: str) -> None:
    """Hexadecimal numbers have no limit in tomllib; one that Python cannot print is no crash."""
    with pytest.raises(ConfigErrors):
        parse(f"[hot.edge]\n{key} = 0x{'f' * 5000}", "long.toml")


def test_a_report_has_an_end() -> None:
    """A file with a mistake on each of 5,000 lines does not print them all."""
    with pytest.raises(ConfigErrors) as caught:
        parse("\n".join(f"key{number} = 1" for number in range(5000)), "long.toml")
    lines = caught.value.report().splitlines()
    assert len(lines) == 1002
    assert lines[-2:] == [
        "long.toml: ... and 4002 more",
        "long.toml: 5002 errors, nothing was changed",
    ]


def test_a_file_over_the_limit_is_refused_unread() -> None:
    """More than 1 MiB is not a configuration."""
    with pytest.raises(ConfigErrors, match="the limit is 1048576 bytes"):
        parse("#" * (1 << 20) + "\n", "large.toml")
