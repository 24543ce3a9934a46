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
from dinogrl.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dinogrl.simulation.figure import Part
from dinogrl.simulation.moments import Moments, render_moments


@dataclass(frozen=True)
class PriorTraining:
    """Size of the network and of its training. ``moments`` are drawn from ``people`` simulated people of the split "prior"."""

    width: int = 96
    depth: int = 6
    heads: int = 3
    height: int = 168
    image_width: int = 84
    people: int = 500
    moments: int = 8000
    frame_height: int = 96
    frame_width: int = 48
    steps: int = 2500
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

    Gives the figures of the card, measured on other moments: of the patches that are mostly person, the share whose largest part is
    named rightly; intersection over union of the patches found to be person; both in each modality; and the mean cosine between the
    tokens of the two pictures of one moment.
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
    heads = Heads(settings.width)
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.04)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1)
    rng = np.random.default_rng(runtime.derived_seed(settings.seed, "batches"))
    model.train()
    with runtime.denormals_flushed():
        for step in range(settings.steps):
            rows = rng.choice(settings.moments, settings.batch, replace=False)
            loss = _loss(model, heads, trained, rows, rng, settings)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            if step % 10 == 9:
                tell(PriorProgress("train", step + 1, settings.steps, float(loss.detach())))
    figures = _measure(model.eval(), heads.eval(), kept_back, settings)
    _write(out, model, settings, figures)
    return figures


class Heads(nn.Module):
    """Linear readings of a token, dropped after training: the parts in its patch, and how much of it is the person."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.Linear(width, len(Part))
        self.person = nn.Linear(width, 1)


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
    model: Dinov2Model, heads: Heads, moments: Moments, rows: np.ndarray, rng: np.random.Generator, settings: PriorTraining
) -> Tensor:
    """Cross-entropy to the share of each part in a patch, and of the person; plus disagreement of the two pictures' tokens."""
    visible, infrared, parts = _augmented(moments, rows, rng)
    tokens = _tokens(model, torch.cat([visible, infrared]), settings)
    shares = _shares(parts, settings).repeat(2, 1, 1)
    named = -(shares * heads.parts(tokens).log_softmax(-1)).sum(-1).mean()
    person = F.binary_cross_entropy_with_logits(heads.person(tokens)[..., 0], 1 - shares[..., Part.BACKGROUND])
    by_day, by_night = tokens.chunk(2)
    return named + person + settings.agreement * (1 - F.cosine_similarity(by_day, by_night, dim=-1)).mean()


def _tokens(model: Dinov2Model, frames: Tensor, settings: PriorTraining) -> Tensor:
    """Frames (B,3,H,W) of any size -> last patch tokens (B,N,D)."""
    resized = F.interpolate(frames, (settings.height, settings.image_width), mode="bilinear", align_corners=False)
    return model(resized).last_hidden_state[:, 1:]


def _shares(maps: Tensor, settings: PriorTraining) -> Tensor:
    """One-hot labels (B,parts,H,W) -> share of each part in each patch, (B,N,parts)."""
    grid = (settings.height // 14, settings.image_width // 14)
    return F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)


def _one_hot(parts: np.ndarray) -> Tensor:
    """Labels (B,H,W) -> (B,parts,H,W) float."""
    return F.one_hot(torch.from_numpy(parts).long(), len(Part)).permute(0, 3, 1, 2).float()


def _augmented(moments: Moments, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised visible and infrared frames (B,3,H,W) and one-hot labels: one geometry for all three, light drawn for each.

    Shift and scale keep the network from telling a part by its place in the frame alone.
    """
    count = len(rows)
    side = np.where(rng.random(count) < 0.5, -1, 1)
    scale = rng.uniform(0.65, 1.1, count)
    matrix = np.zeros((count, 2, 3))
    matrix[:, 0, 0], matrix[:, 1, 1] = scale * side, scale
    matrix[:, :, 2] = rng.uniform(-0.2, 0.2, (count, 2))
    grid = F.affine_grid(torch.from_numpy(matrix).float(), [count, 3, *moments.parts.shape[1:]], align_corners=False)
    parts = _warped(_one_hot(moments.parts[rows]), grid)
    frames = []
    for pictures in (moments.visible, moments.infrared):
        pixels = _warped(torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float() / 255, grid)
        gain, offset = (
            torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1))).float() for low, high in ((0.6, 1.4), (-0.15, 0.15))
        )
        grey = torch.from_numpy(rng.random((count, 1, 1, 1)) < 0.3)
        pixels = torch.where(grey, pixels.mean(1, keepdim=True), pixels)
        frames.append(_normalised((pixels * gain + offset).clamp(0, 1)))
    return frames[0], frames[1], parts


def _warped(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _normalised(pixels: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / deviation


@torch.inference_mode()
def _measure(model: Dinov2Model, heads: Heads, moments: Moments, settings: PriorTraining) -> dict[str, float]:
    """Figures of the card, over both heads; see :func:`pretrain_prior`."""
    sums = dict.fromkeys(("parts_visible", "parts_infrared", "person_visible", "person_infrared", "agreement"), 0.0)
    for start in range(0, len(moments), settings.batch):
        rows = np.arange(start, min(start + settings.batch, len(moments)))
        shares = _shares(_one_hot(moments.parts[rows]), settings)
        person = shares[..., Part.BACKGROUND] < 0.5
        tokens = []
        for name, pictures in (("visible", moments.visible), ("infrared", moments.infrared)):
            frames = _normalised(torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float() / 255)
            tokens.append(_tokens(model, frames, settings))
            right = heads.parts(tokens[-1]).argmax(-1) == shares.argmax(-1)
            found = heads.person(tokens[-1])[..., 0] > 0
            sums[f"parts_{name}"] += float(right[person].float().mean()) * len(rows)
            sums[f"person_{name}"] += float((found & person).sum() / (found | person).sum()) * len(rows)
        sums["agreement"] += float(F.cosine_similarity(tokens[0], tokens[1], dim=-1).mean()) * len(rows)
    return {name: value / len(moments) for name, value in sums.items()}


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
  set, each moment drawn once as the visible and once as the infrared camera sees it. No photograph of anybody was used.
- **To** name the parts of the body in each patch and how much of it is the person (cross-entropy), with tokens that agree between
  the two pictures. It is therefore *supervised by the simulation*, unlike DINOv2, and knows nothing but simulated people.
- **Measured** on {settings.moments // 10} other moments: patches found to be person, intersection over union
  {figures["person_visible"]:.2f} (visible) and {figures["person_infrared"]:.2f} (infrared); largest part of such a patch
  named rightly in {100 * figures["parts_visible"]:.0f} % and {100 * figures["parts_infrared"]:.0f} %; mean cosine between the
  two pictures' tokens {figures["agreement"]:.3f}.
- **Not for** real footage: give a real DINOv2 by `model.gait.prior.name=dinov2_vits14` and `DINOGRL_DINOV2=FILE`.
- **Licence** Apache-2.0, as the rest of this project.
"""
