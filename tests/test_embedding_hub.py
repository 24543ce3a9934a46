"""Models in the form of the Hugging Face hub: written to a folder, read back, uploaded to a hub that stands in for the real one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi, ModelCard, snapshot_download
from safetensors.numpy import save_file

from dinogrl import hub_folders
from dinogrl.embedding import hub
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.exported import ExportedModel
from dinogrl.embedding.hub_card import write_card
from dinogrl.errors import CheckpointError, DinogrlError, ExportError
from dinogrl.evaluation.results import Metrics
from dinogrl.models.archive import load_model, save_model
from dinogrl.recipes import load_recipe
from tiny_models import tiny_model, tiny_recipe

FRAMES = [np.random.default_rng(i).integers(0, 256, (90, 40, 3), dtype=np.uint8) for i in range(7)]
FACTS = {"dataset": "hitsz-vcm", "epoch": 7, "selection": "holdout"}
SCORES = Metrics.model_validate(
    {
        "dataset": "hitsz-vcm",
        "protocol": "hitsz-vcm",
        "model": "baseline",
        "frames_per_clip": 6,
        "directions": {
            "infrared_to_visible": {
                "rank1": 0.6543,
                "rank5": 0.7,
                "rank10": 0.8,
                "rank20": 0.9,
                "mAP": 0.5,
                "mINP": 0.25,
                "queries": 10,
                "gallery": 20,
            }
        },
    }
)


@pytest.fixture
def embedder(tmp_path: Path) -> Embedder:
    path = tmp_path / "model.safetensors"
    save_model(path, tiny_model("baseline"), tiny_recipe("baseline"), 5, FACTS)
    return Embedder.load(path, "cpu")


class StandIn:
    """A hub on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: bool | None = None
        self.token: str | None = None
        self.revision: str | None = None

    def __call__(self, token: str | None = None) -> StandIn:
        self.token = token
        return self

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> Any:
        assert exist_ok
        self.private = private
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def download(self, name: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert set(allow_patterns) == {"model.safetensors", "config.json", "README.md"}, "whatever else lies there stays there"
        self.revision = revision
        return str(self.root / name)


def test_a_folder_gives_the_same_embedder(embedder: Embedder, tmp_path: Path) -> None:
    folder = embedder.save_pretrained(tmp_path / "published", [SCORES])
    again = Embedder.from_pretrained(folder, "cpu")
    assert again.fingerprint == embedder.fingerprint and again.trained.facts == FACTS
    np.testing.assert_array_equal(again.embed(FRAMES, "infrared"), embedder.embed(FRAMES, "infrared"))
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["fingerprint"] == embedder.fingerprint and config["recipe"]["name"] == "baseline"


def test_the_card_says_what_it_must(embedder: Embedder, tmp_path: Path) -> None:
    card = (embedder.save_pretrained(tmp_path, [SCORES]) / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "dinogrl" and header["license"] == "other"
    for title in ("Training data", "Scores", "Intended use", "Licence"):
        assert f"\n## {title}\n" in card
    assert "Dataset: hitsz-vcm. Training identities: 5. Epochs: 7. Weights chosen by: holdout." in card
    assert "\nIn per cent.\n" in card
    assert "| hitsz-vcm | hitsz-vcm | infrared to visible | 65.4 | 70.0 | 50.0 | 25.0 | 10 | 20 |" in card
    other = SCORES.model_copy(update={"protocol": "hitsz-vcm-all"})
    both = (embedder.save_pretrained(tmp_path, [SCORES, other]) / "README.md").read_text()
    assert "| hitsz-vcm | hitsz-vcm | inf" in both and "| hitsz-vcm | hitsz-vcm-all | inf" in both
    assert "None recorded" in (embedder.save_pretrained(tmp_path) / "README.md").read_text()


@pytest.mark.parametrize(
    ("recipe", "dataset", "licence", "name", "said"),
    [
        ("baseline", "simulated (hitsz-vcm layout)", "apache-2.0", None, ""),
        ("dinogrl", "simulated (hitsz-vcm layout)", "apache-2.0", None, "DINOv2"),
        ("dinogrl_dinov3_vits16", "simulated (hitsz-vcm layout)", "other", "dinov3-license", "DINOv3"),
        ("dinogrl_dinov3_vits16", "hitsz-vcm", "other", "terms-of-the-training-data", "DINOv3"),
    ],
)
def test_the_card_names_the_terms_of_data_and_prior(
    recipe: str, dataset: str, licence: str, name: str | None, said: str, embedder: Embedder, tmp_path: Path
) -> None:
    own = load_model(str(tmp_path / "model.safetensors"))
    (tmp_path / "README.md").write_text(write_card(replace(own, recipe=load_recipe(recipe), facts={"dataset": dataset})))
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.get("license_name")) == (licence, name)
    assert {family for family in ("DINOv2", "DINOv3") if f"{family}'s weights" in card.text} == ({said} if said else set())
    assert (card.data.library_name, card.data.pipeline_tag) == ("dinogrl", "image-feature-extraction")


@pytest.mark.parametrize(
    "changes",
    [("model.gait.silhouette=masks", "data.masks=there"), ("model.gait.prior.random_init=true",), ("model.gait.prior.name=tiny",)],
)
def test_the_card_claims_no_terms_of_a_prior_that_is_not_inside(
    changes: tuple[str, ...], embedder: Embedder, tmp_path: Path
) -> None:
    own = replace(load_model(tmp_path / "model.safetensors"), recipe=load_recipe("dinogrl", changes))
    assert "DINOv2's weights" not in write_card(own)


def test_upload_and_download(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn(tmp_path / "hub")
    monkeypatch.setattr(hub, "HfApi", stand_in)
    monkeypatch.setattr(hub, "snapshot_download", stand_in.download)
    embedder.push_to_hub("someone/walkers", token="hf_mine")
    assert stand_in.private and stand_in.token == "hf_mine", "private unless told"
    assert Embedder.from_pretrained("someone/walkers", "cpu", "v2").fingerprint == embedder.fingerprint
    assert stand_in.revision == "v2"
    embedder.push_to_hub("someone/walkers", private=False)
    assert stand_in.private is False


def test_a_hub_that_cannot_be_reached_is_one_line(embedder: Embedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real client, sent to a port where nobody listens."""
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(hub, "HfApi", lambda token: HfApi(endpoint=nobody, token=token))
    monkeypatch.setattr(hub, "snapshot_download", partial(snapshot_download, endpoint=nobody, cache_dir=tmp_path / "cache"))
    with pytest.raises(CheckpointError, match=r"no folder 'someone/walkers', and the hub cannot be asked for it") as caught:
        Embedder.from_pretrained("someone/walkers")
    assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match="cannot upload to 'someone/walkers'") as refused:
        embedder.push_to_hub("someone/walkers", token="hf_none")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "a/b/c", Path("nowhere/there")])
def test_what_is_no_repository_is_not_asked_for(name: str | Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        Embedder.from_pretrained(name)


def test_bad_names_and_empty_folders(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        Embedder.from_pretrained(tmp_path / "..")
    with pytest.raises(ExportError, match="no name of a repository"):
        embedder.push_to_hub("--no name--/x")
    with pytest.raises(CheckpointError, match="neither a folder nor the name"):
        Embedder.from_pretrained("--no name--/x")


def test_an_exported_model_is_not_published(embedder: Embedder, tmp_path: Path) -> None:
    own = embedder.trained
    shown = ExportedModel(None, own.recipe, own.identities, own.fingerprint, own.facts)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=r"load the model\.safetensors"):
        hub.write(tmp_path / "x", shown)
    assert not (tmp_path / "x").exists()


def test_a_file_is_no_folder_to_write_into(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(DinogrlError, match="is a file; give a folder"):
        embedder.save_pretrained(tmp_path / "model.safetensors")


def test_extras_travel(embedder: Embedder, tmp_path: Path) -> None:
    import torch

    trained = replace(load_model(tmp_path / "model.safetensors"), extras={"mean": torch.arange(3.0)})
    hub.write(tmp_path / "with", trained)
    again = load_model(tmp_path / "with" / "model.safetensors")
    assert again.extras["mean"].tolist() == [0, 1, 2] and again.fingerprint == trained.fingerprint


def test_of_somebody_elses_model_every_file_of_weights_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and nothing but weights and settings is downloaded."""

    def download(name: str, allow_patterns: list[str]) -> str:
        assert (name, sorted(allow_patterns)) == ("someone/detector", ["*.json", "*.safetensors"])
        return str(tmp_path)

    monkeypatch.setattr(hub_folders, "snapshot_download", download)
    for number in (1, 2):
        save_file({"a": np.ones(100)}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    assert hub_folders.model_folder("someone/detector", "detector", "") == tmp_path
    last = tmp_path / "model-00002-of-00002.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    for name in ("someone/detector", str(tmp_path)):
        with pytest.raises(CheckpointError, match="model-00002-of-00002"):
            hub_folders.model_folder(name, "detector", "")
