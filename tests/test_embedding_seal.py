"""ONNX and OpenVINO files that are not as they were written: refused when they are opened, in one line, before they are run."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnx
import pytest

from dinogrl.embedding import export_onnx
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.seal import KEY, Entry, expect_sealed, onnx_entry, seal, xml_entry
from dinogrl.errors import CheckpointError
from dinogrl.onnx_sessions import onnx_session
from tiny_exports import PICTURES, tiny_export

LENGTH = len(onnx_entry("0" * 64))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("seal"), "onnx")


def test_the_seal_is_an_entry_of_the_metadata(exported: Path) -> None:
    content = exported.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    digest = hashlib.sha256(content[:-LENGTH]).hexdigest()
    assert [(entry.key, entry.value) for entry in model.metadata_props][-1] == (KEY, digest)
    assert onnx_session(exported).get_modelmeta().custom_metadata_map[KEY] == digest


def weights_at(content: bytes) -> int:
    """Where the bytes of the largest constant lie."""
    largest = max(onnx.load_from_string(content).graph.initializer, key=lambda tensor: len(tensor.raw_data))
    return content.index(largest.raw_data) + len(largest.raw_data) // 2


@pytest.mark.parametrize("where", ["weights", "metadata", "digest"])
def test_one_changed_bit_is_told(where: str, exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(exported.read_bytes())
    at = {"weights": weights_at(bytes(content)), "metadata": content.index(b'"fingerprint"') + 20, "digest": len(content) - 5}
    content[at[where]] ^= 1
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"changed\.onnx has changed since it was written") as caught:
        Embedder.load(changed)
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kept", [0, 1, LENGTH - 1, LENGTH, 1000, -LENGTH, -1])
def test_a_file_that_is_cut_short_is_told(kept: int, exported: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.onnx"
    short.write_bytes(exported.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"short\.onnx is cut short, or was not written by dinogrl export"):
        Embedder.load(short)


def test_weights_that_were_moved_to_another_file_are_told(exported: Path, tmp_path: Path) -> None:
    """As other tools save large models: what lies in that file no longer belongs to what was checked."""
    moved = tmp_path / "moved.onnx"
    model = onnx.load(exported)
    onnx.save(model, moved, save_as_external_data=True, location="moved.data", size_threshold=0)
    with pytest.raises(CheckpointError, match=r"moved\.onnx has changed since it was written"):
        Embedder.load(moved)


def test_a_copy_saved_by_onnx_itself_is_the_same_file(exported: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(exported), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()
    assert Embedder.load(tmp_path / "again.onnx").embed(PICTURES, "visible").shape == (1, 12)


@pytest.mark.parametrize("entry", [onnx_entry, xml_entry])
def test_a_whole_file_with_a_seal_of_its_own_is_read(entry: Entry, tmp_path: Path) -> None:
    """Sizes around the piece in which files are read."""
    for size in (0, 1, 2**20 - 1, 2**20, 2**20 + 1):
        path = tmp_path / "any"
        path.write_bytes(bytes(size))
        seal(path, entry)
        assert path.stat().st_size == size + len(entry("0" * 64))
        expect_sealed(path, entry)


def test_one_digit_of_an_intermediate_representation_is_told(tmp_path: Path) -> None:
    """Of where weights begin, or of which layer feeds which: without a seal, OpenVINO runs another network without a word."""
    path = tiny_export(tmp_path, "openvino")
    content = path.read_bytes()
    assert ElementTree.fromstring(content).tag == "net", "still a document to every reader of XML"
    assert Embedder.load(path).embed(PICTURES, "visible").shape == (1, 12)
    offset = content.index(b'offset="', len(content) // 4) + len(b'offset="')
    for at, changed in ((offset, b"9" if content[offset : offset + 1] != b"9" else b"8"), (len(content) - 10, b"g")):
        path.write_bytes(content[:at] + changed + content[at + 1 :])
        with pytest.raises(CheckpointError, match=r"m\.xml has changed since it was written"):
            Embedder.load(path)
    for kept in (0, 1000, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match=r"m\.xml is cut short, or was not written by dinogrl export"):
            Embedder.load(path)


def test_a_file_that_fails_while_it_runs_is_one_line(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two clips and three modalities: onnxruntime raises that, and prints nothing."""
    run = export_onnx.read(exported).network.run
    with pytest.raises(CheckpointError, match="fails on 2 clips") as caught:
        run(np.zeros((2, 1, 64, 32, 3), np.uint8), np.array([0, 1, 0]))
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")
