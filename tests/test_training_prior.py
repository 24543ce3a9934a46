"""The small prior: its command makes what transformers and this package read, and the shipped one sees people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import Dinov2Model

from dinogrl.data.transforms import normalise
from dinogrl.models.backbones.dinov2 import SHIPPED
from dinogrl.models.build import build_model
from dinogrl.recipes import load_recipe
from dinogrl.records import Modality
from dinogrl.simulation.moments import render_moments
from dinogrl.simulation.world import World
from dinogrl.training.prior import PriorTraining, pretrain_prior

SMALL = PriorTraining(
    width=24, depth=2, heads=2, height=56, image_width=28, people=3, moments=20, frame_height=48, frame_width=24, steps=3, batch=4
)


def test_the_command_writes_a_model_that_others_read(tmp_path: Path) -> None:
    figures = pretrain_prior(tmp_path, SMALL)
    assert all(0 <= figures[name] <= 1 for name in ("person_visible", "person_infrared", "parts_visible", "parts_infrared"))
    assert f"seed {SMALL.seed}" in (tmp_path / "README.md").read_text()
    by_transformers = Dinov2Model.from_pretrained(tmp_path, local_files_only=True).float().eval()
    prior = f"{{name: tiny, weights: {tmp_path}, height: 56, width: 28, blocks: [0, 1], precision: float32}}"
    ours = build_model(load_recipe("demo_dinogrl", [f"model.gait.prior={prior}"]), 2).gait.prior
    frames = torch.randn(2, 3, 56, 28)
    expected = by_transformers(frames).last_hidden_state[:, 1:]
    torch.testing.assert_close(ours(frames).last.flatten(1, 2), expected, atol=2e-3, rtol=2e-3)


def test_moments_do_not_depend_on_the_number_of_workers() -> None:
    one, two = (render_moments(10, 3, (32, 16), seed=3, workers=workers) for workers in (1, 2))
    assert np.array_equal(one.visible, two.visible) and np.array_equal(one.parts, two.parts)
    assert not np.array_equal(one.visible, one.infrared)


def test_the_shipped_prior_finds_people_of_no_split_it_was_trained_on() -> None:
    """Silhouettes at their start, before any training, against the true ones: day and night alike."""
    assert (SHIPPED / "README.md").is_file()
    torch.manual_seed(0)
    network = build_model(load_recipe("demo_dinogrl"), 2).eval()
    world = World(11, occlusion=0.0)
    drawn = [
        world.tracklet("test", person, camera, modality, 0, 3, 96, 48)
        for person in range(6)
        for camera, modality in enumerate(Modality)
    ]
    clips = torch.from_numpy(np.stack([normalise(tracklet.frames) for tracklet in drawn]))
    network.start_silhouette(clips)
    with torch.no_grad():
        found = network(clips, torch.arange(12) % 2).maps.silhouette
    truth = torch.from_numpy(np.stack([tracklet.silhouettes for tracklet in drawn])).float()
    coarse = torch.nn.functional.interpolate(truth, found.shape[2:], mode="area") > 0.5
    overlap = ((found > 0.5) & coarse).sum((1, 2, 3)) / ((found > 0.5) | coarse).sum((1, 2, 3))
    assert overlap[0::2].mean() > 0.4, f"visible {overlap[0::2]}"
    assert overlap[1::2].mean() > 0.4, f"infrared {overlap[1::2]}"
