"""Frozen features kept on disk: the same vectors without the work, and nothing on the disk is trusted blindly."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import dinogrl
from dinogrl import checkpoints
from dinogrl.cli import main as cli
from dinogrl.embedding.archive import load_embeddings
from dinogrl.embedding.extract import extract
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.errors import DataError, DinogrlError
from dinogrl.models.archive import save_model
from dinogrl.models.backbones.frozen import Tokens
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.records import ClipBatch
from tiny_models import clips, tiny_model, tiny_recipe


def batches(*seeds: int) -> Iterator[ClipBatch]:
    """Four clips of three frames for every seed."""
    for seed in seeds:
        frames, modality = clips(seed=seed)
        number = torch.arange(len(frames))
        yield ClipBatch(frames, modality, number, number, [f"{seed}-{i}" for i in number.tolist()])


def parts(network: DinoGRL, cache: FeatureCache | None, *seeds: int, bfloat16: bool = False) -> np.ndarray:
    return extract(network, batches(*seeds), "cpu", bfloat16=bfloat16, feature_cache=cache).parts


def counts(cache: FeatureCache) -> tuple[int, int]:
    return cache.read, cache.computed


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.tokens"))


@pytest.fixture
def network() -> DinoGRL:
    return tiny_model("dinogrl")


@pytest.mark.parametrize("recipe", ["dinogrl", "dinogrl_dinov3_vits16", "dinogrl_lora"])
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_the_same_vectors_to_the_last_digit_without_the_prior(tmp_path: Path, recipe: str, bfloat16: bool) -> None:
    network = tiny_model(recipe)
    plain = parts(network, None, 1, 2, bfloat16=bfloat16)
    first, second = FeatureCache(tmp_path), FeatureCache(tmp_path)
    assert np.array_equal(parts(network, first, 1, 2, bfloat16=bfloat16), plain) and counts(first) == (0, 24)
    assert network.get_submodule("gait.prior").keeper is None, "afterwards nothing is kept any more"

    def refuse(*_: object) -> None:
        raise AssertionError("the prior ran")

    network.get_submodule("gait.prior")._compute = refuse
    assert np.array_equal(parts(network, second, 1, 2, bfloat16=bfloat16), plain) and counts(second) == (24, 0)


def test_frames_are_known_by_themselves_whatever_stands_beside_them(tmp_path: Path, network: DinoGRL) -> None:
    parts(network, FeatureCache(tmp_path), 1, 2)
    (batch,) = batches(1)
    (other,) = batches(2)
    frames = torch.cat([other.frames[:1], batch.frames.flip(1)])
    modality, ids = torch.tensor([0, 0, 1, 0, 1]), torch.arange(5)
    cache = FeatureCache(tmp_path)
    run = [extract(network, [ClipBatch(frames, modality, ids, ids, list("abcde"))], "cpu", feature_cache=c) for c in (None, cache)]
    np.testing.assert_allclose(run[1].parts, run[0].parts, rtol=1e-4, atol=1e-5)
    assert counts(cache) == (15, 0)


@pytest.mark.parametrize("lost", [[0], [3, 4, 9], list(range(11))], ids=len)
def test_a_batch_that_was_kept_in_part_is_computed_as_without_a_cache(tmp_path: Path, network: DinoGRL, lost: list[int]) -> None:
    """As after a kill, by a prior whose digits depend on how many frames it gets at once: some sizes of matrices do that."""
    prior = network.get_submodule("gait.prior")
    compute = prior._compute

    def by_their_number(frames: torch.Tensor) -> Tokens:
        tokens = compute(frames)
        return Tokens(tokens.last * (1 + 0.01 * len(frames)), tokens.blocks)

    prior._compute = by_their_number
    plain = parts(network, FeatureCache(tmp_path), 1)
    everything = kept(tmp_path)
    for number in lost:
        everything[number].unlink()
    cache = FeatureCache(tmp_path)
    assert np.array_equal(parts(network, cache, 1), plain) and counts(cache) == (0, 12)
    assert kept(tmp_path) == everything


def test_mirrored_frames_are_other_frames(tmp_path: Path, network: DinoGRL) -> None:
    frames, _ = clips()
    with torch.no_grad(), FeatureCache(tmp_path).serving(network):
        plain, mirrored = (network.get_submodule("gait.prior")(some.flatten(0, 1)).last for some in (frames, frames.flip(-1)))
    assert not torch.equal(plain, mirrored)


def test_what_makes_other_features_has_a_place_of_its_own(tmp_path: Path, network: DinoGRL) -> None:
    networks = [network, tiny_model("dinogrl", seed=7), tiny_model("dinogrl", "model.gait.prior.blocks=[0,3]")]
    networks.append(tiny_model("dinogrl", "model.gait.prior.precision=bfloat16"))
    networks.append(tiny_model("dinogrl", "model.gait.prior.height=56"))
    for other in networks:
        for bfloat16 in (False, True):
            cache = FeatureCache(tmp_path)
            parts(other, cache, 1, bfloat16=bfloat16)
            assert counts(cache) == (0, 12)
    stories = [json.loads(path.read_text()) for path in tmp_path.glob("*/features.json")]
    assert len(stories) == 10 and {story["dtype"] for story in stories} == {"float32", "bfloat16"}
    assert all(story["versions"]["dinogrl"] == dinogrl.__version__ for story in stories)


def test_models_on_the_same_prior_share_features(tmp_path: Path, network: DinoGRL) -> None:
    other = tiny_model("dinogrl", seed=3)
    other.get_submodule("gait.prior").load_state_dict(network.get_submodule("gait.prior").state_dict())
    parts(network, FeatureCache(tmp_path), 1)
    cache = FeatureCache(tmp_path)
    assert np.array_equal(parts(other, cache, 1), parts(other, None, 1)) and counts(cache) == (12, 0)


def foreign(content: bytes) -> bytes:
    """A whole file, of other features."""
    return checkpoints.pack_with_sum({"last": torch.zeros(1, 1, 1), "blocks": torch.zeros(1, 1, 2)})


DAMAGE = {
    "a bit": lambda content: content[:-999] + bytes([content[-999] ^ 4]) + content[-998:],
    "its end": lambda content: content[: len(content) // 2],
    "all of it": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "another's": foreign,
    "no features": lambda content: b"not" + zlib.crc32(b"not").to_bytes(4, "little"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_made_again(tmp_path: Path, network: DinoGRL, damage: object) -> None:
    plain = parts(network, FeatureCache(tmp_path), 1)
    victim = kept(tmp_path)[5]
    whole = victim.read_bytes()
    victim.write_bytes(damage(whole))  # type: ignore[operator]
    cache = FeatureCache(tmp_path)
    assert np.array_equal(parts(network, cache, 1), plain) and counts(cache) == (0, 12)
    again = FeatureCache(tmp_path)
    parts(network, again, 1)
    assert counts(again) == (12, 0) and len(victim.read_bytes()) == len(whole)


def test_a_cache_grows_to_its_size_and_keeps_what_came_first(
    tmp_path: Path, network: DinoGRL, caplog: pytest.LogCaptureFixture
) -> None:
    parts(network, FeatureCache(tmp_path / "measured"), 1)
    one = kept(tmp_path / "measured")[0].stat().st_size
    folder = tmp_path / "small"
    with caplog.at_level(logging.WARNING):
        plain = parts(network, FeatureCache(folder, 15.9 * one / 1e9), 1, 2)
    first = kept(folder)
    assert 14 <= len(first) <= 15 and sum(path.stat().st_size for path in first) <= 15.9 * one
    assert len(caplog.records) == 1 and "takes no more" in caplog.text
    cache = FeatureCache(folder, 15.9 * one / 1e9)
    assert np.array_equal(parts(network, cache, 1, 2), plain)
    assert kept(folder) == first and counts(cache) == (12, 12)


def test_a_full_disk_stops_the_keeping_and_not_the_work(
    tmp_path: Path, network: DinoGRL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = parts(network, None, 1, 2)
    write = Path.write_bytes

    def until_full(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = FeatureCache(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", until_full)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(parts(network, cache, 1, 2), plain)
    assert len(caplog.records) == 1 and "No space left on device" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_that_vanishes_is_made_again(tmp_path: Path, network: DinoGRL) -> None:
    plain = parts(network, None, 1)
    cache = FeatureCache(tmp_path / "cache")
    parts(network, cache, 1)
    shutil.rmtree(tmp_path / "cache")
    assert np.array_equal(parts(network, cache, 1), plain) and len(kept(tmp_path / "cache")) == 12


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path, network: DinoGRL) -> None:
    parts(network, FeatureCache(tmp_path), 1)
    folder = kept(tmp_path)[0].parent
    old, young = (checkpoints.part_beside(folder / name) for name in ("a.tokens", "b.tokens"))
    other = tmp_path / "thesis.part"
    for path in (old, young, other):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (time.time() - 9e5, time.time() - 9e5))
    FeatureCache(tmp_path)
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


def test_two_machines_that_keep_the_same_frame_do_not_write_the_same_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = FeatureCache(tmp_path), FeatureCache(tmp_path)
    move = Path.replace

    def overtaken(part: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", move)
        there.keep(target, b"theirs, longer")
        assert part.read_bytes() == b"ours"
        return move(part, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    here.keep(tmp_path / "a.tokens", b"ours")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"ours"]


def test_a_cache_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", str(tmp_path / "file")):
        with pytest.raises(DinogrlError, match="file is a file; give a folder for the feature cache"):
            FeatureCache(place)  # type: ignore[arg-type]
    for size in (0.0, -1.0, float("nan")):
        with pytest.raises(DinogrlError, match="keeps nothing; give it more"):
            FeatureCache(tmp_path, size)


def test_another_thread_may_end_its_serving_meanwhile(tmp_path: Path, network: DinoGRL, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, cache, prior = parts(network, None, 1), FeatureCache(tmp_path), network.get_submodule("gait.prior")
    with cache.serving(network):
        seen = [None, prior.keeper]  # there when it is looked at, and gone when it is looked at again
        monkeypatch.setattr(type(prior), "keeper", property(lambda _: seen.pop() if seen else None), raising=False)
        assert np.array_equal(parts(network, None, 1), plain) and counts(cache) == (0, 12)
        monkeypatch.undo()


def test_after_an_error_nothing_is_kept_any_more(tmp_path: Path, network: DinoGRL) -> None:
    frames, modality = clips()
    broken = ClipBatch(frames * float("nan"), modality, modality, modality, list("abcd"))
    with pytest.raises(DataError, match="not finite"):
        extract(network, [broken], "cpu", feature_cache=FeatureCache(tmp_path))
    assert network.get_submodule("gait.prior").keeper is None


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("dinogrl_sasgl", ["0 frames read, of {n} computed", "{n} frames read, of 0 computed"]),
        ("baseline", ["no frozen features to keep"] * 2),
    ],
)
def test_the_commands_read_what_they_kept(
    tmp_path: Path, tiny_world: Path, capsys: pytest.CaptureFixture[str], recipe: str, said: list[str]
) -> None:
    chosen = tiny_recipe(recipe, "data.workers=0", "data.height=64", "data.width=32", "data.frames=2")
    save_model(tmp_path / "model.safetensors", tiny_model(recipe), chosen, 5, {})
    words = ["evaluate", str(tmp_path), "--data", str(tiny_world), "--device", "cpu", "--feature-cache", str(tmp_path / "cache")]
    written = []
    for expected in said:
        assert cli.main(words) == 0
        told = " ".join(capsys.readouterr().err.split())
        assert expected.format(n=len(kept(tmp_path / "cache"))) in told
        written.append(load_embeddings(tmp_path / "query.safetensors").parts)
    assert np.array_equal(*written)
    assert cli.main([*words, "--feature-cache-size", "0"]) == 2 and "keeps nothing" in capsys.readouterr().err
    without = [word for word in words if word not in {"--feature-cache", str(tmp_path / "cache")}]
    assert cli.main([*without, "--feature-cache-size", "9"]) == 2 and "by --feature-cache DIR" in capsys.readouterr().err
