"""The things that flow through the program, each with one name and one type, checked when it is made.

Shape letters, here and everywhere: B clips, T frames, C channels, H height, W width, N tokens (or rows of an array of
embeddings), D width of a vector, P parts, K identities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinogrl.errors import DataError


class Modality(IntEnum):
    """What a camera sees by. The value is the index of the stem in the two-stream network."""

    VISIBLE = 0
    INFRARED = 1


@dataclass(frozen=True, slots=True)
class Tracklet:
    """A person seen by one camera without a break.

    ``identity`` and ``camera`` are integers that the dataset's reader gave; their written names are in :class:`Dataset`.
    ``frames`` are paths relative to ``root``, in the order of time.
    """

    id: str
    identity: int
    camera: int
    modality: Modality
    root: str
    frames: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.frames:
            raise DataError(f"tracklet {self.id!r} has no frames; remove it from the list or restore its files")

    def path(self, index: int) -> Path:
        """Path of one frame."""
        return Path(self.root, self.frames[index])


@dataclass(frozen=True)
class Dataset:
    """A dataset as its reader found it on disk.

    ``query`` and ``gallery`` are the test lists as the dataset's authors give them, both modalities in each; a protocol
    (:mod:`dinogrl.evaluation.protocols`) says which of them meet. ``paired`` marks training tracklets that come as pixel-aligned
    visible/infrared pairs: ``train_pairs[i]`` holds the positions in ``train`` of the visible and of the infrared one.
    ``auxiliary`` and ``auxiliary_pairs`` are further training tracklets whose identities one camera alone has seen (BUPTCampus).
    ``left_out`` counts what the reader dropped on purpose: reason -> how many. ``trial`` is the split that was read, of a dataset
    that has several (RegDB). ``name`` is that of the layout; ``simulated`` says that a simulation wrote it.
    """

    name: str
    root: Path
    train: Sequence[Tracklet]
    query: Sequence[Tracklet]
    gallery: Sequence[Tracklet]
    identity_names: dict[int, str]
    camera_names: dict[int, str]
    train_pairs: Sequence[tuple[int, int]] = ()
    auxiliary: Sequence[Tracklet] = ()
    auxiliary_pairs: Sequence[tuple[int, int]] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    trial: int | None = None
    simulated: bool = False

    @property
    def title(self) -> str:
        """What results call the dataset: drawn people in HITSZ-VCM's layout are not HITSZ-VCM."""
        return f"simulated ({self.name} layout)" if self.simulated else self.name

    def by_id(self) -> dict[str, Tracklet]:
        """Every tracklet once, however many lists it is in."""
        return {t.id: t for t in (*self.train, *self.query, *self.gallery, *self.auxiliary)}

    def train_labels(self) -> dict[int, int]:
        """identity -> class index 0..K-1, in ascending order of identity."""
        return {identity: label for label, identity in enumerate(sorted({t.identity for t in self.train}))}


@dataclass
class ClipBatch:
    """Clips ready for the network.

    ``frames`` (B,T,3,H,W) float, ImageNet-normalised; ``modality``, ``identity``, ``camera`` (B,) int64. In training ``identity``
    is a class index 0..K-1, in evaluation the dataset's own number. ``tracklet_ids`` holds B names, for messages. ``masks``, where
    the recipe names some: (B,T,H,W) float, probability of the person at each pixel, as a parser saw it.

    ``modality`` and ``camera`` stay on the host, which reads them: the way of the clips through the network depends on them, and
    asking an accelerator for it would wait for all of its work.
    """

    frames: Tensor
    modality: Tensor
    identity: Tensor
    camera: Tensor
    tracklet_ids: list[str]
    replaced_frames: int = 0
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        clips = self.frames.shape[0]
        assert self.frames.ndim == 5 and self.frames.shape[2] == 3, f"frames must be (B,T,3,H,W), got {tuple(self.frames.shape)}"
        for name in ("modality", "identity", "camera"):
            shape = tuple(getattr(self, name).shape)
            assert shape == (clips,), f"{name} must be ({clips},), got {shape}"
        assert len(self.tracklet_ids) == clips, f"{clips} clips but {len(self.tracklet_ids)} tracklet ids"
        wanted = (*self.frames.shape[:2], *self.frames.shape[3:])
        assert self.masks is None or self.masks.shape == wanted, f"masks must be {wanted}, got {tuple(self.masks.shape)}"

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network is called with: frames and modality, and masks where there are any."""
        return (self.frames, self.modality) if self.masks is None else (self.frames, self.modality, self.masks)

    def to(self, device: torch.device | str) -> ClipBatch:
        """The same batch with its frames, identities and masks on another device."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ClipBatch:
        """The same batch with all that :meth:`to` moves in page-locked memory (called by the data loader)."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> ClipBatch:
        masks = None if self.masks is None else change(self.masks)
        return replace(self, frames=change(self.frames), identity=change(self.identity), masks=masks)


@dataclass
class SilhouetteMaps:
    """What the gait stream saw and made on its way, for losses and figures. h, w: size of the maps (64 x 32 in the paper).

    ``silhouette`` (B,T,h,w) probability of the person, the centred channel of ``probabilities`` (B,T,2,h,w);
    ``gait_prior``, ``appearance_prior`` (B,T,C,h,w), or None where the recipe leaves one out; ``enriched`` (B,T,C',h,w), what the
    gait network reads; ``foreground`` (B,T,h,w) bool, pixels counted as the person.
    ``mask_error`` (scalar), in training only: how badly the frozen tokens are rebuilt from the probabilities (equation 5).
    """

    silhouette: Tensor
    probabilities: Tensor | None = None
    gait_prior: Tensor | None = None
    appearance_prior: Tensor | None = None
    enriched: Tensor | None = None
    foreground: Tensor | None = None
    mask_error: Tensor | None = None


@dataclass
class ModelOutput:
    """The same type in training and in evaluation.

    ``parts`` (B,P,D): part vectors before the BN neck, gait parts first, then appearance parts. ``gait_parts`` of the P belong to
    the gait stream. ``logits`` (B,P,K), or None in evaluation. ``supervised`` (P',) long: which of the P parts the losses look at,
    as many of each stream, gait parts first; ``embedded`` (P'',) long: which make the embedding.
    """

    parts: Tensor
    gait_parts: int
    logits: Tensor | None = None
    maps: SilhouetteMaps | None = None
    supervised: Tensor | None = None
    embedded: Tensor | None = None

    @property
    def embedding(self) -> Tensor:
        """(B,P'',D) the parts that are compared at test time."""
        return self.parts if self.embedded is None else self.parts[:, self.embedded]


@dataclass
class Embeddings:
    """One row a tracklet: ``parts`` (N,P,D) float32 and, of each, id, identity, camera and modality.

    ``fingerprint`` names the model that made them; embeddings of different models must not be compared. ``frames`` are the
    paths of one clip's frames, for pictures.
    """

    parts: np.ndarray
    tracklet_ids: list[str]
    identities: np.ndarray
    cameras: np.ndarray
    modalities: np.ndarray
    fingerprint: str
    frames: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = self.parts.shape[0]
        assert self.parts.ndim == 3, f"parts must be (N,P,D), got {self.parts.shape}"
        for name in ("identities", "cameras", "modalities"):
            assert getattr(self, name).shape == (rows,), f"{name} must be ({rows},), got {getattr(self, name).shape}"
        assert len(self.tracklet_ids) == rows

    def __len__(self) -> int:
        return int(self.parts.shape[0])

    def take(self, rows: np.ndarray) -> Embeddings:
        """The rows named by an index or boolean array."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Embeddings(
            parts=self.parts[index],
            tracklet_ids=[self.tracklet_ids[i] for i in index],
            identities=self.identities[index],
            cameras=self.cameras[index],
            modalities=self.modalities[index],
            fingerprint=self.fingerprint,
            frames=[self.frames[i] for i in index] if self.frames else [],
        )


@dataclass(frozen=True)
class Scores:
    """Result of ranking one set of queries against one gallery. Rates are in 0..1.

    ``cmc[k-1]`` is rank-k; it has ``max_rank`` entries, the last ones equal where the gallery is smaller.
    ``queries`` counts the queries with at least one match, ``skipped`` those without, which are left out.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    queries: int
    skipped: int
    gallery: int
    protocol: str = ""

    def rank(self, k: int) -> float:
        """Share of queries whose nearest match stands among the first k.

        Raises :class:`DataError` for k below 1, and beyond ``max_rank`` where the gallery goes on.
        """
        kept = len(self.cmc)
        if k < 1 or kept < min(k, self.gallery):
            raise DataError(
                f"rank-{k} is not known, only rank-1 to rank-{kept}; choose one of these, or score with a larger max_rank"
            )
        return float(self.cmc[min(k, kept) - 1])

    def as_dict(self) -> dict[str, Any]:
        """The entry of one direction in ``metrics.json``."""
        ranks = {f"rank{k}": self.rank(k) for k in (1, 5, 10, 20)}
        return {
            **ranks,
            "mAP": self.mAP,
            "mINP": self.mINP,
            "queries": self.queries,
            "skipped": self.skipped,
            "gallery": self.gallery,
        }
