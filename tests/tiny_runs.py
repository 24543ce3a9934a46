"""Run folders as a training and an evaluation leave them, made of noise and drawn figures: enough for every part of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dinogrl.data.frames import write_image
from dinogrl.embedding.archive import save_embeddings
from dinogrl.evaluation import evaluate, write_metrics
from dinogrl.records import Embeddings, Modality

IDENTITIES, CAMERAS = 12, 4


def draw_person(identity: int, modality: Modality, step: int) -> np.ndarray:
    """A walking figure (96,48,3): clothes by identity, pale on dark in infrared."""
    random = np.random.default_rng(identity)
    colours = random.integers(40, 220, (3, 3))
    if modality is Modality.INFRARED:
        colours = np.repeat(random.integers(120, 240, (3, 1)), 3, axis=1)
    image = np.full((96, 48, 3), 60 if modality is Modality.INFRARED else 190, dtype=np.int64)
    y, x = np.mgrid[:96, :48]
    image[(y - 14) ** 2 + (x - 24) ** 2 < 64] = [230, 190, 160] if modality is Modality.VISIBLE else [235, 235, 235]
    image[(y > 22) & (y < 56) & (abs(x - 24) < 10)] = colours[0]
    swing = 7 * np.sin(step)
    for side in (-1, 1):
        image[(y >= 56) & (y < 92) & (abs(x - 24 - side * (4 + (y - 56) * swing / 60)) < 4)] = colours[1]
    image += np.random.default_rng(step).integers(-8, 9, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_run(folder: Path, name: str, noise: float, frames: Path | None, silhouettes: bool, steps: int = 300) -> Path:
    """Write a run folder whose embeddings are a person's own vector and ``noise``."""
    folder.mkdir(parents=True)
    infrared, visible = (_side(modality, noise, frames) for modality in (Modality.INFRARED, Modality.VISIBLE))
    save_embeddings(folder / "query.safetensors", infrared)
    save_embeddings(folder / "gallery.safetensors", visible)
    evaluation = evaluate(infrared, visible, "hitsz-vcm")
    write_metrics(folder / "metrics.json", evaluation, dataset="hitsz-vcm", model=name, frames_per_clip=6, selection="last")
    (folder / "recipe.yaml").write_text(f"name: {name}\nseed: 1\ntraining:\n  epochs: 3\n  learning_rate: 0.00035\n")
    _write_log(folder / "log.csv", noise, steps, silhouettes)
    if silhouettes:
        _write_silhouettes(folder / "silhouettes.npz")
    return folder


def make_frames(folder: Path) -> Path:
    """A small picture of every tracklet."""
    folder.mkdir(parents=True)
    for modality in Modality:
        for identity in range(IDENTITIES):
            for camera in range(CAMERAS):
                picture = draw_person(identity, modality, camera)
                write_image(folder / f"{modality.name}-{identity}-{camera}.jpg", picture, quality=80)
    return folder


def _side(modality: Modality, noise: float, frames: Path | None) -> Embeddings:
    random = np.random.default_rng([int(modality), 7])
    own = np.random.default_rng(3).standard_normal((IDENTITIES, 6, 16))
    ids, cameras = np.repeat(np.arange(IDENTITIES), CAMERAS), np.tile(np.arange(CAMERAS), IDENTITIES)
    parts = own[ids] + noise * random.standard_normal((len(ids), 6, 16))
    names = [f"{modality.name}-{i}-{c}" for i, c in zip(ids, cameras, strict=True)]
    return Embeddings(
        parts=parts.astype(np.float32),
        tracklet_ids=names,
        identities=ids,
        cameras=cameras,
        modalities=np.full(len(ids), int(modality)),
        fingerprint=f"{int(noise * 1e6):016x}",
        frames=[[str(frames / f"{name}.jpg")] for name in names] if frames else [],
    )


def _write_log(path: Path, noise: float, steps: int, gait: bool) -> None:
    random = np.random.default_rng(int(noise * 10))
    names = ["identity", "triplet", *(["mask", "smoothness", "diversity"] if gait else [])]
    rows = [",".join(["epoch", "step", "learning_rate", "total", *names, "seconds"])]
    for step in range(steps):
        values = [(i + 1) * np.exp(-step / 90) + 0.1 * noise * random.random() for i in range(len(names))]
        numbers = [3.5e-4 * min(1, (step + 1) / 50), sum(values), *values, 0.21]
        rows.append(f"{step // 100},{step}," + ",".join(f"{v:.6g}" for v in numbers))
    path.write_text("\n".join(rows) + "\n")


def _write_silhouettes(path: Path) -> None:
    random = np.random.default_rng(0)
    modality = np.array([0, 1, 0, 1])
    frames = np.stack([[draw_person(c // 2, Modality(int(m)), t) for t in range(2)] for c, m in enumerate(modality)])
    y, x = np.mgrid[:64, :32]
    body = np.exp(-(((x - 16) / 7.0) ** 4) - ((y - 32) / 29.0) ** 8)
    waves = np.stack([np.sin(y / (3 + k) + k) * np.cos(x / (2 + k)) + 1.2 for k in range(16)])
    maps = np.broadcast_to(waves, (4, 2, 16, 64, 32)) + 0.1 * random.random((4, 2, 16, 64, 32))
    silhouette = np.broadcast_to(body, (4, 2, 64, 32))
    np.savez_compressed(
        path,
        frames=frames,
        modality=modality,
        names=np.array([f"tracklet-{i}" for i in range(4)]),
        silhouette=silhouette.astype(np.float16),
        gait_prior=maps.astype(np.float16),
        appearance_prior=maps[:, :, ::-1].astype(np.float16),
        enriched=(maps * silhouette[:, :, None]).astype(np.float16),
    )
