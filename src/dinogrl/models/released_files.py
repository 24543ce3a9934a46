"""The authors' three checkpoint files on disk: read, turned into one model file of ours, and written again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dinogrl.checkpoints import expect_writable_file, load_tensors, save_state_dicts
from dinogrl.errors import CheckpointError
from dinogrl.models.archive import save_model
from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.pretrained import expect_tensors
from dinogrl.models.weights import FILES, load_released, released_identities, to_released
from dinogrl.recipes import Recipe, load_recipe

# names that begin so stand in one of the files only
_MARKS = {"best_model": "share_encoder.", "best_model2": "enhance_", "best_shape": "dinov2.gait_net."}


def convert_released(best_model: Path, best_model2: Path, best_shape: Path, out: Path, recipe: Recipe | None = None) -> list[str]:
    """Turn the authors' three files into one model file of ours; returns the names of the tensors left out.

    The number of identities is read from them. ``recipe``: a form of ``dinogrl-released`` of another size. Nothing in the files is
    executed. Raises :class:`CheckpointError` before anything is written: for files that cannot be read, that are given in
    another order, and as :func:`load_released` does; :class:`DinogrlError` where ``out`` cannot be written.
    """
    paths = (best_model, best_model2, best_shape)
    if any(out.resolve() == path.resolve() for path in paths):
        raise CheckpointError(f"{out} is one of the files to convert; give --out another name")
    tensors = [load_tensors(path) for path in paths]
    _expect_order(paths, tensors)
    expect_writable_file(out)
    identities = released_identities(tensors[2])
    recipe = recipe or load_recipe("dinogrl-released")
    model = build_model(recipe, identities, start_weights=False)
    dropped = load_released(model, *tensors)
    sources = [path.name for path in paths]
    save_model(out, model, recipe, identities, {"converted_from": sources, "selection": "published"})
    return dropped


def write_released(model: DinoGRL, identities: int, folder: Path) -> list[Path]:
    """Write a trained ``dinogrl-released`` network as the three files that the authors' code loads with ``strict=True``.

    They are plain state dicts. Raises :class:`CheckpointError`, before anything is written, for a network of another kind or size,
    and for files that exist: they might be the authors' own.
    """
    paths = {file: folder / f"{file}.pth" for file in FILES}
    there = [str(path) for path in paths.values() if path.exists()]
    if there:
        raise CheckpointError(f"{', '.join(there)} exist already; give another folder")
    files = to_released(model)
    with torch.device("meta"):
        published = build_model("dinogrl-released", identities, start_weights=False)
    try:
        for file, expected in to_released(published).items():
            expect_tensors(files[file], expected, f"{file}.pth")
    except CheckpointError as error:
        raise CheckpointError(f"the authors' code cannot load a network of this size: {error}") from error
    save_state_dicts({paths[file]: tensors for file, tensors in files.items()})
    return list(paths.values())


def _expect_order(paths: tuple[Path, Path, Path], tensors: list[dict[str, Tensor]]) -> None:
    """Raise :class:`CheckpointError` that says which file is which, where that is plain and not as it should be."""
    kinds = [_kind(names) for names in tensors]
    for path, kind, wanted in zip(paths, kinds, FILES, strict=True):
        if kind is None:
            some = ", ".join(list(tensors[FILES.index(wanted)])[:4])
            raise CheckpointError(f"{path} is none of the authors' three files: it holds {some} ...; expected a {wanted}.pth")
        if kind != wanted:
            raise CheckpointError(f"{path} is a {kind}.pth, expected a {wanted}.pth here; the order is {', '.join(FILES)}")


def _kind(tensors: Mapping[str, Tensor]) -> str | None:
    return next((file for file, mark in _MARKS.items() if any(name.startswith(mark) for name in tensors)), None)
