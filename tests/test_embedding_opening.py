"""Model files that are broken, of another kind, or dangerous: one clear error, and nothing in them is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.seal import onnx_entry, seal
from dinogrl.errors import CheckpointError, DinogrlError
from dinogrl.onnx_sessions import onnx_session
from tiny_exports import PICTURES, tiny_export


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("opening"), "torch")


def rewritten(archive: Path, out: Path, **changes: Any) -> Path:
    """The archive with some records replaced; a name's end stands for the whole name."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            for end, change in changes.items():
                if name.endswith(end.replace("__", ".")):
                    content = change(content)
            new.writestr(name, content)
    return out


def relabelled(path: Path, content: str) -> Path:
    """A small ONNX file with ``content`` for a header, and a seal."""
    import onnx

    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, {"dinogrl": content})
    onnx.save(model, path)
    seal(path, onnx_entry)
    return path


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("content", [b"", b"not a model at all", b"PK\x03\x04 broken", b"<net name='x'></net>"])
def test_broken_files(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        Embedder.load(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.xml", "model.pt2", "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"no (model|checkpoint) at"):
            Embedder.load(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"is no model file; give a model\.safetensors, or an export: \.onnx, \.xml, \.pt2"):
        Embedder.load(tmp_path / "model.pth")
    (tmp_path / "alone.xml").write_text("<net/>")
    with pytest.raises(CheckpointError, match=r"needs alone\.bin beside it"):
        Embedder.load(tmp_path / "alone.xml")


@pytest.mark.parametrize("content", ["null", "[]", '"dinogrl"'])
def test_a_foreign_onnx_file_is_told_apart(content: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not written by dinogrl export"):
        Embedder.load(relabelled(tmp_path / "x.onnx", content))


def test_a_header_that_is_no_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes of the header that are no letters: one line of ours, and none of onnxruntime's."""
    path = relabelled(tmp_path / "x.onnx", "dinogrl header")
    path.write_bytes(path.read_bytes()[: -len(onnx_entry("0" * 64))].replace(b"dinogrl header", b"dinogrl\x80\xffeader"))
    seal(path, onnx_entry)
    with pytest.raises(CheckpointError, match="broken or no ONNX file"):
        Embedder.load(path)
    assert capfd.readouterr() == ("", "")


def test_what_onnxruntime_prints_of_a_broken_file_is_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A layer whose name is no text: onnxruntime cannot say so, prints that, and would try again."""
    path = relabelled(tmp_path / "x.onnx", "")
    path.write_bytes(path.read_bytes().replace(b"Identity", b"\xffdentity"))
    with pytest.raises(CheckpointError, match="broken or no ONNX file"):
        onnx_session(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [{"precision": ["float32"]}, {"identities": "many"}, {"gait_parts": None}, {"recipe": []}, {"facts": 3}, {"height": 0}],
    ids=lambda change: next(iter(change)),
)
def test_every_entry_of_a_header_is_checked(change: dict[str, Any], archive: Path, tmp_path: Path) -> None:
    header = json.loads(zipfile.ZipFile(archive).read("archive/extra/dinogrl.json"))
    content = json.dumps({**header, **change})
    pt2 = rewritten(archive, tmp_path / "a.pt2", **{"extra/dinogrl__json": lambda _: content.encode()})
    for path in (pt2, relabelled(tmp_path / "a.onnx", content)):
        with pytest.raises(CheckpointError, match=rf"header is broken \({next(iter(change))}: "):
            Embedder.load(path)


@pytest.mark.parametrize(
    "facts",
    ["null", "[]", "{}", '{"identities": "many"}', '{"identities": -1}', '{"identities": null}', '{"identities": 1000000000000}'],
)
def test_a_model_file_whose_header_is_wrong(facts: str, archive: Path, tmp_path: Path) -> None:
    with safe_open(archive.with_suffix(".safetensors"), "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wrong = json.loads(facts)
    if wrong:
        wrong = {**json.loads(header["facts"]), **wrong}
    save_file(tensors, tmp_path / "m.safetensors", {**header, "facts": json.dumps(wrong)})
    with pytest.raises(DinogrlError) as caught:
        Embedder.load(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_pickles_in_an_archive_are_not_run(archive: Path, tmp_path: Path) -> None:
    """Wherever torch's own loader would unpickle: weights that are called pickled, constants, sample inputs."""
    trap = tmp_path / "trap"
    bomb = pickle.dumps(Bomb(trap))

    def pickled(content: bytes) -> bytes:
        index = json.loads(content)
        next(iter(index["config"].values()))["use_pickle"] = True
        return json.dumps(index).encode()

    armed = rewritten(archive, tmp_path / "a.pt2", weights_config__json=pickled, weight_0=lambda _: bomb)
    with pytest.raises(CheckpointError, match="is a pickle, which is code"):
        Embedder.load(armed)
    armed = rewritten(archive, tmp_path / "b.pt2", model__pt=lambda _: bomb, models__model__json=lambda _: b"__import__('os')")
    assert Embedder.load(armed).embed(PICTURES, "visible").shape[0] == 1, "only weights and header are read"
    assert not trap.exists()


def test_weights_that_do_not_fit_are_told(archive: Path, tmp_path: Path) -> None:
    def beyond(content: bytes) -> bytes:
        index = json.loads(content)
        next(iter(index["config"].values()))["tensor_meta"]["storage_offset"]["as_int"] = 10**9
        return json.dumps(index).encode()

    def renamed(content: bytes) -> bytes:
        return content.replace(b'"network.appearance_parts.weight"', b'"network.elsewhere"')

    def older(content: bytes) -> bytes:
        return json.dumps({**json.loads(content), "format": "0"}).encode()

    for number, (end, change, expected) in enumerate(
        [
            ("weights_config__json", beyond, "broken"),
            ("weights_config__json", renamed, r"1 missing: appearance_parts\.weight"),
            ("extra/dinogrl__json", older, "export the model again"),
            ("extra/dinogrl__json", lambda _: b"{", "header is broken"),
            ("extra/dinogrl__json", lambda _: b'{"format": "1"}', "fingerprint: Field required"),
        ]
    ):
        with pytest.raises(CheckpointError, match=expected):
            Embedder.load(rewritten(archive, tmp_path / f"{number}.pt2", **{end: change}))
