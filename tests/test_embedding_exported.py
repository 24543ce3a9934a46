"""An exported file behind the face of a trained model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dinogrl.data.transforms import normalise
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.exported import ExportedNetwork
from tiny_exports import PICTURES, tiny_export


def test_the_graph_is_given_the_very_pixels() -> None:
    """Every grey level in every channel, through normalisation and back."""
    levels = np.arange(256, dtype=np.uint8)
    pixels = np.stack([levels, levels[::-1], np.roll(levels, 100)], axis=-1).reshape(1, 16, 16, 3)
    given: list[NDArray[np.uint8]] = []

    def run(frames: NDArray[np.uint8], modality: NDArray[np.int64]) -> NDArray[np.float32]:
        given.append(frames)
        return np.zeros((1, 2, 3), np.float32)

    ExportedNetwork(run, 0)(torch.from_numpy(normalise(pixels))[None], torch.tensor([1]))
    assert given[0].dtype == np.uint8
    np.testing.assert_array_equal(given[0], pixels[None])


def test_openvino_may_be_asked_from_several_threads(tmp_path: Path) -> None:
    """As ``dinogrl serve`` does: each is given the embedding of its own frames."""
    embedder = Embedder.load(tiny_export(tmp_path, "openvino"))
    alone = [embedder.embed([picture], "visible") for picture in PICTURES]
    with ThreadPoolExecutor(len(PICTURES)) as pool:
        together = list(pool.map(lambda picture: embedder.embed([picture], "visible"), PICTURES * 10))
    for found, wanted in zip(together, alone * 10, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_clips_without_frames_and_other_numbers_of_modalities_are_a_mistake_of_the_caller() -> None:
    network = ExportedNetwork(lambda frames, modality: pytest.fail("was asked"), 0)
    for shape, modalities in (((0, 1, 3, 8, 8), 0), ((1, 0, 3, 8, 8), 1), ((2, 1, 3, 8, 8), 1)):
        with pytest.raises(AssertionError):
            network(torch.zeros(shape), torch.zeros(modalities, dtype=torch.long))
