from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automl_prune.errors import ConfigError
from automl_prune.yaml_file import overridden, parse, read_mapping, to_yaml

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no clock decides a test
@given(st.dictionaries(TEXT, PLAIN, max_size=4))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    again = parse(to_yaml(value), "a test")
    assert again == value
    assert repr(again) == repr(value)  # 1 is not 1.0, nor True


@pytest.mark.parametrize(
    ("text", "value"), [("5e-4", 5e-4), ("1E3", 1000.0), ("-2.5e+1", -25.0), ("'5e-4'", "5e-4"), ("1e", "1e"), ("7", 7)]
)
def test_numbers_with_exponents_are_numbers_and_quoted_ones_text(text: str, value: object) -> None:
    assert parse(text, "a test") == value
    assert type(parse(text, "a test")) is type(value)


def test_texts_that_look_like_numbers_stay_texts() -> None:
    assert parse(to_yaml({"macs": "1e6", "commit": "12e5"}), "a test") == {"macs": "1e6", "commit": "12e5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 2\nd: [", r"config\.yaml, line 3, column 2: not valid YAML"),
        ("a:\n\tb: 1", r"line 2, column 1"),
        ("a: 1\nb: 2\na: 3", r"line 3, column 1: .*the key 'a' is given twice"),
        ("a: {b: 1, b: 2}", r"the key 'b' is given twice"),
        ("a: !!python/object:os.system {}", r"line 1, column 4"),
        ("- 1", r"holds a list .*; expected a thing"),
        ("", r"is empty; expected a thing"),
        ("when: 2026-02-31", r"not valid YAML: day is out of range"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(path, "a thing")


def test_merged_keys_may_be_given_again() -> None:
    assert parse("base: &b {x: 1, y: 2}\nmine: {<<: *b, x: 3}", "a test")["mine"] == {"x": 3, "y": 2}


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist; give the path of a thing"):
        read_mapping(tmp_path / "none.yaml", "a thing")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mapping(tmp_path, "a thing")
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mapping(tmp_path / "latin", "a thing")


def test_an_override_replaces_one_key_of_a_copy() -> None:
    values = {"a": {"b": 1, "c": 2}, "d": None}
    assert overridden(values, "a.b=[x, 2]") == {"a": {"b": ["x", 2], "c": 2}, "d": None}
    assert overridden(values, "d.e.f=1e-3") == {"a": {"b": 1, "c": 2}, "d": {"e": {"f": 1e-3}}}
    assert overridden(values, "a=x=y") == {"a": "x=y", "d": None}
    assert overridden(values, "a=") == {"a": None, "d": None}
    assert values == {"a": {"b": 1, "c": 2}, "d": None}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "write it as section.key=value"),
        ("=1", "write it as section.key=value"),
        ("a..b=1", "write it as section.key=value"),
        ("a.b.c=1", "'b' is 1, not a section"),
        ("a.b=[", "not valid YAML"),
    ],
)
def test_a_malformed_override_is_quoted(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        overridden({"a": {"b": 1}}, override)
    assert repr(override) in str(caught.value)
