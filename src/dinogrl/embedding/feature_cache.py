"""Frozen features of frames, kept in a folder: whoever embeds the same frames again need not compute them again.

The prior never learns, so a frame's features stay what they are from one evaluation to the next, for every model on the same
prior. A frame is known by its pixels as the network gets them, features by all that made them: a file is never out of date. What
cannot be read back is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dinogrl import checkpoints, runtime
from dinogrl.errors import DinogrlError
from dinogrl.models.backbones.frozen import FrozenPrior, Tokens

log = logging.getLogger(__name__)

NAMES = ("last", "blocks")
VERSIONS = ("dinogrl", "torch", "transformers")
"""Other versions of these may compute other last digits."""
_SUFFIX = ".tokens"
_ABANDONED = 3600.0
"""Seconds after which a half-written file is nobody's."""


@dataclass
class FeatureCache:
    """A folder of features, ``gigabytes`` (10^9 bytes) at most; of a larger set those that come first are kept.

    With the paper's prior a frame takes 2 MB in bfloat16 and 4 MB in float32. Several processes may share a folder; each counts
    what was there when it began, and what it adds itself. ``read`` and ``computed`` count frames. Raises :class:`DinogrlError` for
    a size that is not above 0 and where the folder cannot be written.
    """

    folder: Path
    gigabytes: float = 100.0
    read: int = field(default=0, init=False)
    computed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)  # a text will do
        if not self.gigabytes > 0:
            raise DinogrlError(f"a feature cache of {self.gigabytes:g} GB keeps nothing; give it more, or leave it out")
        checkpoints.expect_writable(self.folder, "the feature cache", "--feature-cache")
        self._left = self.gigabytes * 1e9 - _taken(self.folder)
        self._full = False

    @contextmanager
    def serving(self, network: nn.Module) -> Iterator[None]:
        """Within the block the priors in ``network`` take what is kept, and keep the rest. Their weights must not change there.

        Where there is no prior (the baseline, an exported model) nothing happens.
        """
        priors = [module for module in network.modules() if isinstance(module, FrozenPrior)]
        try:
            for prior in priors:
                prior.keeper = _Shelf(self, prior)
            yield
        finally:
            for prior in priors:
                prior.keeper = None

    def keep(self, path: Path, content: bytes) -> None:
        """Write a file, whole or not at all, unless the cache or the disk is full."""
        if self._full:
            return
        if len(content) > self._left:
            self._stop(f"it holds {self.gigabytes:g} GB")
            return
        beside = checkpoints.part_beside(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)  # not forced to the disk, which would take longer than computing: the sum tells
            beside.replace(path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            self._stop(str(error.strerror))
        else:
            self._left -= len(content)

    def _stop(self, why: str) -> None:
        self._full = True
        log.warning("the feature cache %s takes no more (%s); what is not in it is computed each time", self.folder, why)


class _Shelf:
    """The features of one prior in a cache: a :class:`dinogrl.models.backbones.frozen.TokenKeeper`."""

    def __init__(self, cache: FeatureCache, prior: FrozenPrior) -> None:
        self.cache = cache
        widths = (prior.width, prior.width * len(prior.blocks))
        self.shapes = {name: (*prior.grid, width) for name, width in zip(NAMES, widths, strict=True)}
        versions = runtime.versions()
        self.facts = {
            "prior": checkpoints.fingerprint(prior.state_dict()),
            "size": prior.size,
            "blocks": prior.blocks,
            "precision": prior.precision,
            "versions": {name: versions[name] for name in VERSIONS},
        }

    def tokens(self, frames: Tensor, dtype: torch.dtype, compute: Callable[[Tensor], Tokens]) -> Tokens:
        """Features of frames (N,3,H,W) in ``dtype``: from the cache, where it has them all, or by ``compute``.

        Those that lack are not computed alone: beside fewer others, frames may come out with other last digits.
        """
        folder = self._folder(frames.device.type, dtype)
        paths = [_place(folder, frame) for frame in frames.detach().cpu()]
        kept = {path: found for path in paths if (found := self._read(path, dtype)) is not None}
        if any(path not in kept for path in paths):
            self.cache.computed += len(paths)
            return self._keep(compute(frames), {path: row for row, path in enumerate(paths) if path not in kept})
        self.cache.read += len(paths)
        return Tokens(**{name: torch.stack([kept[path][name] for path in paths]).to(frames.device) for name in NAMES})

    def _folder(self, device: str, dtype: torch.dtype) -> Path:
        """Named by all that a last digit may depend on but the frame; a file in it says what that is."""
        facts = {**self.facts, "device": device, "dtype": str(dtype).removeprefix("torch.")}
        text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
        folder = self.cache.folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        if not folder.exists():
            self.cache.keep(folder / "features.json", text.encode())
        return folder

    def _keep(self, made: Tokens, rows: dict[Path, int]) -> Tokens:
        features = {name: getattr(made, name).detach().cpu() for name in NAMES}  # once, not frame by frame
        for path, row in rows.items():
            self.cache.keep(path, checkpoints.pack_with_sum({name: feature[row] for name, feature in features.items()}))
        return made

    def _read(self, path: Path, dtype: torch.dtype) -> dict[str, Tensor] | None:
        """What a file holds; None where it is not there, or not what was written."""
        try:
            found = checkpoints.unpack_with_sum(path.read_bytes())
        except OSError:
            return None
        if found is None or self.shapes != {name: tuple(value.shape) for name, value in found.items() if value.dtype == dtype}:
            return None
        return found


def _place(folder: Path, frame: Tensor) -> Path:
    """The file of a frame (3,H,W)."""
    digest = hashlib.blake2b(f"{tuple(frame.shape)} {frame.dtype}".encode(), digest_size=16)
    digest.update(frame.contiguous().view(-1).view(torch.uint8).numpy().data)
    name = digest.hexdigest()
    return folder / name[:2] / f"{name}{_SUFFIX}"


def _taken(folder: Path) -> int:
    """Bytes of features below ``folder``. What a process that was killed left half-written is deleted."""
    total = 0
    for path in folder.rglob(f"*{_SUFFIX}*"):
        with suppress(OSError):  # another process may have renamed it
            facts = path.stat()
            if path.suffix == _SUFFIX:
                total += facts.st_size
            elif path.suffix == ".part" and time.time() - facts.st_mtime > _ABANDONED:
                path.unlink()
    return total
