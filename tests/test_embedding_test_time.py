"""Several looks at one tracklet: what is looked at, and that the mean is the mean."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dinogrl import checkpoints
from dinogrl.data.clips import SAMPLINGS
from dinogrl.data.frames import write_image
from dinogrl.data.loaders import evaluation_loader
from dinogrl.embedding.extract import extract
from dinogrl.embedding.test_time import FlipAveraged, Looks, average_clips, extract_looks, halves, split_clips
from dinogrl.errors import DataError
from dinogrl.recipes.schema import Data
from dinogrl.records import Embeddings, Modality, ModelOutput, Tracklet

DATA = Data(height=16, width=8, frames=3, workers=0)


def a_tracklet(length: int, name: str = "t") -> Tracklet:
    return Tracklet(name, 4, 2, Modality.VISIBLE, "", tuple(f"{name}-{i}.png" for i in range(length)))


@given(st.integers(1, 60), st.integers(1, 12), st.integers(2, 6), st.sampled_from(list(SAMPLINGS)))
def test_clips_cover_all_frames_and_any_sampling_keeps_them(length: int, frames: int, count: int, sampling: str) -> None:
    tracklet = a_tracklet(length)
    everything = split_clips(tracklet, frames, "all")
    assert {frame for clip in everything for frame in clip.frames} == set(tracklet.frames)
    assert everything[0].frames == tuple(tracklet.frames[i] for i in SAMPLINGS["segments"].test(length, frames))
    for clip in (*everything, *split_clips(tracklet, frames, count)):
        assert len(clip.frames) == frames and (clip.identity, clip.camera) == (4, 2)
        order = [tracklet.frames.index(frame) for frame in clip.frames]
        assert order == sorted(order), "time runs forward"
        assert SAMPLINGS[sampling].test(frames, frames).tolist() == list(range(frames))
    assert len(split_clips(tracklet, frames, count)) == min(count, len(everything))
    assert split_clips(tracklet, frames, 1) == [tracklet]


def test_halves_keep_the_name_and_every_frame() -> None:
    tracklets = [a_tracklet(7), a_tracklet(1, "single")]
    first, second = halves(tracklets)
    assert first[0].frames + second[0].frames == tracklets[0].frames and first[0].id == second[0].id == "t"
    assert first[1].frames == second[1].frames == tracklets[1].frames


class Weighing(nn.Module):
    """One part: the clip's pixels weighed by column and frame, so that mirror and order matter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, frames: Tensor, modality: Tensor) -> ModelOutput:
        columns = torch.linspace(1, 2, frames.shape[-1])
        order = torch.linspace(1, 3, frames.shape[1])
        return ModelOutput(((frames * columns).mean((-2, -1)) * order[:, None]).sum(1)[:, None] * self.scale, gait_parts=0)


@pytest.fixture
def tracklets(tmp_path: Path) -> list[Tracklet]:
    made = []
    for name, length in (("a", 8), ("b", 2), ("c", 5)):
        tracklet = replace(a_tracklet(length, name), root=str(tmp_path))
        for i in range(length):
            picture = np.random.default_rng([ord(name), i]).integers(0, 256, (16, 8, 3), dtype=np.uint8)
            write_image(tracklet.path(i), picture)
        made.append(tracklet)
    return made


def test_no_further_looks_are_the_plain_embedding(tracklets: list[Tracklet]) -> None:
    plain = extract(Weighing(), evaluation_loader(tracklets, DATA, sampling="segments", batch=2), "cpu", tracklets=tracklets)
    one = extract_looks(Weighing(), tracklets, DATA, "cpu", Looks(), sampling="segments", batch=2)
    np.testing.assert_allclose(one.parts, plain.parts, rtol=1e-6)
    assert (one.tracklet_ids, one.frames, one.fingerprint) == (plain.tracklet_ids, plain.frames, plain.fingerprint)
    assert Looks().options == {}


def test_looks_are_averaged(tracklets: list[Tracklet]) -> None:
    network = Weighing()
    both = extract_looks(network, tracklets, DATA, "cpu", Looks(flip=True, clips="all"), sampling="segments", batch=2)
    assert both.fingerprint == checkpoints.fingerprint(network.state_dict())
    assert both.tracklet_ids == ["a", "b", "c"] and both.identities.tolist() == [4, 4, 4]
    for row, tracklet in enumerate(tracklets):
        vectors = []
        for clip in split_clips(tracklet, 3, "all"):
            (batch,) = evaluation_loader([clip], DATA, sampling="segments", batch=1)
            for frames in (batch.frames, batch.frames.flip(-1)):
                vectors.append(network(frames, batch.modality).parts[0].detach().numpy())
        np.testing.assert_allclose(both.parts[row], np.mean(vectors, axis=0), rtol=1e-5, atol=1e-6)
    assert Looks(flip=True, clips="all").options == {"flip": True, "clips": "all"}
    assert Looks(clips=3).options == {"clips": 3}


def test_looks_from_a_command_line() -> None:
    assert Looks.of(True, "all") == Looks(True, "all") and Looks.of(False, "4") == Looks(False, 4)
    for wrong in ("0", "-1", "every", "1.5", ""):
        with pytest.raises(DataError, match="number from 1 on, or all"):
            Looks.of(False, wrong)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 99))
def test_an_average_is_the_literal_one_and_of_one_clip_the_clip_itself(counts: list[int], seed: int) -> None:
    tracklets = [a_tracklet(4, f"t{i}") for i in range(len(counts))]
    rows = np.repeat(np.arange(len(counts)), counts)
    parts = np.random.default_rng(seed).standard_normal((len(rows), 2, 3)).astype(np.float32)

    def embedded(vectors: np.ndarray) -> Embeddings:
        labels = rows, rows % 3, rows % 2
        return Embeddings(vectors, [f"clip{i}" for i in range(len(rows))], *labels, "f", [["frame"]] * len(rows))

    mean = average_clips(embedded(parts), tracklets, counts)
    assert mean.tracklet_ids == [t.id for t in tracklets] and mean.identities.tolist() == list(range(len(counts)))
    for row, count in enumerate(counts):
        own = parts[rows == row]
        np.testing.assert_allclose(mean.parts[row], own.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-7)
        if count == 1:
            np.testing.assert_array_equal(mean.parts[row], own[0])
    same = average_clips(embedded(parts[np.cumsum([0, *counts[:-1]])][rows]), tracklets, counts)
    np.testing.assert_allclose(same.parts, parts[np.cumsum([0, *counts[:-1]])], rtol=1e-6, err_msg="equal clips change nothing")


def test_an_average_needs_little_beside_the_clips_and_itself() -> None:
    """The clips of a whole test set take gigabytes; twice as many in float64, beside them, would be too many."""
    tracklets, counts = [a_tracklet(4, f"t{i}") for i in range(100)], [1 + i % 20 for i in range(100)]
    clips = sum(counts)
    parts = np.ones((clips, 10, 256), np.float32)
    labels = [np.zeros(clips, np.int64)] * 3
    every = Embeddings(parts, [f"clip{i}" for i in range(clips)], *labels, "f")
    tracemalloc.start()
    mean = average_clips(every, tracklets, counts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * mean.parts.nbytes < parts.nbytes, f"{peak / parts.nbytes:.1f} times the clips' own size"


@given(st.integers(0, 99))
def test_a_flip_averaged_network_does_not_tell_a_clip_from_its_mirror_image(seed: int) -> None:
    frames = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 3, 3, 4, 5)).astype(np.float32))
    network, modality = FlipAveraged(Weighing()), torch.zeros(2, dtype=torch.int64)
    plain = network(frames, modality).parts.detach()
    np.testing.assert_allclose(network(frames.flip(-1), modality).parts.detach(), plain, rtol=1e-5, atol=1e-6)
    symmetric = frames + frames.flip(-1)
    np.testing.assert_allclose(
        network(symmetric, modality).parts.detach(), Weighing()(symmetric, modality).parts.detach(), rtol=1e-5, atol=1e-6
    )


def test_progress_counts_tracklets(tracklets: list[Tracklet]) -> None:
    told: list[int] = []
    extract_looks(Weighing(), tracklets, DATA, "cpu", Looks(clips="all"), sampling="segments", batch=2, on_progress=told.append)
    assert told[-1] == 3 and told == sorted(told)


def test_a_loader_process_that_dies_while_the_network_works_is_one_line(tracklets: list[Tracklet]) -> None:
    class Interrupted(Weighing):
        def forward(self, frames: Tensor, modality: Tensor) -> ModelOutput:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nIt is torch that raises this, anywhere.")

    with pytest.raises(DataError, match=r"^a loader process died \(DataLoader worker \(pid 7\).*set data.workers=0"):
        extract(Interrupted(), evaluation_loader(tracklets, DATA, sampling="segments", batch=2), "cpu")
