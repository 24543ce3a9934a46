"""Batches of clips, made by worker processes: the same batches whatever the number of workers.

Every clip draws from a generator of its own, seeded by (seed, epoch, step, row), so a run that resumes in the middle of an epoch
sees what it would have seen. A worker hands an unreadable frame back as a message, and the main process raises it as one
:class:`DataError`.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from dinogrl.data.clips import SAMPLINGS
from dinogrl.data.frames import read_clip
from dinogrl.data.masks import read_masks
from dinogrl.data.samplers import AlignedPairs, BatchSampler, IdentityBalanced, Pick, rows_of_rank
from dinogrl.data.transforms import Change, apply, draw, move_masks
from dinogrl.errors import DataError
from dinogrl.recipes.schema import Batch, Data
from dinogrl.records import ClipBatch, Tracklet
from dinogrl.runtime import derived_seed, device

Address = tuple[int, int]
"""(epoch, step)"""


class TrainingLoader:
    """Identity-balanced training batches; content is a pure function of (seed, epoch, step).

    ``labels``: identity -> class index; ``pairs``: positions in ``tracklets`` of pixel-aligned (visible, infrared) tracklets, which
    then are what batches are made of. ``steps_per_epoch`` counts batches; None goes about once through the tracklets of the larger
    modality. ``sampling`` names an entry of :data:`dinogrl.data.clips.SAMPLINGS`; None takes ``uniform`` for pairs, else
    ``segments``. Of ``world_size`` processes each gets its share of the identities of the same batches.

    Raises :class:`DataError` when no batch can be made of the tracklets, and while iterating at an unreadable frame.
    """

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        labels: dict[int, int],
        data: Data,
        batch: Batch,
        *,
        seed: int,
        steps_per_epoch: int | None = None,
        pairs: Sequence[tuple[int, int]] = (),
        rank: int = 0,
        world_size: int = 1,
        sampling: str | None = None,
    ) -> None:
        if not tracklets:
            raise DataError("the dataset has no training tracklets; `dinogrl check` says why")
        sampler: BatchSampler
        if pairs:
            sampler = AlignedPairs(tracklets, pairs, batch.identities, batch.clips, seed)
        else:
            sampler = IdentityBalanced(tracklets, batch.identities, batch.clips, seed)
        rows_of_rank(sampler.batch(0, 0), batch.identities, rank, world_size)  # says now, not in a worker, if it cannot be split
        self.skipped_identities = sampler.skipped
        self.steps_per_epoch = steps_per_epoch or sampler.natural_steps
        self._source = _TrainingBatches(
            tracklets,
            labels,
            data,
            sampler,
            batch.identities,
            seed,
            sampling or ("uniform" if pairs else "segments"),
            rank,
            world_size,
        )
        self._workers = data.workers
        self._steps = _Steps()
        self._loader: DataLoader[ClipBatch] | None = None

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ClipBatch]:
        """The batches of an epoch from ``start_step`` on. Worker processes stay for the next epoch; :meth:`close` ends them."""
        self._steps.addresses = [(epoch, step) for step in range(start_step, self.steps_per_epoch)]
        if self._loader is None:
            self._loader = _torch_loader(self._source, self._steps, self._workers, persistent=True)
        try:
            yield from _unwrap(self._loader)
        except (KeyboardInterrupt, DataError):
            self.close()
            raise

    def close(self) -> None:
        """End the worker processes. The loader can be used again afterwards."""
        self._loader = None  # the last reference: its end stops the workers


class EvaluationLoader:
    """Every tracklet once, in the given order; see :func:`evaluation_loader`."""

    def __init__(self, tracklets: Sequence[Tracklet], data: Data, sampling: str, batch: int) -> None:
        assert batch >= 1
        self._source = _EvaluationBatches(tracklets, data, sampling, batch)
        self._steps = _Steps([(0, step) for step in range(math.ceil(len(tracklets) / batch))])
        self._workers = data.workers

    def __len__(self) -> int:
        return len(self._steps.addresses)

    def __iter__(self) -> Iterator[ClipBatch]:
        yield from _unwrap(_torch_loader(self._source, self._steps, min(self._workers, len(self)), persistent=False))


def evaluation_loader(tracklets: Sequence[Tracklet], data: Data, *, sampling: str, batch: int) -> EvaluationLoader:
    """One clip of every tracklet, unchanged but for size and normalisation, ``batch`` clips at a time, the last batch smaller.

    ``sampling``: ``segments`` (HITSZ-VCM) or ``uniform`` (BUPTCampus). ``identity`` in the batches is the dataset's own number.
    """
    return EvaluationLoader(tracklets, data, sampling, batch)


@dataclass(frozen=True)
class _Failure:
    """What a worker sends instead of a batch."""

    message: str


class _Source(Protocol):
    def make(self, address: Address) -> ClipBatch: ...


class _TrainingBatches(TorchDataset["ClipBatch | _Failure"]):
    """(epoch, step) -> batch."""

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        labels: dict[int, int],
        data: Data,
        sampler: BatchSampler,
        identities: int,
        seed: int,
        sampling: str,
        rank: int,
        world_size: int,
    ) -> None:
        self.tracklets, self.labels, self.data, self.sampler = tracklets, labels, data, sampler
        self.identities, self.seed, self.sampling = identities, seed, SAMPLINGS[sampling].train
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, address: Address) -> ClipBatch | _Failure:
        return _guarded(self, address)

    def make(self, address: Address) -> ClipBatch:
        picks = rows_of_rank(self.sampler.batch(*address), self.identities, self.rank, self.world_size)
        lengths = self._lengths(picks)
        filler = _Filler([self.tracklets[pick.tracklet] for pick in picks], self.data)
        size = (self.data.height, self.data.width)
        for place, pick in enumerate(picks):
            together = np.random.default_rng(derived_seed(self.seed, "frames", *address, pick.shared))
            indices = self.sampling(lengths[pick.shared], self.data.frames, together)
            flip_all = bool(together.random() < self.data.augment.pair_flip)
            own = np.random.default_rng(derived_seed(self.seed, "change", *address, pick.row))
            modality = self.tracklets[pick.tracklet].modality
            filler.fill(place, indices, draw(self.data.augment, modality, self.data.frames, size, own, flip_all))
        return filler.batch([self.labels[tracklet.identity] for tracklet in filler.tracklets])

    def _lengths(self, picks: list[Pick]) -> dict[int, int]:
        """Frames to choose from; of a pair of unequal tracklets, as many as the shorter one has."""
        lengths: dict[int, int] = {}
        for pick in picks:
            length = len(self.tracklets[pick.tracklet].frames)
            lengths[pick.shared] = min(length, lengths.get(pick.shared, length))
        return lengths


class _EvaluationBatches(TorchDataset["ClipBatch | _Failure"]):
    """(0, step) -> batch."""

    def __init__(self, tracklets: Sequence[Tracklet], data: Data, sampling: str, batch: int) -> None:
        self.tracklets, self.data, self.sampling, self.size = tracklets, data, SAMPLINGS[sampling].test, batch

    def __getitem__(self, address: Address) -> ClipBatch | _Failure:
        return _guarded(self, address)

    def make(self, address: Address) -> ClipBatch:
        start = address[1] * self.size
        filler = _Filler(self.tracklets[start : start + self.size], self.data)
        for place, tracklet in enumerate(filler.tracklets):
            filler.fill(place, self.sampling(len(tracklet.frames), self.data.frames), [Change()])
        return filler.batch([tracklet.identity for tracklet in filler.tracklets])


class _Filler:
    """A batch in the making: one float32 block into which every clip is written where it belongs."""

    def __init__(self, tracklets: Sequence[Tracklet], data: Data) -> None:
        self.tracklets, self.data, self.replaced = tracklets, data, 0
        shape = (len(tracklets), data.frames, 3, data.height, data.width)
        self.frames = torch.from_numpy(np.empty(shape, np.float32))  # numpy's memory, in huge pages: a sixth of the time to touch
        self.masks = None if data.masks is None else torch.zeros(shape[:2] + shape[3:])
        if get_worker_info() is not None:
            self.frames.share_memory_()  # now, while it is empty; sending it later then copies nothing
            if self.masks is not None:
                self.masks.share_memory_()
        self._array = self.frames.numpy()

    def fill(self, place: int, indices: np.ndarray, changes: list[Change]) -> None:
        size = (self.data.height, self.data.width)
        clip, replaced = read_clip(self.tracklets[place], indices, size, self.data.broken_frames)
        apply(clip, changes, out=self._array[place])
        if self.masks is not None and self.data.masks is not None:
            masks = read_masks(self.tracklets[place], indices, size, self.data.masks, self.data.broken_frames)
            move_masks(masks, changes, out=self.masks[place].numpy())
        self.replaced += replaced

    def batch(self, identities: list[int]) -> ClipBatch:
        return ClipBatch(
            frames=self.frames,
            modality=torch.tensor([int(tracklet.modality) for tracklet in self.tracklets], dtype=torch.int64),
            identity=torch.tensor(identities, dtype=torch.int64),
            camera=torch.tensor([tracklet.camera for tracklet in self.tracklets], dtype=torch.int64),
            tracklet_ids=[tracklet.id for tracklet in self.tracklets],
            replaced_frames=self.replaced,
            masks=self.masks,
        )


class _Steps(Sampler[Address]):
    """The addresses of the batches to come, set before every epoch."""

    def __init__(self, addresses: Sequence[Address] = ()) -> None:
        self.addresses = addresses

    def __iter__(self) -> Iterator[Address]:
        return iter(self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)


def _guarded(source: _Source, address: Address) -> ClipBatch | _Failure:
    try:
        return source.make(address)
    except DataError as error:
        return _Failure(str(error))


def _torch_loader(
    source: TorchDataset[ClipBatch | _Failure], steps: _Steps, workers: int, persistent: bool
) -> DataLoader[ClipBatch]:
    if workers:
        # Here and not in the workers: OpenCV's threads do not survive the fork, and a worker that sends them home waits for ever.
        cv2.setNumThreads(1)
    return DataLoader(
        source,  # type: ignore[arg-type]  # a batch or its failure; _unwrap tells them apart
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        persistent_workers=persistent and workers > 0,
        prefetch_factor=2 if workers else None,
        pin_memory=device().type == "cuda",
        generator=torch.Generator(),  # its own, or the loader would draw from torch's global one
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(number: int) -> None:
    """One thread a worker, and Ctrl-C is the main process's business: it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if torch.multiprocessing.get_start_method() != "fork":  # a process that begins anew has OpenCV's threads anew
        cv2.setNumThreads(1)


def _unwrap(loader: DataLoader[ClipBatch]) -> Iterator[ClipBatch]:
    """Batches of a torch loader; a failure is raised as the one-line error that it is."""
    batches = iter(loader)
    del loader
    try:
        with dead_workers_named():
            for batch in batches:
                if isinstance(batch, _Failure):
                    raise DataError(batch.message)
                yield batch
    finally:
        del batches  # or the traceback would keep the worker processes until somebody collects it


@contextmanager
def dead_workers_named() -> Iterator[None]:
    """Say as one line that a loader process died: torch raises it wherever this process is, in the midst of a step too."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        first = str(error).splitlines()[0]
        raise DataError(
            f"a loader process died ({first}); too little memory or /dev/shm? set data.workers=0 to do without"
        ) from error
