"""What E_m makes of pictures at its start, before any training: a look at whether a prior sees the people in your footage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dinogrl.data.datasets.directories import images_in
from dinogrl.data.frames import read_frame, write_image
from dinogrl.data.natural_order import natural_sorted
from dinogrl.data.transforms import normalise
from dinogrl.errors import DataError
from dinogrl.models.build import build_model
from dinogrl.recipes import load_recipe

HEIGHT, WIDTH = 192, 96  # of one picture on the sheet, pixels


def silhouette_sheet(images: Sequence[Path], out: Path, *, dinov2: str | None = None, columns: int = 8) -> None:
    """Write a sheet of the pictures, each with its silhouette below: probability of the person, white is 1.

    ``images``: people cut out, a file each or folders of such files, visible and infrared mixed as you like. E_m is set from their
    frozen tokens alone, without labels and without training (``mask_start: centre`` of the paper's recipe at its full size).
    ``dinov2``: weights of a ViT-S/14, else $DINOGRL_DINOV2 or the hub's. Raises :class:`DataError` for fewer than two images or an
    unreadable one, :class:`CheckpointError` for weights that cannot be used.
    """
    for given in images:
        if not given.exists():
            raise DataError(f"{given} is missing; give pictures of people, or a folder of them")
    pictures = [picture for given in images for picture in (_of_folder(given) if given.is_dir() else [given])]
    if len(pictures) < 2:
        listed = ", ".join(map(str, images[:3])) or "nothing"
        raise DataError(f"given {listed}, expected two or more pictures of people, or a folder of them: they are compared")
    weights = [f"model.gait.prior.weights={dinov2}"] if dinov2 else []
    recipe = load_recipe("dinogrl", weights)
    size = recipe.data.height, recipe.data.width
    frames = np.stack([read_frame(path, size) for path in pictures])
    network = build_model(recipe, identities=2).eval()
    assert network.gait is not None
    clips = torch.from_numpy(normalise(frames))[:, None]  # (B,1,3,H,W)
    network.start_silhouette(clips)
    with torch.inference_mode():
        _, maps = network.gait(clips)
    silhouettes = maps.silhouette[:, 0].numpy()
    pairs = [np.concatenate([_enlarged(frame), _grey(silhouette)]) for frame, silhouette in zip(frames, silhouettes, strict=True)]
    blank = np.full_like(pairs[0], 255)
    pairs += [blank] * (-len(pairs) % min(columns, len(pairs)))
    rows = [np.concatenate(pairs[start : start + columns], axis=1) for start in range(0, len(pairs), columns)]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_image(out, np.concatenate(rows))


def _of_folder(folder: Path) -> list[Path]:
    return [folder / name for name in natural_sorted(images_in(folder))]


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def _grey(silhouette: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h,w) in 0..1 -> (HEIGHT,WIDTH,3)"""
    grey = cv2.resize((silhouette * 255).astype(np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return np.repeat(grey[..., None], 3, axis=2)
