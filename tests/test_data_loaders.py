"""Batches: what is in them, that they depend on nothing but (seed, epoch, step), and that failures are clean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_datasets
from dinogrl.data import loaders
from dinogrl.data.clips import segment_starts, uniform
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import TrainingLoader, evaluation_loader
from dinogrl.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dinogrl.errors import DataError
from dinogrl.recipes.schema import Augment, Batch, Data
from dinogrl.records import ClipBatch, Dataset, Modality

OFF = Augment(crop_padding=0, flip=0, erase=0, visible_channel="none", infrared_channel="none")
SMALL = Data(height=32, width=16, workers=0)
TWO_BY_TWO = Batch(identities=2, clips=2)


@pytest.fixture(scope="module")
def vcm(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(tiny_datasets.hitsz_vcm(tmp_path_factory.mktemp("vcm")))


@pytest.fixture(scope="module")
def bupt(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(tiny_datasets.buptcampus(tmp_path_factory.mktemp("bupt")))


def loader(dataset: Dataset, data: Data = SMALL, **keywords: object) -> TrainingLoader:
    settings = {"seed": 7, "steps_per_epoch": 4, "batch": TWO_BY_TWO, "pairs": dataset.train_pairs} | keywords
    return TrainingLoader(dataset.train, dataset.train_labels(), data, **settings)  # type: ignore[arg-type]


def shown(batch: ClipBatch) -> list[list[int]]:
    """Numbers of the frames in every clip, read from their grey levels."""
    green = (batch.frames[:, :, 1].mean((-1, -2)).double().numpy() * IMAGENET_STD[1] + IMAGENET_MEAN[1]) * 255
    return [[tiny_datasets.level_to_number(level) for level in clip] for clip in green]


def same(first: ClipBatch, second: ClipBatch) -> bool:
    tensors = ("frames", "modality", "identity", "camera")
    return all(torch.equal(getattr(first, n), getattr(second, n)) for n in tensors) and first.tracklet_ids == second.tracklet_ids


def children(process: int) -> list[int]:
    """Processes started by this one, but for multiprocessing's own tracker, which other tests in the process may have left."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    found = [int(child) for child in listed.read_text().split()] if listed.exists() else []
    return [child for child in found if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_rows_are_visible_then_infrared_and_labels_are_classes(vcm: Dataset) -> None:
    by_id = {t.id: t for t in vcm.train}
    labels = vcm.train_labels()
    for batch in loader(vcm).epoch(0):
        assert batch.frames.shape == (8, 6, 3, 32, 16) and batch.frames.dtype == torch.float32
        assert batch.modality.tolist() == [0] * 4 + [1] * 4
        assert batch.identity[:4].tolist() == batch.identity[4:].tolist()
        for row, name in enumerate(batch.tracklet_ids):
            assert batch.identity[row] == labels[by_id[name].identity]
            assert batch.camera[row] == by_id[name].camera and batch.modality[row] == by_id[name].modality


@pytest.mark.parametrize("name", ["vcm", "bupt"])
def test_the_same_batches_whatever_the_workers(name: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(name)
    alone = [list(loader(dataset).epoch(epoch)) for epoch in range(2)]
    for workers in (1, 2):
        many = loader(dataset, SMALL.model_copy(update={"workers": workers}))
        for epoch in range(2):
            batches = list(many.epoch(epoch))
            assert len(batches) == 4 and all(map(same, batches, alone[epoch]))
        many.close()
    assert not same(alone[0][0], alone[1][0])
    assert not same(alone[0][0], next(loader(dataset, seed=8).epoch(0)))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_the_middle_gives_the_rest(vcm: Dataset, workers: int) -> None:
    data = SMALL.model_copy(update={"workers": workers})
    whole = list(loader(vcm).epoch(3))
    resumed = loader(vcm, data)
    abandoned = resumed.epoch(1)
    next(abandoned)  # an epoch that is left in the middle must not leak into the next
    abandoned.close()  # type: ignore[attr-defined]
    assert all(map(same, resumed.epoch(3, start_step=2), whole[2:]))
    assert list(resumed.epoch(3, start_step=4)) == []
    resumed.close()
    assert all(map(same, resumed.epoch(3), whole)), "usable again after close"
    resumed.close()


def test_global_random_state_neither_matters_nor_changes(vcm: Dataset) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = list(loader(vcm).epoch(0))
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(2)
    assert all(map(same, first, loader(vcm).epoch(0)))


def test_training_clips_take_one_frame_of_every_segment(vcm: Dataset) -> None:
    length = {t.id: len(t.frames) for t in vcm.train}
    for batch in loader(vcm, SMALL.model_copy(update={"augment": OFF})).epoch(0):
        for name, numbers in zip(batch.tracklet_ids, shown(batch), strict=True):
            step = -(-length[name] // 6)
            assert all(min(i * step, length[name] - 1) <= n < (i + 1) * step for i, n in enumerate(numbers))


def test_every_epoch_draws_frames_and_changes_anew(vcm: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, tuple[int, ...], object]] = []

    def noted(filler: object, place: int, indices: np.ndarray, changes: list[object]) -> None:
        seen.append((place, tuple(indices.tolist()), changes[0]))

    monkeypatch.setattr(loaders._Filler, "fill", noted)
    for epoch in range(8):
        assert len(list(loader(vcm, steps_per_epoch=1).epoch(epoch))) == 1
    first = [(indices, change) for place, indices, change in seen if place == 0]
    assert len(first) == 8 and len({indices for indices, _ in first}) > 3 and len({change for _, change in first}) > 3


def test_pairs_show_the_same_moments(bupt: Dataset) -> None:
    seen = set()
    for batch in loader(bupt, SMALL.model_copy(update={"augment": OFF})).epoch(0):
        numbers = shown(batch)
        assert numbers[:4] == numbers[4:]
        assert [name.replace("RGB", "IR") for name in batch.tracklet_ids[:4]] == batch.tracklet_ids[4:]
        seen |= {tuple(clip) for clip in numbers}
    assert len(seen) > 4


def test_of_an_unequal_pair_only_moments_that_both_have_are_shown(bupt: Dataset) -> None:
    shorter = [replace(t, frames=t.frames[:9]) if t.modality is Modality.INFRARED else t for t in bupt.train]
    for batch in loader(replace(bupt, train=shorter), SMALL.model_copy(update={"augment": OFF})).epoch(0):
        numbers = shown(batch)
        assert numbers[:4] == numbers[4:] and max(map(max, numbers)) < 9


def test_pairs_are_flipped_together(bupt: Dataset, tmp_path: Path) -> None:
    """One half of the picture is bright: which half tells whether a clip was flipped."""
    for path in bupt.root.rglob("*.jpg"):
        target = tmp_path / path.relative_to(bupt.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        image = np.zeros((32, 16, 3), np.uint8)
        image[:, 8:] = 255
        target.write_bytes(tiny_datasets.encode_jpeg(image))
    for path in bupt.root.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copy = open_dataset(tmp_path)
    flips = []
    for batch in loader(
        copy, SMALL.model_copy(update={"augment": OFF.model_copy(update={"pair_flip": 0.5})}), steps_per_epoch=8
    ).epoch(0):
        left_is_bright = (batch.frames[..., :8].mean((1, 2, 3, 4)) > batch.frames[..., 8:].mean((1, 2, 3, 4))).tolist()
        assert left_is_bright[:4] == left_is_bright[4:]
        flips += left_is_bright
    assert set(flips) == {True, False}


@pytest.mark.parametrize("name", ["vcm", "bupt"])
def test_two_ranks_together_are_one_process(name: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(name)
    whole = list(loader(dataset).epoch(1))
    parts = [list(loader(dataset, rank=rank, world_size=2).epoch(1)) for rank in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        order = [0, 1, 4, 5, 2, 3, 6, 7]  # rank 0: first identity's visible and infrared rows, then rank 1's
        assert first.tracklet_ids + second.tracklet_ids == [batch.tracklet_ids[row] for row in order]
        assert torch.equal(torch.cat([first.frames, second.frames]), batch.frames[order])
    with pytest.raises(DataError, match="multiple of 3"):
        loader(dataset, rank=0, world_size=3)


@pytest.mark.parametrize(("sampling", "rule"), [("segments", segment_starts), ("uniform", uniform)])
@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_every_tracklet_once_in_order(vcm: Dataset, sampling: str, rule: object, workers: int) -> None:
    tracklets = [*vcm.query, *vcm.gallery]
    batches = evaluation_loader(tracklets, SMALL.model_copy(update={"workers": workers}), sampling=sampling, batch=5)
    for _ in range(2):
        out = list(batches)
        assert len(out) == len(batches) == -(-len(tracklets) // 5)
        assert [name for batch in out for name in batch.tracklet_ids] == [t.id for t in tracklets]
        assert torch.cat([batch.identity for batch in out]).tolist() == [t.identity for t in tracklets]
        expected = [rule(len(t.frames), 6).tolist() for t in tracklets]  # type: ignore[operator]
        assert [clip for batch in out for clip in shown(batch)] == expected
    assert list(evaluation_loader([], SMALL, sampling=sampling, batch=5)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_frame_is_one_line_with_its_path(tmp_path: Path, workers: int) -> None:
    dataset = open_dataset(tiny_datasets.hitsz_vcm(tmp_path, train=2, test=1))
    bad = dataset.query[1].path(2)
    bad.write_bytes(bad.read_bytes()[:-30])
    for frame in range(len(dataset.train[0].frames)):
        dataset.train[0].path(frame).unlink()
    data = SMALL.model_copy(update={"workers": workers})
    for batches in (loader(dataset, data).epoch(0), evaluation_loader(dataset.query, data, sampling="segments", batch=2)):
        with pytest.raises(DataError) as caught:
            list(batches)
        assert ".jpg" in str(caught.value) and "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
        assert not children(os.getpid()), "the caught error must not keep the workers"
    lenient = data.model_copy(update={"broken_frames": "neighbour"})
    batches = list(evaluation_loader(dataset.query, lenient, sampling="segments", batch=2))
    assert [batch.replaced_frames for batch in batches] == [1, 0]


@pytest.mark.parametrize("name", ["vcm", "bupt"])
def test_workers_can_be_spawned(name: str, request: pytest.FixtureRequest) -> None:
    """Where processes are not forked, a worker receives its source of batches pickled."""
    import pickle

    source = loader(request.getfixturevalue(name))._source
    assert same(pickle.loads(pickle.dumps(source))[(1, 2)], source[(1, 2)])


@pytest.mark.parametrize(("method", "threads"), [("fork", []), ("spawn", [1]), ("forkserver", [1])])
def test_a_worker_that_begins_anew_has_one_thread_of_opencv(
    method: str, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda: method)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr(loaders.cv2, "setNumThreads", set_to.append)
    loaders._start_worker(0)
    assert set_to == threads


def test_no_training_tracklets(vcm: Dataset) -> None:
    with pytest.raises(DataError, match="no training tracklets"):
        TrainingLoader([], {}, SMALL, TWO_BY_TWO, seed=1)


def test_natural_epoch_length(vcm: Dataset) -> None:
    assert loader(vcm, steps_per_epoch=None).steps_per_epoch == 4  # 16 visible tracklets, 2 x 2 a batch


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see processes")
def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    tiny_datasets.hitsz_vcm(tmp_path, train=2, test=1)
    program = f"""
        import itertools
        import signal
        from dinogrl.data.datasets import open_dataset
        from dinogrl.data.loaders import TrainingLoader
        from dinogrl.recipes.schema import Batch, Data
        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
            dataset = open_dataset({str(tmp_path)!r})
            batches = TrainingLoader(dataset.train, dataset.train_labels(), Data(height=64, width=32, workers=2),
                                     Batch(identities=2, clips=2), seed=1, steps_per_epoch=3)
            for epoch in itertools.count():
                for step, batch in enumerate(batches.epoch(epoch)):
                    if epoch == step == 1:
                        print("running", flush=True)
    """
    # Python may be interrupted anywhere, also where it can only report a second exception; the processes must end every time.
    reports = [interrupted(textwrap.dedent(program)) for _ in range(3)]
    assert all("KeyboardInterrupt" in errors for errors in reports)
    assert any(errors.count("Traceback") == 1 for errors in reports), reports


def interrupted(program: str) -> str:
    """Run a program until it prints "running", press Ctrl-C, and see that nothing is left; gives what it wrote on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None and process.stdout.readline().strip() == "running"
        workers = children(process.pid)
        assert len(workers) >= 2
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the workers too
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and any(Path(f"/proc/{worker}").exists() for worker in workers):
            time.sleep(0.1)
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        return errors
    finally:
        if process.poll() is None:
            process.kill()
