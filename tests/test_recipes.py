"""Every shipped recipe loads, resolves to itself, and a typo in any of its keys is caught with the right word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dinogrl import config
from dinogrl.errors import RecipeError, UnknownNameError
from dinogrl.recipes import Recipe, dump_recipe, load_recipe, recipe_from_values, recipe_names, recipe_summary

SHIPPED = Path(__file__).resolve().parents[1] / "src" / "dinogrl" / "recipes"
PAPER = load_recipe("dinogrl")


def keys(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys(value, (*path, key))


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_whole(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name.removeprefix("demo_"), "a preset bears the name of the recipe that it makes small"
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe, "a resolved recipe, read again, is the same recipe"
    assert recipe_from_values(recipe.model_dump(mode="json"), "itself") == recipe
    assert len(recipe_summary(name)) > 10, "a recipe begins with a comment that says what it is"


@pytest.mark.parametrize("key", sorted(keys(PAPER.model_dump(mode="json"))), ids=".".join)
def test_a_typo_in_any_key_is_an_error(key: tuple[str, ...]) -> None:
    wrong = key[-1] + "x"
    with pytest.raises(RecipeError, match=f"unknown key '[^']*{wrong}'; did you mean") as caught:
        load_recipe("dinogrl", [f"{'.'.join((*key[:-1], wrong))}=1"])
    assert repr(key[-1]) in str(caught.value) or key[-1] in str(caught.value)


def test_the_papers_figures() -> None:
    """Section 4.2 of the paper."""
    batch, training, objective = PAPER.training.batch, PAPER.training, PAPER.objective
    assert (batch.identities, batch.clips) == (8, 4)
    assert (PAPER.data.height, PAPER.data.width, PAPER.data.frames) == (256, 128, 6)
    assert (training.epochs, training.milestones) == (200, (35, 80))
    assert (objective.mask, objective.smoothness, objective.diversity) == (1.0, 0.02, 5.0)
    assert PAPER.model.enhancement is not None and PAPER.model.enhancement.granularities == (2, 4, 8, 16)
    assert PAPER.model.gait is not None and PAPER.model.gait.prior.name == "dinov2_vits14"


def test_the_rows_of_table_3_differ_only_in_their_parts() -> None:
    for name in ("baseline", "dinogrl_sasgl", "dinogrl_pbmge"):
        row = load_recipe(name)
        assert row.model_copy(update={"name": PAPER.name, "model": PAPER.model}) == PAPER
    assert load_recipe("baseline").model.gait is None
    assert load_recipe("dinogrl_sasgl").model.enhancement is None and load_recipe("dinogrl_sasgl").model.gait == PAPER.model.gait
    plain = load_recipe("dinogrl_pbmge").model
    assert plain.enhancement == PAPER.model.enhancement and plain.gait is not None and plain.gait.silhouette == "plain"


def test_overrides_and_extends(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: dinogrl\ntraining:\n  epochs: 3\n")
    recipe = load_recipe(mine, ["training.batch.clips=2"])
    assert (recipe.name, recipe.training.epochs, recipe.training.batch.clips) == ("mine", 3, 2)
    assert recipe.model == PAPER.model
    further = tmp_path / "further.yaml"
    further.write_text("extends: mine\nseed: 5\n")
    assert (load_recipe(further).training.epochs, load_recipe(further).seed) == (3, 5)
    (tmp_path / "deeper").mkdir()
    for number, parent in enumerate(["../further.yaml", str(further)]):  # as seen from the file, wherever one stands
        deepest = tmp_path / "deeper" / f"{number}.yml"
        deepest.write_text(f"extends: {parent}\ntraining:\n  warmup_epochs: 1\n")
        found = load_recipe(deepest)
        assert (found.training.epochs, found.seed, found.training.warmup_epochs) == (3, 5, 1)


def test_a_recipe_that_extends_itself(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(RecipeError, match="extends itself"):
        load_recipe(tmp_path / "a.yaml")


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'baseline'"):
        load_recipe("basline")
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe("absent.yaml")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.gait=null", "enhancement needs the gait stream"),
        ("model.pooling.stripes=[2,4]", "start with 1"),
        ("model.pooling.stripes=[1,2,4,8,16,0]", "numbers from 1 on"),
        ("training.milestones=[-1]", "greater than 0"),
        ("model.gait.priors=[]", "at least 1 item"),
        ("model.pooling.stripes=[1,2,4]", "not among pooling.stripes"),
        ("model.gait.prior.height=450", "multiples of the patch size 14"),
        (f"seed={2**64}", f"less than {2**64}"),
        ("data.frames=0", "greater than or equal to 1"),
        ("training.epochs=three", "valid integer"),
    ],
)
def test_a_combination_that_cannot_be(override: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        load_recipe("dinogrl", [override])


def test_every_knob_has_a_sentence() -> None:
    """A field's documentation is its sentence; only a few names speak for themselves."""
    plain = {
        "seed",
        "data",
        "model",
        "objective",
        "training",
        "evaluation",
        "augment",
        "appearance",
        "gait",
        "pooling",
        "enhancement",
    }
    plain |= {"prior", "epochs", "batch", "optimiser", "learning_rate", "weight_decay", "device", "precision"}

    def silent(kind: type[config.Section]) -> Iterator[str]:
        for name, field in kind.model_fields.items():
            if not field.description and name not in plain:
                yield f"{kind.__name__}.{name}"
            for inner in config._types_of(field.annotation):
                if isinstance(inner, type) and issubclass(inner, config.Section):
                    yield from silent(inner)

    assert not list(silent(Recipe))


def test_recipe_files_are_all_found() -> None:
    assert recipe_names() == sorted(path.stem for path in SHIPPED.glob("*.y*ml"))
    assert {"dinogrl", "baseline", "dinogrl_sasgl", "dinogrl_pbmge"} <= set(recipe_names())
