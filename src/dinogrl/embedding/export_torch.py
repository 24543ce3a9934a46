"""One ``.pt2`` file of torch.export: its graph for programs that trust it, its weights and header for everybody.

``torch.export.load`` is not safe: it unpickles what the archive calls pickled, and evaluates texts from it as Python. A model that
comes from elsewhere must not be opened so. :func:`read` therefore never touches the graph. It reads the header and the weights,
which lie in the archive as plain bytes, and builds the same network anew.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinogrl import checkpoints
from dinogrl.embedding.export_graph import ExportGraph, dynamic_shapes
from dinogrl.embedding.export_onnx import Clips, quiet
from dinogrl.embedding.exported import HEADER, ExportedModel, Run, exported_model, read_header
from dinogrl.errors import CheckpointError
from dinogrl.models.archive import empty_network
from dinogrl.models.pretrained import fit
from dinogrl.recipes import recipe_from_values

WEIGHTS = "data/weights/"
INDEX = f"{WEIGHTS}model_weights_config.json"
EXTRA = f"extra/{HEADER}.json"
_BROKEN = (zipfile.BadZipFile, LookupError, TypeError, AttributeError, RuntimeError, OSError, EOFError, ValueError)
# torch's numbers of the types that a network's weights have
_TYPES = {5: torch.int64, 6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16}


def write(graph: ExportGraph, path: Path, header: str, precision: str, clips: Sequence[Clips]) -> None:
    """Write ``path``."""
    with quiet(), torch.no_grad():
        program = torch.export.export(graph, graph.example(), dynamic_shapes=dynamic_shapes(), strict=False)
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)  # where the source lay on this machine is nobody's business
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={f"{HEADER}.json": header})
    checkpoints.write_atomically(path, buffer.getvalue())


def read(path: Path) -> ExportedModel:
    """Build the network that a file of :func:`write` holds. Nothing in the file is run. Raises :class:`CheckpointError`."""
    tensors, text = _contents(path)
    header = read_header(text, path)
    recipe = recipe_from_values(header.recipe, source=f"recipe inside {path}")
    network = empty_network(recipe, header.identities, path)
    own = {name.removeprefix("network.").replace("gait.prior.prior.", "gait.prior."): tensor for name, tensor in tensors.items()}
    fit(network, own, str(path))
    graph = ExportGraph(network, (recipe.data.height, recipe.data.width), header.precision == "bfloat16")
    return exported_model(_runner(graph), header, path)


def run_own(path: Path) -> Run:
    """Run the graph of a file that this process has just written, and no other: torch's loader may execute what it reads."""
    with quiet():
        return _runner(torch.export.load(path).module())


def _runner(module: Any) -> Run:
    def run(frames: NDArray[np.uint8], modality: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            vectors: NDArray[np.float32] = module(torch.from_numpy(frames), torch.from_numpy(modality)).numpy()
        return vectors

    return run


def _contents(path: Path) -> tuple[dict[str, Tensor], str]:
    """The weights by name, and the header."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = {name.partition("/")[2]: name for name in archive.namelist()}
            text = archive.read(records[EXTRA]).decode()
            index = json.loads(archive.read(records[INDEX]))["config"]
            tensors = {}
            for name, entry in index.items():
                if entry["use_pickle"]:
                    raise TypeError(f"{name} is a pickle, which is code and is not read")
                tensors[name] = _tensor(archive.read(records[WEIGHTS + entry["path_name"]]), entry["tensor_meta"])
            return tensors, text
    except _BROKEN as error:
        raise CheckpointError(f"cannot read {path}: it is broken, or not written by dinogrl export ({error})") from error


def _tensor(content: bytes, meta: dict[str, Any]) -> Tensor:
    """A tensor as the archive describes it: type, sizes and strides over plain bytes."""
    flat = torch.frombuffer(bytearray(content), dtype=_TYPES[meta["dtype"]])
    sizes, strides = ([entry["as_int"] for entry in meta[name]] for name in ("sizes", "strides"))
    return torch.as_strided(flat, sizes, strides, meta["storage_offset"]["as_int"])
