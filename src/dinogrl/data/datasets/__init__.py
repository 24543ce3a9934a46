"""Datasets as they lie on disk, all read into the same :class:`dinogrl.records.Dataset`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dinogrl.catalog import Catalog
from dinogrl.data.datasets import buptcampus, folder, hitsz_vcm, llcm, regdb, sysu_mm01
from dinogrl.data.datasets.layout import SIMULATION_CARD, Choices, Layout
from dinogrl.data.problems import Problems, stop_at_errors
from dinogrl.errors import DataError
from dinogrl.records import Dataset

DATASETS: Catalog[Layout] = Catalog(
    "layout",
    {
        "hitsz-vcm": hitsz_vcm.LAYOUT,
        "buptcampus": buptcampus.LAYOUT,
        "sysu-mm01": sysu_mm01.LAYOUT,
        "regdb": regdb.LAYOUT,
        "llcm": llcm.LAYOUT,
        "folder": folder.LAYOUT,
    },
)


def open_dataset(
    root: str | Path,
    layout: str = "auto",
    *,
    min_frames: int = 12,
    discard_train: str | Path | None = None,
    discard_test: str | Path | None = None,
    trial: int = 1,
) -> Dataset:
    """Read a dataset's index; the frames themselves are not touched.

    ``layout`` is an entry of :data:`DATASETS`, or ``auto`` to look what lies there. ``min_frames`` and the discard lists (files
    of frame paths, applied before the length filter) concern HITSZ-VCM only, ``trial`` (which of the splits) RegDB only. Raises
    :class:`DataError` for a folder that is missing or holds no known dataset, and for an index with errors, naming the first;
    :func:`dinogrl.data.checks.check_dataset` names them all.
    """
    root = Path(root)
    problems = Problems()
    choices = Choices(min_frames, _optional_path(discard_train), _optional_path(discard_test), trial)
    dataset = read_dataset(root, layout, choices, problems)
    stop_at_errors(problems, root)
    if not (dataset.train or dataset.query or dataset.gallery):
        lying = _recognised(root)
        if lying and dataset.name not in lying:
            raise DataError(f"{root} is laid out as {lying[0]}, not as {dataset.name}; leave it to data.layout=auto")
        raise DataError(f"{root} holds no usable tracklet as {dataset.name}; `dinogrl check {root}` says why")
    return dataset


def read_dataset(root: Path, layout: str, choices: Choices, problems: Problems) -> Dataset:
    """What lies at ``root``, with all that is wrong added to ``problems``; raises as :func:`find_layout` does."""
    dataset = DATASETS[find_layout(root, layout)].read(root, choices, problems)
    return replace(dataset, simulated=(dataset.root / SIMULATION_CARD).is_file())


def find_layout(root: Path, layout: str = "auto") -> str:
    """Name of the layout at ``root``.

    Raises :class:`DataError` where nothing known lies, :class:`dinogrl.errors.UnknownNameError` for a name not in :data:`DATASETS`.
    """
    if not root.is_dir():
        raise DataError(f"no dataset at {root}: {'it is a file, not a folder' if root.exists() else 'there is no such folder'}")
    if layout != "auto":
        DATASETS[layout]  # an unknown name is an error of its own
        return layout
    known = _recognised(root)
    if known:
        return known[0]
    inside = [child for child in sorted(root.iterdir()) if child.is_dir() and _recognised(child)]
    hint = f"; there is one in {inside[0]}, give that" if inside else ""
    expected = "; ".join(f"{name}: {entry.expects}" for name, entry in DATASETS.items())
    raise DataError(f"no known dataset at {root}{hint} (expected {expected}); `dinogrl footage` cuts people out of videos")


def _recognised(root: Path) -> list[str]:
    """Layouts that what lies at ``root`` may be in, the surest first."""
    return [name for name, entry in DATASETS.items() if entry.recognises(root)]


def _optional_path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
