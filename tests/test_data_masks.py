"""A parser's masks: found beside the frames, moved with them, read by the gait stream in place of a prior's silhouettes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_datasets
from dinogrl.cli import main as cli
from dinogrl.data.datasets import open_dataset
from dinogrl.data.frames import encode_png, read_clip
from dinogrl.data.loaders import TrainingLoader, evaluation_loader
from dinogrl.data.masks import expect_masks, mask_path, read_masks
from dinogrl.data.transforms import Change, apply, move_masks
from dinogrl.embedding.test_time import FlipAveraged
from dinogrl.errors import DataError, RecipeError
from dinogrl.losses.objective import Objective
from dinogrl.models.archive import load_model, merged, save_model
from dinogrl.models.build import build_model
from dinogrl.models.streams.parsed import ParsedGaitStream
from dinogrl.recipes import load_recipe
from dinogrl.recipes.schema import Batch, Data
from dinogrl.simulation.simulate import Settings, simulate
from tiny_models import clips, tiny_recipe
from tiny_recipe import TINY

WORDS = ("model.gait.silhouette=masks", "data.masks=silhouettes")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People with their true silhouettes beside them."""
    settings = Settings(identities=8, cameras=3, tracklets=2, frames=13, height=64, width=32)
    return simulate(tmp_path_factory.mktemp("worlds") / "masked", settings, workers=1).root


@pytest.mark.parametrize("layout", ["hitsz-vcm", "buptcampus"])
def test_true_silhouettes_are_found_in_every_layout(layout: str, world: Path, tmp_path: Path) -> None:
    root = world
    if layout == "buptcampus":
        settings = Settings(identities=6, cameras=3, tracklets=2, frames=13, height=64, width=32, layout=layout)
        root = simulate(tmp_path / "bupt", settings, workers=1).root
    tracklet = open_dataset(root, layout).train[0]
    path = mask_path(tracklet, 3, "silhouettes")
    assert path.is_file() and path.stem == tracklet.path(3).stem
    assert mask_path(tracklet, 3, str(root / "silhouettes")) == path
    masks = read_masks(tracklet, np.array([0, 3, 3]), (64, 32), "silhouettes")
    assert masks.shape == (3, 64, 32) and set(np.unique(masks)) <= {0, 255} and 0.05 < masks.mean() / 255 < 0.9
    assert np.array_equal(masks[1], masks[2])


def test_masks_move_with_their_frames() -> None:
    rng = np.random.default_rng(1)
    masks = rng.integers(0, 256, (3, 20, 10), dtype=np.uint8)
    changes = [Change(), Change(down=3, right=-2), Change(down=-4, right=1, flip=True)]
    out = np.zeros(masks.shape, np.float32)
    move_masks(masks, changes, out)
    pictures = np.repeat(masks[..., None], 3, axis=3)
    black = apply(np.zeros_like(pictures), [Change()])[:, 0]
    white = apply(np.full_like(pictures, 255), [Change()])[:, 0]
    frames = apply(pictures, changes)[:, 0]
    np.testing.assert_allclose(out, (frames - black) / (white - black), atol=1e-5)
    assert out[1, :3].max() == 0 and out[1, :, -2:].max() == 0, "background moves in"


def test_loaders_bring_masks_beside_the_frames(world: Path) -> None:
    dataset = open_dataset(world)
    data = Data(height=64, width=32, frames=4, workers=1, masks="silhouettes")
    batch = TrainingLoader(dataset.train, dataset.train_labels(), data, Batch(identities=2, clips=2), seed=1)
    first = next(iter(batch.epoch(0)))
    assert first.masks is not None and first.masks.shape == (8, 4, 64, 32)
    assert first.masks.min() >= 0 and first.masks.max() == 1
    assert [tensor.shape for tensor in first.to("cpu").inputs] == [first.frames.shape, (8,), first.masks.shape]
    tested = next(iter(evaluation_loader(dataset.query[:2], data, sampling="segments", batch=2)))
    want = read_masks(dataset.query[1], np.array([0, 4, 8, 12]), (64, 32), "silhouettes")
    assert tested.masks is not None and np.array_equal((tested.masks[1] * 255).round().numpy(), want)
    without = data.model_copy(update={"masks": None})
    plain = next(iter(evaluation_loader(dataset.query[:2], without, sampling="segments", batch=2)))
    assert plain.masks is None and len(plain.inputs) == 2
    assert torch.equal(plain.frames, tested.frames)


def test_the_gait_stream_sees_masks_and_nothing_else(tmp_path: Path) -> None:
    recipe = tiny_recipe("dinogrl", *WORDS)
    torch.manual_seed(0)
    model, (frames, modality) = build_model(recipe, 5).train(), clips(4)
    assert isinstance(model.gait, ParsedGaitStream) and not any("prior" in name for name in model.state_dict())
    masks = torch.rand(4, 3, 64, 32)
    output = model(frames, modality, masks)
    losses = Objective(recipe.objective)(output, torch.tensor([0, 0, 1, 1]))
    losses["total"].backward()
    assert not {"mask", "smoothness", "diversity"} & set(losses)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.start_silhouette(frames)
    with torch.no_grad():
        model.eval()
        gait = slice(0, output.gait_parts - 4)  # without the enhanced ones
        one, other = model(frames, modality, masks).parts, model(frames.flip(0), modality, masks).parts
        torch.testing.assert_close(one[:, gait], other[:, gait])
        assert not torch.allclose(one[:, gait], model(frames, modality, 1 - masks).parts[:, gait], atol=1e-3)
        flipped = model(frames.flip(-1), modality, masks.flip(-1)).parts
        torch.testing.assert_close(FlipAveraged(model)(frames, modality, masks).parts, (one + flipped) / 2)
        save_model(tmp_path / "model.safetensors", model, recipe, 5, {})
        trained = load_model(tmp_path / "model.safetensors")
        assert torch.equal(trained.network(frames, modality, masks).embedding, model(frames, modality, masks).embedding)
        assert merged(trained) is trained
        with pytest.raises(DataError, match="reads a human parser's masks"):
            model(frames, modality)


def test_a_frame_that_no_parser_could_read_takes_mask_and_pixels_of_the_same_neighbour(tmp_path: Path) -> None:
    tracklet = open_dataset(tiny_datasets.hitsz_vcm(tmp_path, train=1, test=1)).train[0]
    for index in (3, 4):
        tracklet.path(index).write_bytes(b"\xff\xd8\xff broken")
    for index in (0, 1, 2, 5, 6):
        path = tmp_path / "masks" / tracklet.path(index).relative_to(tmp_path).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.full((32, 16), 10 * index, np.uint8)))
    clip = np.array([2, 3, 4])
    with pytest.raises(DataError, match="has no mask"):
        read_masks(tracklet, clip, (32, 16), "masks")
    assert read_masks(tracklet, clip, (32, 16), "masks", "neighbour")[:, 0, 0].tolist() == [20, 20, 50]
    pixels, replaced = read_clip(tracklet, clip, (32, 16), "neighbour")
    assert replaced == 2 and [tiny_datasets.level_to_number(level) for level in pixels[:, 0, 0, 0]] == [2, 2, 5]
    with pytest.raises(DataError, match="has no mask"):
        read_masks(tracklet, np.array([7]), (32, 16), "masks", "neighbour")  # it can be read: its mask was forgotten
    with pytest.raises(DataError, match=r"no frame of tracklet .* has a mask"):
        read_masks(tracklet, clip[1:], (32, 16), "elsewhere", "neighbour")


def test_what_is_missing_is_named(world: Path, tmp_path: Path) -> None:
    tracklet = open_dataset(world).train[0]
    with pytest.raises(DataError, match=r"has no mask in the folder absent"):
        read_masks(tracklet, np.array([0]), (64, 32), "absent")
    broken = Path(tmp_path, tracklet.frames[0]).with_suffix(".png")
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match="broken"):
        read_masks(tracklet, np.array([0]), (64, 32), str(tmp_path))
    with pytest.raises(RecipeError, match="set both or neither"):
        load_recipe("dinogrl", ["model.gait.silhouette=masks"])
    with pytest.raises(RecipeError, match="set both or neither"):
        load_recipe("dinogrl", ["data.masks=x"])


def test_a_whole_run_on_masks(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", "demo_dinogrl", *TINY, *WORDS, "--data", str(world), "--out", str(out)]) == 0
    model = str(out / "model.safetensors")
    assert cli.main(["evaluate", model, "--data", str(world), "--device", "cpu", "--flip"]) == 0
    assert (out / "silhouettes.npz").is_file()
    capsys.readouterr()
    nowhere = [WORDS[0], "data.masks=nowhere", "--data", str(world), "--out", str(tmp_path / "other")]
    assert cli.main(["train", "demo_dinogrl", *TINY, *nowhere]) == 2
    error = capsys.readouterr().err.strip()
    assert "tracklets lack masks in the folder nowhere" in error and len(error.splitlines()) == 1


def test_half_a_folder_of_masks_is_said_before_the_first_step(world: Path, tmp_path: Path) -> None:
    dataset = open_dataset(world)
    for tracklet in dataset.train[:-3]:
        for index in range(len(tracklet.frames)):
            mask = tmp_path / tracklet.path(index).relative_to(dataset.root).with_suffix(".png")
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.touch()
    expect_masks(dataset.train[:-3], str(tmp_path))
    told = rf"3 of {len(dataset.train)} tracklets lack masks .* first is '{dataset.train[-3].id}'.*dinogrl parse"
    for broken in ("stop", "neighbour"):
        with pytest.raises(DataError, match=told):
            expect_masks(dataset.train, str(tmp_path), broken)


def test_a_mask_that_a_broken_frame_cannot_have_is_not_asked_for(tmp_path: Path) -> None:
    tracklet = open_dataset(tiny_datasets.hitsz_vcm(tmp_path, train=1, test=1)).train[0]
    tracklet.path(len(tracklet.frames) - 1).write_bytes(b"\xff\xd8\xff broken")
    expect_masks([tracklet], "masks", "neighbour")
    with pytest.raises(DataError, match="1 of 1 tracklets lack masks"):
        expect_masks([tracklet], "masks", "stop")
