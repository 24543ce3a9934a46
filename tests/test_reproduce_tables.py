"""The paper's tables as runs: every row can be run, what is equal is shared, and digests know what matters."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dinogrl.data.datasets import open_dataset
from dinogrl.errors import RecipeError, UnknownNameError
from dinogrl.losses.objective import Objective
from dinogrl.models.backbones.priors import CONFIGS
from dinogrl.models.build import build_model
from dinogrl.recipes import load_recipe
from dinogrl.records import Dataset
from dinogrl.reproduce.cost import assumed_seconds
from dinogrl.reproduce.plan import Run, Settings, data_fingerprint, distinct_runs, plan_table, recipe_digest
from dinogrl.reproduce.tables import find_table, shipped_tables
from tiny_models import clips
from tiny_recipe import TINY

TABLES = {name: table for name, table in shipped_tables().items() if table.of_the_paper}
NOWHERE = Dataset("hitsz-vcm", Path("nowhere"), (), (), (), {}, {})
SMALL = (*TINY, "model.pooling.stripes=[1,2,4,8,16]", "model.enhancement.granularities=[2,4,8,16]")


def every_run(**settings: object) -> list[Run]:
    chosen = Settings(Path("out"), **settings)  # type: ignore[arg-type]
    return distinct_runs([line for name, table in TABLES.items() for line in plan_table(name, table, chosen, "data", NOWHERE)])


@pytest.mark.parametrize("run", every_run(recipe="demo_dinogrl", overrides=SMALL), ids=lambda run: run.recipe.name)
def test_every_row_takes_a_training_step(run: Run) -> None:
    model, (frames, modality) = build_model(run.recipe, 2).train(), clips(4, times=2)
    model.start_silhouette(frames)
    losses = Objective(run.recipe.objective)(model(frames, modality), torch.tensor([0, 0, 1, 1]))
    losses["total"].backward()
    assert losses["total"].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("base", ["dinogrl", "dinogrl-released", "demo_dinogrl"])
def test_rows_load_on_every_base_and_differ_from_each_other(base: str) -> None:
    for name, table in TABLES.items():
        lines = plan_table(name, table, Settings(Path("out"), recipe=base), "data", NOWHERE)
        runs = [line.runs for line in lines if line.runs]
        if not table.sweeps:  # the sweeps meet in the paper's own values
            digests = {run[0].folder for run in runs}
            assert len(digests) == len(runs) or base == "dinogrl-released", f"{name}: two rows are the same"
        assert all(run.folder.name.startswith(f"{base}-") and run.folder.name.endswith("-seed1") for run, *_ in runs)


def test_the_whole_method_is_one_run_in_all_tables() -> None:
    folders = []
    for name, table in TABLES.items():
        plain = load_recipe("dinogrl")
        for line in plan_table(name, table, Settings(Path("out")), "data", NOWHERE):
            folders += [run.folder for run in line.runs if recipe_digest(run.recipe, "data") == recipe_digest(plain, "data")]
    assert len(set(folders)) == 1
    assert len(folders) == 2 + 7 + 3, "table 1, table 2 with 6 frames, tables 3-9, three times in figure 4"
    sasgl = [
        line.runs for name in ("table3", "table9") for line in plan_table(name, TABLES[name], Settings(Path("out")), "d", NOWHERE)
    ]
    names = {run[0].recipe.name: run[0] for run in sasgl}
    assert names["table3 + SASGL"] == names["table9 none"]


def test_the_papers_numbers_of_the_whole_method_agree() -> None:
    full = {row.paper for name in TABLES for row in TABLES[name].rows[-1:] if name not in {"table2"}}
    assert full == {(72.5, 61.1, 76.1, 62.3)}


def test_other_priors_load_under_their_names() -> None:
    lines = plan_table("priors", shipped_tables()["priors"], Settings(Path("out")), "data", NOWHERE)
    priors = [run.recipe.model.gait.prior for line in lines for run in line.runs if run.recipe.model.gait is not None]
    assert len({(prior.name, prior.lora) for prior in priors}) == len(lines)
    for prior in priors:
        assert max(prior.blocks) < CONFIGS[prior.name]().num_hidden_layers


def test_seeds_epochs_and_the_users_own_changes() -> None:
    lines = plan_table(
        "table6", TABLES["table6"], Settings(Path("o"), 3, 7, None, ("objective.margin=0.4", "seed=5")), "data", NOWHERE
    )
    for line in lines:
        assert [run.recipe.seed for run in line.runs] == [5, 6, 7]
        assert len({run.folder.name.rsplit("-", 1)[0] for run in line.runs}) == 1
        assert all(run.recipe.training.epochs == 7 and run.recipe.objective.margin == 0.4 for run in line.runs)
    # a row is what it says, whatever the user changed
    contrary = Settings(Path("o"), overrides=("model.gait.joint=true", "model.gait.prior.height=224"))
    without = plan_table("table6", TABLES["table6"], contrary, "data", NOWHERE)[0].runs[0].recipe
    assert without.model.gait is not None and not without.model.gait.joint
    assert plan_table("table3", TABLES["table3"], contrary, "data", NOWHERE)[0].runs[0].recipe.model.gait is None


def test_first_seeds_come_first_and_a_row_has_the_commands_that_make_it() -> None:
    runs = distinct_runs(plan_table("table3", TABLES["table3"], Settings(Path("o"), 2), "data", NOWHERE))
    assert [run.recipe.seed for run in runs] == [1] * 4 + [2] * 4
    for run in runs:
        train, evaluate = run.commands(Path("d"))
        assert load_recipe(run.words[0], run.words[1:]) == run.recipe
        assert train.startswith("dinogrl train dinogrl ") and str(run.folder) in train and str(run.folder) in evaluate


def test_granularities_are_those_of_the_base_recipe() -> None:
    labels = [line.label for line in plan_table("table8", TABLES["table8"], Settings(Path("o")), "d", NOWHERE)]
    assert labels == ["2", "2, 4", "2, 4, 8", "2, 4, 8, 16"]
    demo = plan_table("table8", TABLES["table8"], Settings(Path("o"), recipe="demo_dinogrl"), "d", NOWHERE)
    assert [line.label for line in demo] == ["2", "2, 3", "2, 3, 6"]
    with pytest.raises(RecipeError, match="has no enhancement"):
        plan_table("table8", TABLES["table8"], Settings(Path("o"), recipe="baseline"), "d", NOWHERE)


def test_digest_knows_what_a_run_learns_from() -> None:
    base = load_recipe("demo_dinogrl")
    digest = recipe_digest(base, "data")
    for same in ("name=other", "seed=4", "preset=x", "training.device=cpu", "data.workers=0", "training.checkpoint_minutes=1"):
        assert recipe_digest(load_recipe("demo_dinogrl", [same]), "data") == digest
    for other in ("training.epochs=3", "data.frames=5", "model.gait=null model.enhancement=null", "evaluation.distance=cosine"):
        assert recipe_digest(load_recipe("demo_dinogrl", other.split()), "data") != digest
    assert recipe_digest(base, "other data") != digest


def test_fingerprint_of_the_data_follows_its_content_and_not_its_place(tiny_world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_world, copy)
    dataset, copied = open_dataset(tiny_world), open_dataset(copy)
    assert data_fingerprint(dataset) == data_fingerprint(copied)
    assert data_fingerprint(replace(dataset, train=dataset.train[1:])) != data_fingerprint(dataset)
    assert data_fingerprint(replace(dataset, query=dataset.query[1:])) != data_fingerprint(dataset)
    frame = copied.train[0].path(0)
    frame.write_bytes(frame.read_bytes() + b"x")
    assert data_fingerprint(open_dataset(copy)) != data_fingerprint(dataset)


def test_assumed_seconds_grow_with_the_work() -> None:
    paper, demo = assumed_seconds(load_recipe("dinogrl")), assumed_seconds(load_recipe("demo_dinogrl"))
    assert paper > 100 * demo > 0
    assert assumed_seconds(load_recipe("dinogrl", ["data.frames=12"])) == pytest.approx(2 * paper)
    assert assumed_seconds(load_recipe("baseline")) < paper


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("title: x\n", "needs rows or sweeps"),
        ("title: x\nrows: [{labl: a}]\n", "did you mean 'label'"),
        ("title: x\nrows: [{overrides: [a=1]}]\n", "a row needs a label"),
        ("title: x\nrows: [{label: a, without_masks: [a=1]}]\n", "give masks too"),
        ("title: x\nrows: [{label: a}, {label: a}]\n", "different labels"),
        ("title: x\nrows: [{label: a, paper: [1, 2]}]\n", "paper"),
        ("- 1\n", "expected a mapping"),
    ],
)
def test_a_table_of_ones_own_with_a_mistake(content: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(RecipeError, match=hint):
        find_table(str(tmp_path / "mine.yaml"))


def test_unknown_tables_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'table3'"):
        find_table("tabel3")


def test_rows_of_masks_are_run_where_the_masks_are(tmp_path: Path) -> None:
    lines = {
        line.label: line
        for line in plan_table("table7", TABLES["table7"], Settings(Path("o")), "d", replace(NOWHERE, root=tmp_path))
    }
    assert [label for label, line in lines.items() if line.runs] == ["DINOv2"] and "no masks at" in lines["SCHP"].lacking
    (tmp_path / "masks" / "schp").mkdir(parents=True)
    lines = {
        line.label: line
        for line in plan_table("table7", TABLES["table7"], Settings(Path("o")), "d", replace(NOWHERE, root=tmp_path))
    }
    recipe = lines["SCHP"].runs[0].recipe
    assert recipe.data.masks == "masks/schp" and recipe.model.gait is not None and recipe.model.gait.silhouette == "masks"
    assert not lines["Grapy-ML"].runs


def test_the_enhancement_alone_reads_the_parser_of_table_7_where_there_is_one(tmp_path: Path) -> None:
    def run(table: str, label: str) -> Run:
        lines = plan_table(table, TABLES[table], Settings(Path("o")), "d", replace(NOWHERE, root=tmp_path))
        return next(line.runs[0] for line in lines if line.label == label)

    gait = run("table3", "+ PBMGE").recipe.model.gait
    assert gait is not None and gait.silhouette == "plain"
    (tmp_path / "masks" / "grapy-ml").mkdir(parents=True)
    assert run("table3", "+ PBMGE") == run("table7", "Grapy-ML")
    before = run("table3", "+ PBMGE")
    (tmp_path / "masks" / "grapy-ml" / "parser.json").write_text('{"parser": "grapy-ml cihp 0123"}')
    assert run("table3", "+ PBMGE").folder != before.folder, "masks of other weights are another run"


def test_the_published_protocol_holds_on_the_published_dataset_only() -> None:
    real = replace(NOWHERE, name="buptcampus")
    for dataset, expected in ((real, "buptcampus-legacy"), (replace(real, simulated=True), "auto"), (NOWHERE, "auto")):
        lines = plan_table("table2", TABLES["table2"], Settings(Path("o")), "d", dataset)
        assert {line.runs[0].recipe.evaluation.protocol for line in lines} == {expected}
        assert [line.runs[0].recipe.data.frames for line in lines] == [6, 10]
    own = Settings(Path("o"), overrides=("evaluation.protocol=buptcampus-full",))
    lines = plan_table("table2", TABLES["table2"], own, "d", real)
    assert lines[0].runs[0].recipe.evaluation.protocol == "buptcampus-full"
