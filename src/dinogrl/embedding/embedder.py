"""The network as a person uses it: frames in, part vectors out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dinogrl import distances, runtime
from dinogrl.data.clips import SAMPLINGS
from dinogrl.data.transforms import normalise
from dinogrl.embedding import hub
from dinogrl.embedding.exported import ExportedModel
from dinogrl.embedding.opening import open_model
from dinogrl.embedding.pictures import Frame, listed, pixels
from dinogrl.errors import CheckpointError, DataError, UnknownNameError
from dinogrl.evaluation.results import Metrics
from dinogrl.models.archive import TrainedModel, load_model
from dinogrl.records import Modality, ModelOutput

PRECISIONS = ("float32", "bfloat16", "auto")


class Embedder:
    """Embeds tracklets of one person each, given as image files, arrays, tensors or images of Pillow.

    ``trained`` is a model of this program, or an exported one: both have a network, a recipe and a fingerprint. ``precision`` is
    what the network computes in: ``float32``; ``bfloat16``, in half the time on processors and GPUs that have it; ``auto`` takes
    bfloat16 where it is the faster one. Raises :class:`UnknownNameError` for another word, and :class:`CheckpointError` for an
    exported model and ``bfloat16``: a file computes in what it was exported in.

    >>> embedder = Embedder.load("runs/dinogrl/model.safetensors")              # doctest: +SKIP
    >>> night = embedder.embed(sorted(Path("night/0001").glob("*.jpg")), "infrared")   # doctest: +SKIP
    >>> embedder.distance(night, day)                                           # doctest: +SKIP
    """

    def __init__(self, trained: TrainedModel | ExportedModel, device: str = "auto", precision: str = "float32") -> None:
        self.trained = trained
        self.device = runtime.device(device)
        self.bfloat16 = computes_in_bfloat16(trained, precision, self.device)
        self.network: nn.Module = trained.network.eval().to(self.device)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", precision: str = "float32") -> Embedder:
        """From a model.safetensors, or an exported .onnx, .xml or .pt2. Raises :class:`CheckpointError` for any other file."""
        return cls(open_model(Path(path)), device, precision)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str = "auto", revision: str | None = None, precision: str = "float32"
    ) -> Embedder:
        """From a folder that :meth:`save_pretrained` wrote, or a repository ``"owner/name"`` of the Hugging Face hub.

        Raises :class:`CheckpointError` where neither is there, or no model of this program is in it.
        """
        return cls(load_model(hub.find(name, revision)), device, precision)

    def save_pretrained(self, folder: str | Path, scores: Sequence[Metrics] = ()) -> Path:
        """Write model.safetensors, config.json and the card README.md into ``folder``, as the hub has them.

        ``scores``: results for the card, as :func:`dinogrl.evaluation.read_metrics` gives them. Raises
        :class:`ExportError` for an exported model.
        """
        return hub.write(Path(folder), self.trained, scores)

    def push_to_hub(self, name: str, scores: Sequence[Metrics] = (), private: bool = True, token: str | None = None) -> str:
        """Upload what :meth:`save_pretrained` writes to the repository ``"owner/name"``, made where it is not there; its address.

        ``token``: None takes that of ``hf auth login``. Raises :class:`ExportError` where the hub refuses or cannot be reached.
        """
        return hub.push(name, self.trained, scores, private=private, token=token)

    @property
    def fingerprint(self) -> str:
        """Names the weights; vectors of different fingerprints must not be compared."""
        return self.trained.fingerprint

    def embed(self, frames: Iterable[Frame], modality: Modality | str | int) -> NDArray[np.float32]:
        """One tracklet, frames in order of time -> (P,D) float32.

        A frame is the path of an image, or its pixels of any size, uint8 RGB (H,W,3) or grey (H,W): an array, a tensor or an
        image of Pillow. The first of each of T segments is taken. ``modality``: "visible" or "infrared", or 0 or 1. Raises
        :class:`DataError` for an empty tracklet, an unreadable image, pixels of another form, an unknown modality, and for a
        vector that is not finite.
        """
        given = listed(frames)
        seen = modality_of(modality)
        settings = self.trained.recipe.data
        chosen = SAMPLINGS["segments"].test(len(given), settings.frames)
        clip = np.stack([pixels(given[int(i)], (settings.height, settings.width)) for i in chosen])
        batch = torch.from_numpy(normalise(clip))[None].to(self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            output: ModelOutput = self.network(batch, torch.tensor([seen]))
        vectors: NDArray[np.float32] = output.embedding[0].float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise DataError("the network gives a vector that is not finite for these frames; is it trained?")
        return vectors

    def distance(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        """Distance of two embeddings (P,D), by the recipe's measure; smaller is more alike.

        Raises :class:`DataError` for other shapes: :mod:`dinogrl.distances` compares many with many.
        """
        one, other = np.asarray(a), np.asarray(b)
        if one.ndim != 2 or one.shape != other.shape:
            raise DataError(f"cannot compare {one.shape} with {other.shape}: expected two embeddings (P,D) of this model")
        return float(distances.DISTANCES[self.trained.recipe.evaluation.distance](one[None], other[None])[0, 0])

    def __repr__(self) -> str:
        rounded = " in bfloat16" if self.bfloat16 else ""
        return f"Embedder({self.trained.recipe.name!r}, fingerprint {self.fingerprint[:12]}, on {self.device}{rounded})"


def computes_in_bfloat16(trained: TrainedModel | ExportedModel, precision: str, where: torch.device) -> bool:
    """What a model and a wanted ``precision`` come to on a device; errors as of :class:`Embedder`."""
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if not isinstance(trained, ExportedModel):
        return runtime.wants_bfloat16(precision, where)
    if precision == "bfloat16":
        raise CheckpointError("an exported model computes in what it was exported in; use its model.safetensors, or export it so")
    return False


def modality_of(name: Modality | str | int) -> Modality:
    """``"visible"`` or ``"infrared"``, or their numbers 0 and 1, as the enum. Raises :class:`DataError` for anything else."""
    try:
        return Modality[name.upper()] if isinstance(name, str) else Modality(name)
    except (KeyError, ValueError) as error:
        raise DataError(f"unknown modality {name!r}; use visible or infrared") from error
