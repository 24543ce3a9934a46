"""Weights of human parsers as their authors publish them, put into our networks."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from dinogrl.checkpoints import fingerprint, load_tensors
from dinogrl.errors import CheckpointError
from dinogrl.models.pretrained import fit

# what synchronised batch norms of the authors' time kept besides, and nothing reads when parsing
_BOOKKEEPING = ("num_batches_tracked", "_tmp_running_mean", "_tmp_running_var", "_running_iter")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of an authors' file by name. Raises :class:`CheckpointError` for one that cannot be read; nothing in it is run."""
    return {name: tensor for name, tensor in load_tensors(path).items() if not name.endswith(_BOOKKEEPING)}


def fill(network: nn.Module, tensors: dict[str, Tensor], source: Path, unused: Collection[str] = ()) -> str:
    """Put ``tensors`` into ``network`` and give their fingerprint.

    ``unused``: beginnings of names that serve the authors' training alone. Raises :class:`CheckpointError` naming what does not
    fit.
    """
    counters = {name: tensor for name, tensor in network.state_dict().items() if name.endswith(_BOOKKEEPING)}
    needed = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(unused))} if unused else tensors
    fit(network, counters | needed, str(source))
    return fingerprint(needed)


def channels_of(tensors: dict[str, Tensor], name: str, source: Path, kind: str) -> int:
    """Channels that a layer gives, from its weight. Raises :class:`CheckpointError` where it is not there."""
    if name not in tensors or not tensors[name].ndim:
        some = ", ".join(list(tensors)[:4])
        raise CheckpointError(f"{source} is no file of {kind}: it lacks {name}, and holds {some} ...")
    return int(tensors[name].shape[0])
