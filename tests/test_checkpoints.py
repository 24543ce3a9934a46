"""The door to files of weights: whole or not at all, never of another kind, never running code."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from dinogrl import checkpoints
from dinogrl.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # damaged files claim any

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "half": torch.ones(2, dtype=torch.bfloat16)}


class Bomb:
    """Unpickling this creates a file: proof that code was run."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.target,)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    checkpoints.save(path, TENSORS, "model", {"epoch": 3, "name": "ä"})
    tensors, facts = checkpoints.load(path, "model")
    assert facts == {"epoch": 3, "name": "ä"}
    assert tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]


def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path: Path) -> None:
    (taken := tmp_path / "taken").mkdir()
    long = tmp_path / ("x" * 250)
    for path, kind in ((taken, IsADirectoryError), (long, OSError)):
        with pytest.raises(kind) as caught:
            checkpoints.write_atomically(path, b"content")
        assert caught.value.filename == str(path) and ".part" not in str(caught.value)
    with pytest.raises(FileNotFoundError) as caught, checkpoints.replacing(tmp_path / "x"):
        (tmp_path / "another").read_bytes()
    assert caught.value.filename == str(tmp_path / "another"), "what the block itself says stays"


def test_two_that_write_the_same_file_at_once_do_not_mix(tmp_path: Path) -> None:
    """They may have the same process id: two machines with one folder, two containers, two threads."""
    with checkpoints.replacing(tmp_path / "x") as first, checkpoints.replacing(tmp_path / "x") as second:
        first.write_bytes(b"the first one's")
        second.write_bytes(b"another's")
    assert (tmp_path / "x").read_bytes() == b"the first one's" and len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files of this process cannot grow beyond 4 KiB, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="this system limits no file sizes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    large = {"a": torch.zeros(100_000)}
    with pytest.raises(CheckpointError, match=r"cannot write .*x\.safetensors: .*make room"):
        checkpoints.save(tmp_path / "x.safetensors", large, "model", {})
    with pytest.raises(CheckpointError, match=r"cannot write .*x\.pth: .*make room") as caught:
        checkpoints.save_state_dicts({tmp_path / "y.pth": {"a": torch.zeros(1)}, tmp_path / "x.pth": large})
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_who_may_read_a_file_is_for_the_user_to_say(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        checkpoints.save(tmp_path / "x.safetensors", TENSORS, "model", {})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_view_is_saved_as_it_is_seen(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "x.safetensors", {"t": TENSORS["a.weight"].T}, "model", {})
    assert torch.equal(checkpoints.load(tmp_path / "x.safetensors", "model")[0]["t"], TENSORS["a.weight"].T)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "x.safetensors", TENSORS, "training", {})
    with pytest.raises(CheckpointError, match="another kind: training, expected model"):
        checkpoints.load(tmp_path / "x.safetensors", "model")
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of dinogrl"):
        checkpoints.load(tmp_path / "foreign.safetensors", "model")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoints.load(tmp_path / "absent.safetensors", "model")


@pytest.mark.parametrize("facts", ["", "[1]", '{"epoch": ' + "9" * 5000 + "}", "[" * 100_000])
def test_facts_that_are_no_json_object_are_one_clear_error(facts: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", metadata={"dinogrl": "1", "kind": "model", "facts": facts})
    with pytest.raises(CheckpointError, match=r"x\.safetensors says nothing of what is in it"):
        checkpoints.load(tmp_path / "x.safetensors", "model")


@hypothesis.given(st.floats(0, 0.999))
def test_a_truncated_file_is_one_clear_error(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    checkpoints.save(path, TENSORS, "model", {})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"truncated|no safetensors") as caught:
        checkpoints.load(path, "model")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("module", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_failed_write_leaves_the_old_file(module: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.bin"
    checkpoints.write_atomically(path, b"old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module, name, broken)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.write_atomically(path, b"new and much longer")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_foreign_weights_load_without_running_anything(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pth")
    save_file(TENSORS, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        loaded = checkpoints.load_foreign(tmp_path / name)
        assert all(torch.equal(loaded[key], TENSORS[key]) for key in TENSORS)
    target = tmp_path / "exploded"
    torch.save({"a": Bomb(str(target))}, tmp_path / "bomb.pth")
    (tmp_path / "bomb.bin").write_bytes(pickle.dumps(Bomb(str(target))))
    for name in ("bomb.pth", "bomb.bin"):
        with pytest.raises(CheckpointError, match="nothing in it was run"):
            checkpoints.load_foreign(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not a file of weights", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_foreign_rubbish_is_one_clear_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot read weights"):
        checkpoints.load_foreign(path)


@hypothesis.given(st.binary(min_size=1, max_size=80))
def test_no_bytes_are_mistaken_for_weights(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "rubbish.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoints.load_foreign(path)


@pytest.mark.parametrize("zipped", [True, False])
@hypothesis.given(st.data())
def test_a_damaged_foreign_file_is_an_error_or_loads(
    tmp_path_factory: pytest.TempPathFactory, zipped: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    with contextlib.suppress(CheckpointError):
        checkpoints.load_foreign(path)


def test_a_foreign_file_that_is_no_mapping(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="expected a mapping"):
        checkpoints.load_foreign(tmp_path / "x.pth")


def test_keys_that_do_not_fit_are_named() -> None:
    checkpoints.expect_keys(["a", "b"], ["b", "a"], "file")
    with pytest.raises(CheckpointError, match=r"2 missing: c, d; 1 unexpected: x"):
        checkpoints.expect_keys(["a", "x"], ["a", "c", "d"], "file")
    with pytest.raises(CheckpointError, match="and 2 more"):
        checkpoints.expect_keys([], [f"k{i:02}" for i in range(10)], "file")


def test_fingerprint_sees_every_name_and_value() -> None:
    rng = np.random.default_rng(0)
    base = {name: torch.from_numpy(rng.standard_normal((2, 3))) for name in "ab"}
    first = checkpoints.fingerprint(base)
    assert first == checkpoints.fingerprint(dict(reversed(base.items()))) and len(first) == 16
    changed = {**base, "a": base["a"].clone()}
    changed["a"][1, 2] += 1e-12
    renamed = {"a": base["a"], "c": base["b"]}
    reshaped = {**base, "a": base["a"].reshape(3, 2)}
    retyped = {**base, "a": base["a"].view(torch.int64)}
    assert len({first, *(checkpoints.fingerprint(other) for other in (changed, renamed, reshaped, retyped))}) == 5


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """safetensors alone puts the entries of its header into another order every time: of 24 orders, eight files would meet one."""
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    facts = {"recipe": {"name": 'é \u2028 " \\ \x7f', "sizes": [1, 2]}}
    for number in range(8):
        checkpoints.save(tmp_path / f"{number}.safetensors", tensors, "model", facts)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    again, said = checkpoints.load(tmp_path / "0.safetensors", "model")
    assert said == facts and all(torch.equal(again[name], tensors[name]) for name in tensors)
