"""Export a trained model to one file for another runtime, and look whether the file does what the model does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from dinogrl.catalog import Catalog
from dinogrl.checkpoints import expect_writable_file, nearest_folder
from dinogrl.data.frames import resize
from dinogrl.data.transforms import normalise
from dinogrl.embedding import export_onnx, export_openvino, export_torch
from dinogrl.embedding.export_graph import ExportGraph
from dinogrl.embedding.export_onnx import Clips
from dinogrl.embedding.exported import ExportedModel, Run, header_of
from dinogrl.errors import ExportError, in_one_line
from dinogrl.models.archive import TrainedModel
from dinogrl.models.precision import full
from dinogrl.records import Modality, ModelOutput

Frame = NDArray[np.uint8]

TOLERANCE = 1e-4
"""Largest difference in float32, as a share of the largest number in the same part, or of 1 where all are smaller."""
ROUNDINGS = 4
"""... or as a multiple of what float32's rounding does to the model itself, where that is more."""
LEAST_COSINE = 0.9
"""Of a clip's embedding in another precision; below, the file is of no use."""


@dataclass(frozen=True)
class Format:
    """How a format is written, read and run; ``suffix`` of its files and ``precisions`` that it has, float32 first.

    ``run_own`` runs what has just been written, where that differs from what reading it gives.
    """

    suffix: str
    precisions: tuple[str, ...]
    write: Callable[[ExportGraph, Path, str, str, Sequence[Clips]], None]
    read: Callable[[Path], ExportedModel]
    run_own: Callable[[Path], Run] | None = None


FORMATS: Catalog[Format] = Catalog(
    "format",
    {
        "onnx": Format(".onnx", ("float32", "int8"), export_onnx.write, export_onnx.read),
        "openvino": Format(".xml", ("float32", "float16", "bfloat16", "int8"), export_openvino.write, export_openvino.read),
        "torch": Format(".pt2", ("float32", "bfloat16"), export_torch.write, export_torch.read, export_torch.run_own),
    },
)


@dataclass(frozen=True)
class Check:
    """A batch of B clips of T frames of ``size`` (H,W), embedded by the file and by the model.

    ``difference``: the largest of any number, in the part where it weighs most; ``scale``: the model's largest number in that part
    (enhanced parts may be thousands of times larger than others, and would hide them); ``cosine``: the lowest of any clip.
    """

    clips: int
    frames: int
    size: tuple[int, int]
    difference: float
    scale: float
    cosine: float

    @property
    def share(self) -> float:
        """The difference, as a share of the scale, or of 1 where that is smaller."""
        return self.difference / max(1.0, self.scale)


def export_model(
    trained: TrainedModel,
    out: Path,
    *,
    format: str,
    frames: Sequence[Frame],
    precision: str = "float32",
    on_stage: Callable[[str], None] = lambda stage: None,
) -> list[Check]:
    """Write ``out`` (OpenVINO: and the .bin beside it), checked on clips of ``frames`` of several B, T, H and W.

    ``frames`` are pictures (H,W,3) uint8, such as the model will see. Raises :class:`ExportError`, and leaves no file, for a format
    without this precision or a recipe with another, for another suffix than the format's, for weights that are too large for the
    format, for a network that no exporter can follow, and where the file's embeddings are not the model's; :class:`DinogrlError`,
    before any work, where ``out`` cannot be written.
    """
    chosen = FORMATS[format]
    if precision not in chosen.precisions:
        raise ExportError(f"{format} has no {precision}; it has {', '.join(chosen.precisions)}")
    expect_writable_file(out)
    if out.suffix != chosen.suffix:
        raise ExportError(f"{out} should end with {chosen.suffix}: by its ending a file's reader is chosen")
    gait = trained.recipe.model.gait
    if precision == "float32" and gait is not None and gait.prior.precision == "bfloat16":
        raise ExportError(
            "this recipe computes its prior in bfloat16 (model.gait.prior.precision), which a file in float32 does not; "
            "give another precision"
        )
    if not frames:
        raise ExportError("an export is checked on pictures; give one at least")
    size = (trained.recipe.data.height, trained.recipe.data.width)
    batches = check_clips(frames, size, trained.recipe.data.frames)
    graph = ExportGraph(trained.network, size, in_bfloat16=precision == "bfloat16" and format == "torch").eval()
    # new folders are made for a file that is kept
    with TemporaryDirectory(prefix=f".{out.name}.", dir=nearest_folder(out)) as scratch:
        draft = Path(scratch, out.name)
        on_stage(f"writing {format}, {precision}")
        try:
            chosen.write(graph, draft, header_of(trained, precision), precision, batches)
        except RuntimeError as error:  # how exporters say that they cannot follow
            reason = in_one_line(str(error).partition("\n")[0], 160)
            raise ExportError(f"this model cannot be written as {format}, {precision}: {reason}") from error
        on_stage("checking")
        runs = [chosen.read(draft).network.run] + ([chosen.run_own(draft)] if chosen.run_own is not None else [])
        every = [compare(run, trained, batches) for run in runs]
        for checks in every:
            expect_same(checks, precision, lambda: rounding(trained, batches))
        out.parent.mkdir(parents=True, exist_ok=True)
        for part in sorted(Path(scratch).iterdir()):  # .bin before .xml: who sees the one that is named finds the other
            part.replace(out.with_name(part.name))
    return [max(of_one, key=lambda check: check.share) for of_one in zip(*every, strict=True)]


def check_clips(frames: Sequence[Frame], size: tuple[int, int], usual: int) -> list[Clips]:
    """Batches to compare on, (B,T,H,W,3) and (B,): one clip of one frame, the usual length, other lengths; modalities mixed.

    H and W are the recipe's, those of the pictures, and others.
    """
    own = frames[0].shape[0], frames[0].shape[1]
    plan = [(1, 1, size), (2, usual, own), (3, 2, (size[0] + 9, size[1] * 2 - 3)), (1, usual + 1, size)]
    batches: list[Clips] = []
    at = 0
    for clips, times, (height, width) in plan:
        taken = [frames[(at + i) % len(frames)] for i in range(clips * times)]
        at += len(taken)
        pixels = np.stack([resize(np.ascontiguousarray(frame), (height, width)) for frame in taken])
        batches.append((pixels.reshape(clips, times, height, width, 3), (np.arange(clips) + len(batches)) % len(Modality)))
    return batches


def compare(run: Run, trained: TrainedModel, batches: Sequence[Clips]) -> list[Check]:
    """``run`` beside the model itself, as :class:`dinogrl.embedding.embedder.Embedder` runs it, on the same pixels."""
    checks = []
    for pixels, modality in batches:
        wanted, found = reference(trained, pixels, modality), run(pixels, modality)
        if not np.isfinite(wanted).all():
            raise ExportError("the model's own embeddings of these pictures are not finite numbers; is it trained?")
        if found.shape != wanted.shape:
            raise ExportError(f"the file gives embeddings {found.shape}, the model {wanted.shape}; nothing was written")
        differences, scales = (np.abs(values).max((0, 2)) for values in (found - wanted, wanted))
        part = int(np.argmax(differences / np.maximum(1, scales)))
        a, b = (vectors.reshape(len(vectors), -1).astype(np.float64) for vectors in (found, wanted))
        cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
        clips, times, height, width, _ = pixels.shape
        checks.append(Check(clips, times, (height, width), float(differences[part]), float(scales[part]), float(cosine.min())))
    return checks


def reference(trained: TrainedModel, pixels: NDArray[np.uint8], modality: NDArray[np.int64]) -> NDArray[np.floating]:
    """The model's embeddings (B,P,D) of clips (B,T,H,W,3) uint8, in float32, or in float64 by a network in float64."""
    size = (trained.recipe.data.height, trained.recipe.data.width)
    clips = np.stack([normalise(np.stack([resize(frame, size) for frame in clip])) for clip in pixels])
    own = next(trained.network.parameters()).dtype
    with torch.inference_mode():
        output: ModelOutput = trained.network(torch.from_numpy(clips).to(own), torch.from_numpy(modality))
    return full(output.embedding).numpy()


def rounding(trained: TrainedModel, batches: Sequence[Clips]) -> float:
    """How far float32 is from float64 in the model itself, as a share of a part's scale. Untrained networks may enlarge it much."""
    exact = replace(trained, network=copy.deepcopy(trained.network).double())
    checks = compare(lambda pixels, modality: reference(trained, pixels, modality), exact, batches)
    return max(check.share for check in checks)


def expect_same(checks: Sequence[Check], precision: str, own: Callable[[], float]) -> None:
    """Raise :class:`ExportError` where the embeddings differ more than they may. ``own``: the model's :func:`rounding`."""
    allowed = TOLERANCE
    if precision == "float32" and not all(check.share <= allowed for check in checks):
        allowed = max(allowed, ROUNDINGS * own())
    for check in checks:  # each by itself: a maximum over numbers may lose the one that is none
        if precision == "float32" and not check.share <= allowed:
            raise ExportError(
                f"the file's embeddings differ from the model's by {check.share:.1e} of a part's, above {allowed:.1e}; not kept"
            )
        if not check.cosine >= LEAST_COSINE:
            raise ExportError(f"in {precision} a clip's embedding has a cosine of {check.cosine:.3f} to the model's; not kept")
