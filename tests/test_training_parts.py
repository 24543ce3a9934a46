"""Schedules, journal and the held-out split, each against numbers worked out by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dinogrl.errors import DataError, TrainingError
from dinogrl.models.backbones.resnet import Layers
from dinogrl.recipes import load_recipe
from dinogrl.recipes.schema import Training
from dinogrl.records import Modality, Tracklet
from dinogrl.training import journal as journal_module
from dinogrl.training.holdout import split_identities
from dinogrl.training.journal import Journal, Step
from dinogrl.training.optimisers import make_optimiser
from dinogrl.training.run import make_fabric
from dinogrl.training.schedules import learning_rate
from dinogrl.training.state import Position, load_state, save_state
from dinogrl.training.tuning import tune
from tiny_models import clips, tiny_model, tiny_recipe


def test_paper_schedule() -> None:
    recipe = Training()
    assert learning_rate(recipe, 0) == pytest.approx(3.5e-6)
    assert learning_rate(recipe, 5) == learning_rate(recipe, 5.9) == pytest.approx(3.5e-4 * (0.01 + 0.99 * 0.5))
    assert [learning_rate(recipe, epoch) for epoch in (10, 34.9, 35, 79, 80, 199)] == pytest.approx(
        [3.5e-4, 3.5e-4, 3.5e-5, 3.5e-5, 3.5e-6, 3.5e-6]
    )


def test_published_schedule_table(shared: Path) -> None:
    with np.load(shared / "reference" / "golden" / "losses.npz") as file:
        table = file["lr_per_epoch"]
    recipe = Training(milestones=(40, 70))
    assert [learning_rate(recipe, epoch) for epoch in range(100)] == pytest.approx(table.tolist(), rel=1e-9)


def test_cosine_ends_at_zero_and_is_smooth() -> None:
    recipe = Training(epochs=20, warmup_epochs=2, schedule="cosine", learning_rate=1.0)
    assert learning_rate(recipe, 1) == pytest.approx(0.01 + 0.99 * 0.5)
    assert learning_rate(recipe, 2) == pytest.approx(1.0)
    assert learning_rate(recipe, 11) == pytest.approx(0.5)
    assert learning_rate(recipe, 20) == pytest.approx(0.0, abs=1e-12)


def one_step(number: int, total: float) -> Step:
    return Step(0, number, 0.1, {"mask": torch.tensor(1.0), "total": torch.tensor(total)}, ["0001/D1/t3", "0002/D2/t9"])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_journal_writes_a_row_a_step_and_rewinds(tmp_path: Path) -> None:
    journal = Journal(tmp_path, every=2)
    for number in range(5):
        journal.add(one_step(number, 2.0))
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]
    journal.flush()
    for half in ("0,5,0.", "0,1", "0"):  # the writer was killed in the middle of a row
        with (tmp_path / "log.csv").open("a") as file:
            file.write(half)
        journal.rewind(3)
        assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2"]
    journal.add(one_step(3, 1.0))
    journal.flush()
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]
    journal.rewind(0)  # killed before its first checkpoint, the run begins anew
    journal.add(one_step(0, 1.0))
    journal.flush()
    assert [row["step"] for row in rows(tmp_path)] == ["0"]
    journal.close()


def test_journal_tells_the_latest_step_and_draws_every_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([100.0, 106.0, 106.0])  # made; two steps later
    monkeypatch.setattr(journal_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    journal = Journal(tmp_path, every=2)
    journal.add(one_step(7, 2.0))
    assert journal.latest == {}
    journal.add(one_step(8, 3.0))
    assert journal.latest == {"mask": 1.0, "total": 3.0, "learning_rate": 0.1, "seconds": 3.0}
    journal.score("mAP", 0.5, 9)
    journal.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    drawn = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert drawn.pop("train/learning_rate") == [(7, pytest.approx(0.1)), (8, pytest.approx(0.1))]
    assert drawn == {"train/mask": [(7, 1.0), (8, 1.0)], "train/total": [(7, 2.0), (8, 3.0)], "holdout/mAP": [(9, 0.5)]}


@pytest.mark.parametrize(
    ("totals", "rise"),
    [
        ([5.0, 7.0] + [9.0] * 16 + [7.0, 9.0], (5.0, 8.0)),
        ([5.0, 1.0] + [9.0] * 16 + [7.0, 7.9], None),
        ([1.0] * 9 + [9.0] * 10, None),  # too short to tell
        ([], None),
    ],
)
def test_a_loss_that_ends_above_its_beginning_is_told(
    totals: list[float], rise: tuple[float, float] | None, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, every=1)
    for number, total in enumerate(totals):
        journal.add(one_step(number, total))
    assert journal.rise() == rise
    journal.close()


def test_a_loss_that_is_not_finite_stops_and_names_the_tracklets(tmp_path: Path) -> None:
    journal = Journal(tmp_path, every=3)
    journal.add(one_step(0, 1.0))
    journal.add(one_step(1, float("nan")))
    with pytest.raises(TrainingError, match=r"step 1 .*0001/D1/t3, 0002/D2/t9") as error:
        journal.add(one_step(2, 1.0))
    assert "\n" not in str(error.value)


def tracklets(identities: int) -> list[Tracklet]:
    return [Tracklet(f"{i}-{m}", i, 0, m, "/", ("x.jpg",)) for i in range(identities) for m in Modality]


def test_held_out_identities_are_apart_and_depend_on_the_seed_alone() -> None:
    people = tracklets(20)
    pairs = [(2 * i, 2 * i + 1) for i in range(20)]
    split = split_identities(people, pairs, 0.2, seed=3)
    held = {t.identity for t in split.held}
    assert len(held) == 4 and held.isdisjoint({t.identity for t in split.fit})
    assert len(split.fit) + len(split.held) == len(people)
    assert {t.identity for t in split_identities(people[::-1], [], 0.2, seed=3).held} == held
    assert {t.identity for t in split_identities(people, [], 0.2, seed=4).held} != held
    for a, b in split.pairs:
        assert split.fit[a].identity == split.fit[b].identity and split.fit[a].modality != split.fit[b].modality
    assert len(split.pairs) == 16


def test_two_are_held_out_at_least_and_two_are_left() -> None:
    for people, share in ((10, 0.01), (4, 0.5), (4, 0.01)):
        assert len({t.identity for t in split_identities(tracklets(people), [], share, seed=1).held}) == 2


def test_nobody_is_held_out_for_the_last_epoch() -> None:
    assert split_identities(tracklets(4), [], 0.0, seed=1).held == []


def test_too_few_identities_to_hold_out() -> None:
    with pytest.raises(DataError, match="selection=last"):
        split_identities(tracklets(3), [], 0.5, seed=1)
    for share in (0.0, 0.2):
        with pytest.raises(DataError, match=r"has 1 identity.* from two or more") as caught:
            split_identities(tracklets(1), [], share, seed=1)
        assert "hold out" not in str(caught.value), "whoever is alone cannot be trained on at all"


def test_recipe_says_how_the_resnets_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Layers] = []
    monkeypatch.setattr(Layers, "compile", lambda layers: compiled.append(layers))
    network = tiny_model("dinogrl")
    tune(network, Training(recompute=True))
    resnets = [part for part in network.modules() if isinstance(part, Layers)]
    assert [layers.recompute for layers in resnets] == [3, 3] and not compiled  # the last layer's results are wanted at once
    gait, appearance = network.gait, network.appearance
    assert gait is not None
    assert all(part.recompute for part in (gait.priors["gait"], *gait.encoders.values(), gait.fusion, *appearance.stems))
    tune(network, Training(compile=True))
    assert compiled == resnets and not any(layers.recompute for layers in resnets)


def test_a_whole_network_learns_the_same_with_recompute() -> None:
    """Every gradient and every running statistic, to the last digits of float64."""
    seen = []
    for recompute in (False, True):
        network = tiny_model("dinogrl").double().train()
        tune(network, Training(recompute=recompute))
        frames, modality = clips()
        torch.manual_seed(3)  # of what is dropped
        output = network(frames.double(), modality)
        assert output.logits is not None
        (output.logits.square().mean() + output.parts.square().mean()).backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        seen.append({**gradients, **dict(network.named_buffers())})
    kept, again = seen
    assert kept.keys() == again.keys() and len(kept) > 100
    for name, value in kept.items():
        torch.testing.assert_close(again[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(("precision", "kind"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_precision_is_the_recipes_and_is_not_announced(precision: str, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_fabric.connector.rank_zero_info", pytest.fail)
    fabric = make_fabric(load_recipe("demo_baseline", [f"training.precision={precision}", "training.device=cpu"]))
    with fabric.autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype is kind


def test_a_state_comes_back_whole_and_to_its_own_recipe_alone(tmp_path: Path) -> None:
    recipe = tiny_recipe("baseline")
    networks = [tiny_model("baseline", seed=seed).to(memory_format=torch.channels_last) for seed in (0, 1)]
    before, after = [make_optimiser(network, recipe.training) for network in networks]
    frames, modality = clips()
    networks[0].train()(frames, modality).logits.square().mean().backward()
    before.step()
    position = Position(3, 1, 7, {"score": 0.5, "epoch": 2.0})
    save_state(tmp_path / "state", position, networks[0], before, recipe)
    longer = tiny_recipe("baseline", "training.epochs=300", "data.workers=1")
    assert load_state(tmp_path / "state", networks[1], after, longer) == position
    for name, value in networks[0].state_dict().items():
        assert torch.equal(networks[1].state_dict()[name], value), name
    pairs = list(zip(networks[0].parameters(), networks[1].parameters(), strict=True))
    moments = [(before.state[a][slot], after.state[b][slot]) for a, b in pairs for slot in before.state[a]]
    assert len(moments) == 3 * len(pairs) and all(torch.equal(a, b) for a, b in moments)
    # the fused step walks weight and moment side by side through memory
    assert all(after.state[b]["exp_avg"].stride() == b.stride() for _, b in pairs)
    for change in ("data.frames=2", "seed=5", "training.learning_rate=0.1"):
        with pytest.raises(TrainingError, match=rf"another recipe \({change.split('=')[0]} was"):
            load_state(tmp_path / "state", networks[1], after, tiny_recipe("baseline", change))


def test_a_state_of_other_people_is_refused_in_one_line(tmp_path: Path) -> None:
    recipe = tiny_recipe("baseline")
    five, seven = tiny_model("baseline", identities=5), tiny_model("baseline", identities=7)
    save_state(tmp_path / "state", Position(), five, make_optimiser(five, recipe.training), recipe)
    with pytest.raises(
        TrainingError, match=r"other training data.*appearance_neck.weight was \(31, 12, 5\), now \(31, 12, 7\)"
    ) as error:
        load_state(tmp_path / "state", seven, make_optimiser(seven, recipe.training), recipe)
    assert "\n" not in str(error.value)
