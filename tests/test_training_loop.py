"""The loop and the optimisers on a network of one number, each step worked out by hand."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dinogrl import distributed
from dinogrl.recipes import Recipe, load_recipe
from dinogrl.training import loop
from dinogrl.training.journal import Step
from dinogrl.training.loop import Progress, Trainer
from dinogrl.training.optimisers import make_optimiser
from dinogrl.training.state import Position

PLAIN = ("training.optimiser=sgd", "training.momentum=0", "training.weight_decay=0", "training.learning_rate=1")
STEADY = ("training.warmup_epochs=0", "training.milestones=[]")


class OneNumber(nn.Module):
    """w x"""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


@dataclass
class OneClip:
    """What the loop asks of a batch: the number x, which is the gradient of the loss w x."""

    x: float
    tracklet_ids: tuple[str, ...] = ()
    identity: None = None

    @property
    def inputs(self) -> tuple[Tensor]:
        return (torch.tensor(self.x),)

    def to(self, _: object) -> OneClip:
        return self


@dataclass
class Gradients:
    """Every epoch has the same batches."""

    numbers: tuple[float, ...]
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.numbers)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[OneClip]:
        self.asked.append((epoch, start_step))
        return iter([OneClip(x, (f"clip {x:g}",)) for x in self.numbers[start_step:]])


class OneProcess:
    """What the loop asks of Fabric."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.alone: list[bool] = []

    def no_backward_sync(self, *_: object, enabled: bool) -> AbstractContextManager[None]:
        self.alone.append(enabled)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_gradients(self, model: nn.Module, _: object, max_norm: float, error_if_nonfinite: bool) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite)


@dataclass
class Kept:
    """What the loop asks of a journal; and what it wrote down, and when."""

    steps: list[Step] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    saved: list[Position] = field(default_factory=list)
    latest: dict[str, float] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        self.steps.append(step)

    def flush(self) -> None:
        self.order.append("losses")

    def save(self, _: Path, position: Position, *__: object) -> None:
        self.order.append("state")
        self.saved.append(copy.deepcopy(position))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    journal = Kept()
    monkeypatch.setattr(loop, "save_state", journal.save)
    return journal


@dataclass
class Seen:
    """Weight, learning rate and a random number after every step; what the loader and Fabric were asked."""

    weights: list[float]
    rates: list[float]
    draws: list[float]
    epochs: list[tuple[int, int]]
    alone: list[bool]


def trained(
    numbers: tuple[float, ...], *overrides: str, journal: Kept | None = None, start: Position | None = None, **more: Any
) -> Seen:
    recipe: Recipe = load_recipe("baseline", [*PLAIN, *STEADY, *overrides])
    network, fabric, batches = OneNumber(), OneProcess(), Gradients(numbers)
    seen = Seen([], [], [], batches.asked, fabric.alone)
    optimiser = make_optimiser(network, recipe.training)

    class Watching(Trainer):
        def _write(self, step: Any, *rest: Any) -> None:
            super()._write(step, *rest)
            seen.weights.append(round(float(network.weight.detach()), 6))
            seen.rates.append(step.learning_rate)
            seen.draws.append(float(torch.rand(())))

    Watching(
        fabric=fabric,
        network=network,
        model=network,
        optimiser=optimiser,
        objective=lambda output, _: {"total": output},  # type: ignore[arg-type]
        batches=batches,  # type: ignore[arg-type]
        recipe=recipe,
        journal=journal,  # type: ignore[arg-type]
        state_file=Path("never"),
        **more,
    ).fit(start or Position())
    return seen


def test_a_step_goes_down_the_gradient_of_its_own_batch() -> None:
    assert trained((1.0, 2.0, 4.0), "training.epochs=1").weights == [-1, -3, -7]


def test_accumulated_batches_count_by_their_mean() -> None:
    assert trained((1.0, 3.0, 4.0, 6.0), "training.epochs=1", "training.batch.accumulate=2").weights == [-2, -7]


def test_the_loader_is_asked_for_what_is_still_to_do_in_every_epoch() -> None:
    """It counts batches, the position counts steps."""
    numbers = (1.0, 3.0, 4.0, 6.0, 7.0, 9.0)
    seen = trained(numbers, "training.epochs=4", "training.batch.accumulate=2", start=Position(epoch=1, step=2, total=5))
    assert seen.epochs == [(1, 4), (2, 0), (3, 0)]
    assert seen.weights[0] == -8 and len(seen.weights) == 1 + 3 + 3


def test_processes_share_the_gradient_of_a_steps_last_batch_alone() -> None:
    assert trained((1.0, 3.0, 4.0, 6.0), "training.epochs=1", "training.batch.accumulate=2").alone == [True, False] * 2


def test_a_step_is_written_down_with_the_mean_of_its_batches_and_all_their_tracklets(kept: Kept) -> None:
    trained((1.0, 3.0, 4.0, 6.0), "training.epochs=2", "training.batch.accumulate=2", journal=kept)
    written = [(step.epoch, step.step, float(step.losses["total"])) for step in kept.steps]
    assert written == [(0, 0, 0), (0, 1, -2 * 5), (1, 2, -7 * 2), (1, 3, -9 * 5)]
    assert [step.tracklet_ids for step in kept.steps[:2]] == [["clip 1", "clip 3"], ["clip 4", "clip 6"]]


def test_a_state_is_kept_when_it_is_time_after_the_losses_so_far_and_after_every_epoch(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, told = [0.0], list[tuple[int, int]]()

    def watch(progress: Progress) -> None:
        seconds[0] += 50
        told.append((progress.done, progress.total))

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    trained((1.0,) * 5, "training.epochs=2", "training.checkpoint_minutes=2", journal=kept, watch=watch)
    assert [(p.epoch, p.step, p.total) for p in kept.saved] == [(0, 3, 3), (1, 0, 5), (1, 3, 8), (2, 0, 10)]
    assert kept.order == ["losses", "state"] * 4
    assert told == [(done, 10) for done in range(1, 11)]


def test_held_out_people_are_looked_at_when_due_and_the_best_look_is_kept_at_once(kept: Kept) -> None:
    looks, scores = list[tuple[int, int]](), iter([0.3, 0.5, 0.4])

    def look(epoch: int, total: int) -> dict[str, float]:
        looks.append((epoch, total))
        return {"score": next(scores)}

    trained((1.0, 2.0), "training.epochs=5", "training.holdout_every=2", journal=kept, look=look)
    assert looks == [(2, 4), (4, 8), (5, 10)]
    first, best = {"score": 0.3, "epoch": 2}, {"score": 0.5, "epoch": 4}
    assert [position.best for position in kept.saved] == [{}, first, first, best, best]


def test_gradients_are_clipped_where_the_recipe_says_so() -> None:
    assert trained((0.5, 8.0), "training.epochs=1", "training.clip_gradient=2").weights == [-0.5, -2.5]


def test_the_learning_rate_follows_the_steps_inside_an_epoch() -> None:
    rates = trained((0.0, 0.0), "training.epochs=2", "training.schedule=cosine").rates
    assert rates == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_every_step_draws_its_own_random_numbers_and_every_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained((0.0, 0.0), "training.epochs=2").draws
    assert trained((0.0, 0.0), "training.epochs=2").draws == first
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    second = trained((0.0, 0.0), "training.epochs=2").draws
    assert len({*first, *second}) == 8


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_weight_decay_pulls_where_no_loss_does(optimiser: str) -> None:
    recipe = load_recipe("baseline", [f"training.optimiser={optimiser}", "training.weight_decay=0.1", "training.learning_rate=0.5"])
    network = OneNumber()
    nn.init.ones_(network.weight)
    frozen = nn.Parameter(torch.ones(()), requires_grad=False)
    network.register_parameter("frozen", frozen)
    step = make_optimiser(network, recipe.training)
    network.weight.grad = torch.zeros(())
    step.step()
    # Adam takes the pull for a gradient and steps by the rate whatever its size; AdamW multiplies; Nesterov adds 0.9 of the pull
    wanted = {"adam": 0.5, "adamw": 1 - 0.5 * 0.1, "sgd": 1 - 0.5 * (0.1 + 0.9 * 0.1)}[optimiser]
    assert network.weight.item() == pytest.approx(wanted, rel=1e-5)
    assert frozen.item() == 1 and len(step.param_groups[0]["params"]) == 1


def test_momentum_is_the_recipes() -> None:
    """Nesterov: w <- w - (g + m v), v <- m v + g, of a gradient of 1."""
    assert trained((1.0, 1.0), "training.epochs=1", "training.momentum=0.5").weights == [-1.5, -3.25]


def test_processes_whose_clocks_differ_wait_for_each_other_at_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for whom it is time to save must not wait alone: the next to wait would answer it, and both would go on mixed up."""
    waits = []
    for seconds_between_looks in (1, 1000):
        clock, waited = itertools.count(step=seconds_between_looks), list[int]()
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=partial(next, clock)))
        monkeypatch.setattr(distributed, "barrier", partial(waited.append, 1))
        trained((1.0, 2.0, 4.0), "training.epochs=2", "training.checkpoint_minutes=10")
        waits.append(waited)
    assert waits[0] == waits[1]


def test_the_tensors_that_are_not_finite_are_named_and_the_device_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Tensor, "tolist", lambda tensor, read=Tensor.tolist: asked.append(tensor.shape) or read(tensor))
    monkeypatch.setattr(Tensor, "__bool__", lambda _: pytest.fail("asked of one tensor alone"))
    tensors = {
        "good": torch.ones(3),
        "nan": torch.tensor([1, float("nan")]),
        "steps": torch.tensor(7),
        "far": torch.tensor(-float("inf")),
    }
    assert loop._not_finite(tensors) == ["nan", "far"]
    assert asked == [(4,)]
