"""Models of the hub as local folders: settings and safetensors, nothing that could be run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, StrictDataclassError

from dinogrl.checkpoints import load_foreign
from dinogrl.errors import DinogrlError, in_one_line

UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, StrictDataclassError)
"""What transformers raises for a folder that it cannot make a model of."""


def model_folder(name: str, kind: str, instead: str) -> Path:
    """The folder of a model that is given as a folder, or by its ``owner/name`` on the hub, downloaded if need be.

    ``kind`` is what messages call it, ``instead`` what else could be given. Every file of weights is opened once, so that a broken
    one is told in a clear line. Raises :class:`DinogrlError` for a name that is neither, for a hub that cannot be reached, and for
    a folder without safetensors.
    """
    folder = _folder(name, kind, instead)
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise DinogrlError(f"{kind} {name!r}: no model.safetensors in {folder}; weights in any other form are not read")
    for file in files:
        load_foreign(file)
    return folder


@contextmanager
def without_bars() -> Iterator[None]:
    """The command shows how far it is; a second bar, of the second that loading takes, would be noise in a log."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _folder(name: str, kind: str, instead: str) -> Path:
    given = Path(name).expanduser()
    if given.is_dir():
        return given
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise DinogrlError(
            f"no {kind} {name!r}; give {instead}a folder with config.json and model.safetensors, or owner/name on the hub"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = in_one_line(error, 160)
        raise DinogrlError(f"cannot get the {kind} {name!r} from the hub: {reason}; give {instead}a local folder") from error
