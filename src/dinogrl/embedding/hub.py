"""A trained model in the form of the Hugging Face hub: model.safetensors, config.json and a card; written, found, uploaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, LocalTokenNotFoundError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # of the HTTP library that it uses

from dinogrl import checkpoints
from dinogrl.embedding.exported import ExportedModel
from dinogrl.embedding.hub_card import write_card
from dinogrl.errors import CheckpointError, ExportError
from dinogrl.evaluation.results import Metrics
from dinogrl.models.archive import TrainedModel, replace_extras, save_model

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_OFFLINE = (HfHubHTTPError, LocalEntryNotFoundError, LocalTokenNotFoundError, TransportError, OSError)


def write(folder: Path, trained: TrainedModel | ExportedModel, scores: Sequence[Metrics] = ()) -> Path:
    """Write the three files into ``folder``, and return it.

    Raises :class:`ExportError` for an exported model, :class:`DinogrlError` where ``folder`` is a file.
    """
    own = _own(trained)
    checkpoints.expect_no_file(folder, "the model and its card")
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / MODEL, own.network, own.recipe, own.identities, own.facts)
    if own.extras:
        replace_extras(folder / MODEL, own.extras)
    config = {
        "model_type": "dinogrl",
        "library_name": "dinogrl",
        "fingerprint": own.fingerprint,
        "identities": own.identities,
        "recipe": own.recipe.model_dump(mode="json"),
    }
    checkpoints.write_atomically(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    checkpoints.write_atomically(folder / CARD, write_card(own, scores).encode())
    return folder


def find(name: str | Path, revision: str | None = None) -> Path:
    """The model file of a folder, or of a repository of the hub, downloaded if need be.

    Raises :class:`CheckpointError` where there is none, or the hub cannot be reached.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if isinstance(name, Path) or str(name).count("/") != 1 or str(name).startswith((".", "~", "/")):
            raise CheckpointError(f"no folder {name}; give one that save_pretrained wrote, or a repository of the hub, owner/name")
        folder = _download(str(name), revision)
    if not (folder / MODEL).is_file():
        raise CheckpointError(f"{name} holds no {MODEL}; give a folder that save_pretrained wrote")
    return folder / MODEL


def push(
    name: str,
    trained: TrainedModel | ExportedModel,
    scores: Sequence[Metrics] = (),
    *,
    private: bool = True,
    token: str | None = None,
) -> str:
    """Upload the three files to the repository ``name``, made where it is not there. Returns its address."""
    hub = HfApi(token=token)
    with TemporaryDirectory() as scratch:
        write(Path(scratch), trained, scores)
        try:
            repository = hub.create_repo(name, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repository.repo_id, folder_path=scratch, commit_message="Model written by dinogrl")
        except HFValidationError as error:
            raise ExportError(f"{name!r} is no name of a repository; give owner/name") from error
        except _OFFLINE as error:
            raise ExportError(
                f"cannot upload to {name!r}: {_first_line(error)}; is the hub reachable, and `hf auth login` done?"
            ) from error
    return str(repository)


def _own(trained: TrainedModel | ExportedModel) -> TrainedModel:
    if isinstance(trained, ExportedModel):
        raise ExportError("an exported file holds no weights to publish; load the model.safetensors that it was made of")
    return trained


def _download(name: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[MODEL, CONFIG, CARD]))
    except HFValidationError as error:
        raise CheckpointError(f"{name!r} is neither a folder nor the name of a repository, owner/name") from error
    except _OFFLINE as error:
        raise CheckpointError(f"no folder {name!r}, and the hub cannot be asked for it: {_first_line(error)}") from error


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
