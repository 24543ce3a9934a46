"""Losses against slow loops, against stored numbers of the published code, and by their properties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.losses import silhouette
from dinogrl.losses.identity import identity_accuracy, identity_loss
from dinogrl.losses.objective import Objective
from dinogrl.losses.triplet import PAIR_DISTANCES, euclidean, triplet_loss_of_parts
from dinogrl.recipes import schema
from dinogrl.records import ModelOutput, SilhouetteMaps


def literal_triplet(parts: torch.Tensor, identity: list[int], margin: float, square: bool) -> list[float]:
    values = []
    for p in range(parts.shape[1]):
        hinges = []
        for a, b, c in itertools.product(range(len(identity)), repeat=3):
            if identity[a] == identity[b] and identity[a] != identity[c]:
                near = float((parts[a, p] - parts[b, p]).norm())
                far = float((parts[a, p] - parts[c, p]).norm())
                near, far = (near**2, far**2) if square else (near, far)
                hinges.append(max(0.0, near - far + margin))
        kept = [h for h in hinges if h > 0]
        values.append(sum(kept) / len(kept) if kept else 0.0)
    return values


@settings(max_examples=25, deadline=None)
@given(
    identity=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    seed=st.integers(0, 1000),
    form=st.sampled_from(["euclidean", "squared"]),
)
def test_triplet_equals_the_list_of_triplets(identity: list[int], seed: int, form: str) -> None:
    parts = torch.randn(len(identity), 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fast = triplet_loss_of_parts(parts, torch.tensor(identity), margin=0.3, distance=PAIR_DISTANCES[form])
    torch.testing.assert_close(
        fast, torch.tensor(literal_triplet(parts, identity, 0.3, form == "squared"), dtype=torch.float64), atol=1e-6, rtol=1e-6
    )


def test_triplet_of_equal_vectors_is_the_margin_and_has_a_finite_gradient() -> None:
    parts = torch.ones(4, 1, 8, requires_grad=True)
    loss = triplet_loss_of_parts(parts, torch.tensor([0, 0, 1, 1]), margin=0.2, distance=euclidean).mean()
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    assert torch.isfinite(parts.grad).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_triplet_of_half_precision_is_computed_in_full(kind: torch.dtype) -> None:
    """Distances are small differences of large norms, and float16 ends at 65504."""
    parts = (300 + torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))).to(kind)
    identity = torch.tensor([0, 0, 1, 1])
    exact = triplet_loss_of_parts(parts.float(), identity, distance=PAIR_DISTANCES["squared"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(triplet_loss_of_parts(parts, identity, distance=PAIR_DISTANCES["squared"]), exact)


def test_identity_loss_by_hand() -> None:
    logits = torch.tensor([[[0.5, -0.5, 0.0]]])
    scaled = [math.exp(2 * v) for v in (0.5, -0.5, 0.0)]
    log_p = [math.log(v / sum(scaled)) for v in scaled]
    expected = -(0.9 * log_p[1] + 0.1 * sum(log_p) / 3)
    assert identity_loss(logits, torch.tensor([1]), scale=2.0, label_smoothing=0.1).item() == pytest.approx(expected, rel=1e-5)


def test_smoothness_counts_edges_by_hand() -> None:
    flat = torch.full((1, 1, 2, 6, 5), 0.3)
    assert silhouette.smoothness(flat).item() == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 1, 1, 6, 4)
    step[..., 2:] = 1.0  # a vertical edge: |Sobel_x| is 4 in the two columns beside it, 0 elsewhere
    assert silhouette.smoothness(step).item() == pytest.approx(2.0)
    border = torch.zeros(1, 1, 1, 6, 4)
    border[..., 0] = 1.0  # seen from both of its sides too; the border of the frame is no edge
    assert silhouette.smoothness(border).item() == pytest.approx(2.0)


@pytest.mark.parametrize("form", [silhouette.smoothness, silhouette.smoothness_released])
def test_smoothness_is_in_full_under_autocast(form: Callable[[torch.Tensor], torch.Tensor]) -> None:
    prior = torch.rand(2, 3, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = form(prior)
    assert torch.equal(inside, form(prior))


def test_diversity_is_zero_for_equal_use_and_log_c_for_one_channel() -> None:
    even = torch.full((2, 3, 16, 4, 4), 1 / 16)
    one = torch.zeros(2, 3, 16, 4, 4)
    one[:, :, 5] = 1.0
    assert silhouette.diversity(even).item() == pytest.approx(0, abs=1e-4)
    assert silhouette.diversity(one).item() == pytest.approx(math.log(16), abs=1e-4)
    assert silhouette.diversity_released(one).item() == pytest.approx(4.0, abs=1e-4)


def fake_output(gait: bool) -> ModelOutput:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(4, 6, 8, generator=generator, requires_grad=True)
    logits = torch.randn(4, 6, 5, generator=generator, requires_grad=True)
    prior = torch.rand(4, 2, 3, 8, 4, generator=generator).softmax(2)
    maps = SilhouetteMaps(silhouette=prior[:, :, 0], gait_prior=prior, mask_error=torch.tensor(0.7))
    return ModelOutput(parts, 3 if gait else 0, logits, maps if gait else None, supervised=torch.tensor([0, 2, 3, 5]))


def test_objective_is_the_weighted_sum_of_its_named_parts() -> None:
    recipe = schema.Objective()
    losses = Objective(recipe)(fake_output(True), torch.tensor([0, 0, 1, 1]))
    streams = sum(losses[f"{name}_{stream}"] for name in ("identity", "triplet") for stream in ("gait", "appearance"))
    expected = streams + losses["mask"] + 0.02 * losses["smoothness"] + 5 * losses["diversity"]
    torch.testing.assert_close(losses["total"], expected)
    assert "mask_smoothness" not in losses


@pytest.mark.parametrize(("form", "distance"), [("paper", "squared"), ("released", "euclidean")])
def test_every_number_of_the_recipe_counts(form: str, distance: str) -> None:
    numbers = {"margin": 0.6, "triplet_distance": distance, "label_smoothing": 0.3, "logit_scale": 7.0}
    weights = {"identity": 0.5, "triplet": 3.0, "mask": 2.0, "smoothness": 0.3, "mask_smoothness": 0.7, "diversity": 4.0}
    recipe = schema.Objective.model_validate({**numbers, **weights, "smoothness_form": form, "diversity_form": form})
    output, identity = fake_output(True), torch.tensor([0, 0, 1, 2])
    maps = output.maps
    maps.probabilities = torch.rand(4, 2, 2, 8, 4, generator=torch.Generator().manual_seed(1)).softmax(2)
    wanted = {
        "mask": maps.mask_error,
        "smoothness": silhouette.SMOOTHNESS[form](maps.gait_prior),
        "mask_smoothness": silhouette.mask_smoothness_released(maps.probabilities),
        "diversity": silhouette.DIVERSITY[form](maps.gait_prior),
    }
    for stream, chosen in (("gait", [0, 2]), ("appearance", [3, 5])):
        wanted[f"identity_{stream}"] = identity_loss(output.logits[:, chosen], identity, scale=7.0, label_smoothing=0.3)
        hinges = triplet_loss_of_parts(output.parts[:, chosen], identity, margin=0.6, distance=PAIR_DISTANCES[distance])
        wanted[f"triplet_{stream}"] = hinges.mean()
    losses = Objective(recipe)(output, identity)
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    total = sum(weights[name.removesuffix("_gait").removesuffix("_appearance")] * value for name, value in wanted.items())
    torch.testing.assert_close(losses["total"], total)


def test_what_has_no_weight_is_not_computed() -> None:
    recipe = schema.Objective(mask=0, smoothness=0, diversity=0)
    assert not {"mask", "smoothness", "diversity"} & Objective(recipe)(fake_output(True), torch.tensor([0, 0, 1, 1])).keys()


def test_accuracy_is_told_stream_by_stream() -> None:
    output, identity = fake_output(True), torch.tensor([0, 0, 1, 2])
    output.logits = torch.nn.functional.one_hot(torch.stack([identity] * 3 + [identity + 1] * 3, dim=1), 5).float()
    losses = Objective(schema.Objective())(output, identity)
    assert (losses["accuracy_gait"], losses["accuracy_appearance"]) == (1, 0)


def test_objective_looks_at_supervised_parts_only() -> None:
    output = fake_output(True)
    Objective(schema.Objective())(output, torch.tensor([0, 0, 1, 1]))["total"].backward()
    touched = output.logits.grad.abs().sum(dim=(0, 2)) > 0
    assert touched.tolist() == [True, False, True, True, False, True]


def test_objective_of_a_model_without_gait_stream() -> None:
    output = fake_output(False)
    losses = Objective(schema.Objective())(output, torch.tensor([0, 0, 1, 1]))
    assert {name.rpartition("_")[2] for name in losses} == {"appearance", "total"}


@given(order=st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_order_of_clips_does_not_matter(order: list[int]) -> None:
    output, identity = fake_output(False), torch.tensor([0, 0, 1, 1])
    shuffled = ModelOutput(output.parts[order], 0, output.logits[order], supervised=output.supervised)
    objective = Objective(schema.Objective())
    torch.testing.assert_close(objective(output, identity)["total"], objective(shuffled, identity[order])["total"])


@pytest.fixture()
def golden(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "reference" / "golden" / "losses.npz") as file:
        return dict(file)


def test_published_identity_and_triplet(golden: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(golden["ce_logits"]).transpose(1, 2)
    labels = torch.from_numpy(golden["ce_labels"])
    assert identity_loss(logits, labels).item() == pytest.approx(float(golden["ce_loss"]), rel=1e-6)
    assert identity_accuracy(logits, labels).item() == pytest.approx(float(golden["ce_acc"]), rel=1e-6)
    parts = torch.from_numpy(golden["tri_emb"]).requires_grad_()
    loss = triplet_loss_of_parts(parts.transpose(1, 2), torch.from_numpy(golden["tri_labels"]))
    np.testing.assert_allclose(loss.detach(), golden["tri_loss_per_part"], atol=1e-5)
    loss.mean().backward()
    # near-equal vectors: the slope of the root is steep there, so rounding shows in the gradient of part 3 alone
    np.testing.assert_allclose(parts.grad[:, :, :3], golden["tri_grad_of_mean"][:, :, :3], atol=1e-5)


def test_published_silhouette_losses(golden: dict[str, np.ndarray]) -> None:
    mask = torch.from_numpy(golden["connect_shape_in"]).view(1, 2, 64, 32, 2).permute(0, 1, 4, 2, 3)
    assert silhouette.mask_smoothness_released(mask).item() == pytest.approx(float(golden["connect_shape"]), rel=1e-6)
    prior = torch.from_numpy(golden["denoising_in"]).view(1, 2, 64, 32, 16).permute(0, 1, 4, 2, 3)
    assert silhouette.smoothness_released(prior).item() == pytest.approx(float(golden["connect_part"]), rel=1e-6)
    assert silhouette.diversity_released(prior).item() == pytest.approx(float(golden["diversity"]), abs=2e-6)
