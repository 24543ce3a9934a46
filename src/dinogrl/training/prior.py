"""Train the small DINOv2-architecture prior that ships inside the package.

The real DINOv2 learned its features from 142 million photographs; this one, for the offline default, learns from simulated people
who are in no training or test set. Two demands make its patch tokens what the silhouette and the gait prior need: a token must
tell which parts of the body lie in its patch, and the tokens of one moment must agree between its visible and its infrared
picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from dinogrl import checkpoints, runtime
from dinogrl.simulation.figure import Part
from dinogrl.simulation.moments import Moments, render_moments

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PriorTraining:
    """Size of the network and of its training. ``moments`` are drawn from ``people`` simulated people of the split "prior"."""

    width: int = 96
    depth: int = 6
    heads: int = 3
    height: int = 224
    image_width: int = 112
    people: int = 400
    moments: int = 6000
    frame_height: int = 128
    frame_width: int = 64
    steps: int = 1500
    batch: int = 32
    learning_rate: float = 1e-3
    agreement: float = 0.5
    seed: int = 7


@dataclass(frozen=True)
class PriorProgress:
    """Told to whoever watches."""

    stage: str
    done: int
    total: int
    loss: float = math.nan


def pretrain_prior(
    out: Path, settings: PriorTraining | None = None, *, on_progress: Callable[[PriorProgress], None] | None = None
) -> dict[str, float]:
    """Train the prior and write ``config.json``, ``model.safetensors`` and a card, ``README.md``, into ``out`` (Hugging Face form).

    Gives the figures of the card, measured on people of the same split that were not trained on: share of patches whose largest
    part is named rightly, in each modality, and the mean cosine between the tokens of the two pictures of one moment.
    """
    settings = settings or PriorTraining()
    tell = on_progress or (lambda progress: None)
    runtime.seed_everything(settings.seed)
    size = (settings.frame_height, settings.frame_width)
    count = settings.moments + settings.moments // 10
    moments = render_moments(
        count, settings.people, size, seed=settings.seed, on_progress=lambda n: tell(PriorProgress("render", n, count))
    )
    trained, kept_back = moments.split(settings.moments)
    model = make_model(settings)
    head = nn.Linear(settings.width, len(Part))
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.04)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1)
    rng = np.random.default_rng(runtime.derived_seed(settings.seed, "batches"))
    model.train()
    for step in range(settings.steps):
        rows = rng.choice(settings.moments, settings.batch, replace=False)
        loss = _loss(model, head, trained, rows, rng, settings)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 10 == 9:
            tell(PriorProgress("train", step + 1, settings.steps, float(loss.detach())))
    figures = _measure(model.eval(), head.eval(), kept_back, settings)
    _write(out, model, settings, figures)
    return figures


def make_model(settings: PriorTraining) -> Dinov2Model:
    """A DINOv2 vision transformer of the asked size: patches of 14, LayerScale, class token."""
    config = Dinov2Config(
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        mlp_ratio=4,
        image_size=settings.height,
        patch_size=14,
        layerscale_value=1.0,
        drop_path_rate=0.0,
    )
    return Dinov2Model(config)


def _loss(
    model: Dinov2Model, head: nn.Linear, moments: Moments, rows: np.ndarray, rng: np.random.Generator, settings: PriorTraining
) -> Tensor:
    """Cross-entropy to the share of each part in a patch, plus disagreement (1 - cosine) of the two pictures' tokens."""
    visible, infrared, parts = _augmented(moments, rows, rng)
    tokens = _tokens(model, torch.cat([visible, infrared]), settings)
    shares = _part_shares(parts, settings)
    named = -(shares.repeat(2, 1, 1) * head(tokens).log_softmax(-1)).sum(-1).mean()
    seen_by_day, seen_by_night = tokens.chunk(2)
    return named + settings.agreement * (1 - F.cosine_similarity(seen_by_day, seen_by_night, dim=-1)).mean()


def _tokens(model: Dinov2Model, frames: Tensor, settings: PriorTraining) -> Tensor:
    """Frames (B,3,H,W) of any size -> last patch tokens (B,N,D)."""
    resized = F.interpolate(frames, (settings.height, settings.image_width), mode="bilinear", align_corners=False)
    return model(resized).last_hidden_state[:, 1:]


def _part_shares(parts: Tensor, settings: PriorTraining) -> Tensor:
    """Labels (B,H,W) -> share of each part in each patch, (B,N,parts)."""
    maps = F.one_hot(parts, len(Part)).permute(0, 3, 1, 2).float()
    grid = (settings.height // 14, settings.image_width // 14)
    return F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)


def _augmented(moments: Moments, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised visible and infrared frames (B,3,H,W) and labels (B,H,W): one geometry for both, light drawn for each."""
    flip = rng.random(len(rows)) < 0.5
    parts = torch.from_numpy(_flipped(moments.parts[rows], flip)).long()
    frames = []
    for pictures in (moments.visible, moments.infrared):
        pixels = torch.from_numpy(_flipped(pictures[rows], flip)).permute(0, 3, 1, 2).float() / 255
        gain = torch.from_numpy(rng.uniform(0.6, 1.4, (len(rows), 1, 1, 1))).float()
        offset = torch.from_numpy(rng.uniform(-0.15, 0.15, (len(rows), 1, 1, 1))).float()
        grey = torch.from_numpy(rng.random((len(rows), 1, 1, 1)) < 0.3)
        pixels = torch.where(grey, pixels.mean(1, keepdim=True), pixels)
        frames.append(_normalised((pixels * gain + offset).clamp(0, 1)))
    return frames[0], frames[1], parts


def _flipped(images: np.ndarray, flip: np.ndarray) -> np.ndarray:
    images = images.copy()
    images[flip] = images[flip][:, :, ::-1]
    return images


def _normalised(pixels: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / deviation


@torch.inference_mode()
def _measure(model: Dinov2Model, head: nn.Linear, moments: Moments, settings: PriorTraining) -> dict[str, float]:
    right = {"visible": 0.0, "infrared": 0.0}
    agreement, patches = 0.0, 0
    for start in range(0, len(moments), settings.batch):
        rows = np.arange(start, min(start + settings.batch, len(moments)))
        largest = _part_shares(torch.from_numpy(moments.parts[rows]).long(), settings).argmax(-1)
        tokens = []
        for name, pictures in (("visible", moments.visible), ("infrared", moments.infrared)):
            frames = _normalised(torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float() / 255)
            tokens.append(_tokens(model, frames, settings))
            right[name] += float((head(tokens[-1]).argmax(-1) == largest).sum())
        agreement += float(F.cosine_similarity(tokens[0], tokens[1], dim=-1).sum())
        patches += largest.numel()
    return {**{f"parts_right_{name}": count / patches for name, count in right.items()}, "agreement": agreement / patches}


def _write(out: Path, model: Dinov2Model, settings: PriorTraining, figures: dict[str, float]) -> None:
    weights = {name: value.to(torch.float16) for name, value in model.state_dict().items()}
    checkpoints.save(out / "model.safetensors", weights, "prior", {"settings": vars(settings), "figures": figures})
    config = json.dumps({**model.config.to_dict(), "architectures": ["Dinov2Model"], "torch_dtype": "float16"}, indent=2)
    checkpoints.write_atomically(out / "config.json", f"{config}\n".encode())
    checkpoints.write_atomically(out / "README.md", _card(model, settings, figures).encode())


def _card(model: Dinov2Model, settings: PriorTraining, figures: dict[str, float]) -> str:
    size = sum(parameter.numel() for parameter in model.parameters())
    return f"""# The tiny prior

A vision transformer of DINOv2's architecture (patches of 14, LayerScale, class token), {settings.depth} blocks of width
{settings.width}, {size / 1e6:.2f} million parameters in half precision. It stands in for DINOv2 where no weights can be
downloaded: tests, the demo.

- **Made by** `dinogrl pretrain-prior --out DIR`, {settings.steps} steps of {settings.batch} moments, seed {settings.seed}.
- **From** {settings.moments} moments of {settings.people} simulated people of the split "prior", who are in no training or test
set, each moment
  drawn once as the visible and once as the infrared camera sees it. No photograph of anybody was used.
- **To** name the parts of the body in each patch (cross-entropy to their shares), with tokens that agree between the two pictures.
  It is therefore *supervised by the simulation*, unlike DINOv2, and knows nothing but simulated people.
- **Measured** on {settings.moments // 10} other moments: largest part of a patch named rightly in {
        100 * figures["parts_right_visible"]:.1f} % (visible) and
  {100 * figures["parts_right_infrared"]:.1f} % (infrared) of the patches; mean cosine between the two pictures' tokens {
        figures["agreement"]:.3f}.
- **Not for** real footage: give a real DINOv2 by `model.gait.prior.name=dinov2_vits14` and `DINOGRL_DINOV2=FILE`.
- **Licence** Apache-2.0, as the rest of this project.
"""
