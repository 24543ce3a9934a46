"""Human parsers by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dinogrl.catalog import Catalog
from dinogrl.errors import DinogrlError
from dinogrl.parsing.grapy import SCALES, load_grapy
from dinogrl.parsing.onnx_file import OnnxInput, OnnxParser
from dinogrl.parsing.parser import HumanParser
from dinogrl.parsing.schp import load_schp
from dinogrl.parsing.segmentation import SegmentationParser


@dataclass(frozen=True)
class ParserSettings:
    """``weights``: a file, or for ``transformers`` a folder or owner/name on the hub.

    ``labels``: label set to read, of a file of Grapy-ML that has several. ``scales``: sizes that Grapy-ML averages over.
    ``background``: number of the class that is no person, where a network of transformers does not say. ``onnx``: what an ONNX file
    does not say.
    """

    weights: str
    device: str = "auto"
    labels: str | None = None
    scales: tuple[float, ...] = SCALES
    background: int | None = None
    onnx: OnnxInput = field(default_factory=OnnxInput)


PARSERS: Catalog[Callable[[ParserSettings], HumanParser]] = Catalog(
    "human parser",
    {
        "schp": lambda given: load_schp(_file(given.weights), given.device),
        "grapy-ml": lambda given: load_grapy(_file(given.weights), given.device, labels=given.labels, scales=given.scales),
        "transformers": lambda given: SegmentationParser(given.weights, given.device, background=given.background),
        "onnx": lambda given: OnnxParser(_file(given.weights), given.onnx, given.device),
    },
)


def load_parser(name: str, settings: ParserSettings) -> HumanParser:
    """A parser of :data:`PARSERS`. Raises :class:`DinogrlError` for an unknown name and for weights that do not fit it."""
    load = PARSERS[name]
    if not settings.weights:
        raise DinogrlError(f"the parser {name} needs weights: the authors' file, or for transformers a folder or owner/name")
    return load(settings)


def _file(given: str) -> Path:
    return Path(given).expanduser()
