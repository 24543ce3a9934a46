"""Strict settings: every problem at once, each with its key and the nearest right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from dinogrl import config
from dinogrl.errors import RecipeError


class Inner(config.Section):
    margin: float = Field(0.2, ge=0)
    name: str = "a"


class Outer(config.Section):
    inner: Inner = Inner()
    maybe: Inner | None = None
    count: int = 1


def test_all_problems_at_once() -> None:
    values = {"inner": {"margn": 0.5, "margin": -1}, "count": "many", "cuont": 2}
    with pytest.raises(RecipeError) as caught:
        config.parse(Outer, values, "here")
    message = str(caught.value)
    assert message.startswith("here: 4 problem(s)")
    assert "unknown key 'inner.margn'; did you mean 'margin'?" in message
    assert "inner.margin:" in message and "given -1" in message
    assert "count:" in message and "given 'many'" in message
    assert "unknown key 'cuont'; did you mean 'count'?" in message
    assert "\n" not in message


def test_unknown_key_inside_an_optional_section() -> None:
    with pytest.raises(RecipeError, match=r"maybe\.\w*\.?margn'; did you mean 'margin'"):
        config.parse(Outer, {"maybe": {"margn": 0.5}}, "here")


def test_missing_key_is_named() -> None:
    class Needs(config.Section):
        name: str

    with pytest.raises(RecipeError, match="missing key 'name'"):
        config.parse(Needs, {}, "here")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_not_finite(value: float) -> None:
    with pytest.raises(RecipeError, match=r"inner\.margin: .*finite"):
        config.parse(Outer, {"inner": {"margin": value}}, "here")


def test_what_a_mapping_takes_from_another_is_not_twice_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert config.read_yaml(tmp_path / "a.yaml")["b"] == {"x": 3, "y": 2}


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Inner().margin = 0.5  # type: ignore[misc]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc", max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
MAPPING = st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3)


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in values.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) and value else {(*path, key): value}
    return found


@hypothesis.given(MAPPING, MAPPING)
def test_merge_keeps_all_that_lies_on_top(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = config.merge(base, over)
    for path, value in leaves(over).items():
        found: Any = merged
        for key in path:
            found = found[key]
        assert found == value or value == {}
    assert set(merged) == set(base) | set(over)
    assert config.merge(merged, over) == merged


def test_assignments() -> None:
    given = ["training.epochs=3", "training.batch.clips=2", "model.gait=null", "name=a=b", "model.pooling.stripes=[1, 2]"]
    assert config.assignments(given) == {
        "training": {"epochs": 3, "batch": {"clips": 2}},
        "model": {"gait": None, "pooling": {"stripes": [1, 2]}},
        "name": "a=b",
    }


@pytest.mark.parametrize("text", ["epochs", "=3", "a=[1", "a=" + "9" * 5000, "a=2026-13-01", "a=" + "[" * 3000])
def test_an_assignment_that_is_none(text: str) -> None:
    with pytest.raises(RecipeError):
        config.assignments([text])


def test_yaml_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="give the path of a YAML file"):
        config.read_yaml(tmp_path / "absent.yaml")
    for name, text, reason in [
        ("a", "x: [1", "not valid YAML"),
        ("b", "- 1", "found list"),
        ("c", "x: !!python/name:os.system", "not valid YAML"),
        ("d", "x: " + "9" * 5000, "not valid YAML"),
        ("e", "x: 2026-13-01", "not valid YAML"),
        ("f", "x: " + "[" * 3000 + "]" * 3000, "not valid YAML"),
        ("g", "x: {margin: 1, name: b, margin: 2}", "the key 'margin' stands twice .*line 1, column 25"),
    ]:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError, match=reason):
            config.read_yaml(path)
    (tmp_path / "empty.yaml").write_text("")
    assert config.read_yaml(tmp_path / "empty.yaml") == {}


@hypothesis.given(MAPPING)
def test_what_is_dumped_reads_back(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(config.dump_yaml(values))
    assert config.read_yaml(path) == values
