"""Human parsers around their networks: files read, pictures prepared as the authors do, silhouettes at the pictures' own sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dinogrl.errors import CheckpointError, DataError, DinogrlError
from dinogrl.parsing import ParserSettings, load_parser
from dinogrl.parsing.grapy import SCALES, GrapyParser, load_grapy
from dinogrl.parsing.grapy_network import SHARED_HEADS, GrapyNetwork
from dinogrl.parsing.labels import CIHP, LIP, PASCAL
from dinogrl.parsing.onnx_file import VALUES, OnnxInput, OnnxParser
from dinogrl.parsing.parser import parsing_of
from dinogrl.parsing.schp import SchpParser, load_schp
from dinogrl.parsing.schp_network import SchpNetwork

RED, GREEN, BLUE = (np.array(colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def half_and_half(height: int, width: int) -> np.ndarray:
    """Red on the left, blue on the right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = RED, BLUE
    return picture


class BlueIsPerson(nn.Module):
    """Scores of two classes from pixels, first channel blue: background, and a person where it is blue. Keeps what it was shown."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.classes = classes
        self.seen: list[Tensor] = []

    def forward(self, pictures: Tensor) -> Tensor:
        self.seen.append(pictures)
        scores = torch.full((len(pictures), self.classes, *pictures.shape[2:]), -30.0)
        scores[:, 0] = 0
        scores[:, 1] = 20 * torch.sign(pictures[:, 0])
        return scores


def schp_file(path: Path, classes: int = 7, negative: bool = False) -> Path:
    """A small SCHP as the authors' training saves it: wrapped, and behind ``module.``."""
    torch.manual_seed(classes)
    state = SchpNetwork(classes, width=8, depths=(1, 1, 1, 1)).state_dict()
    if negative:
        state = {name: -t if name.endswith(".weight") and t.ndim == 1 else t for name, t in state.items()}
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items() if "num_batches" not in name}}, path)
    return path


# --- SCHP


def test_schp_sees_normalised_blue_first_squares_and_answers_at_the_pictures_size() -> None:
    network = BlueIsPerson(7)
    parser = SchpParser(network, PASCAL, 64, "0", "cpu")
    tall, wide = half_and_half(50, 20), half_and_half(24, 60)
    first, second = parser([tall, wide])
    assert [p.person.shape for p in (first, second)] == [(50, 20), (24, 60)]
    for parsing, picture in ((first, tall), (second, wide)):
        blue = picture[..., 2] == 255
        assert (parsing.inside == blue).mean() > 0.95 and parsing.person[blue].mean() > 0.95
        assert np.array_equal(parsing.mask(hard=True) == 255, parsing.inside)
    shown = (
        network.seen[0] * torch.tensor((0.225, 0.224, 0.229))[:, None, None] + torch.tensor((0.406, 0.456, 0.485))[:, None, None]
    )
    assert shown.shape == (2, 3, 64, 64)
    middle = shown[0, :, 32]
    assert middle[:, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-5), "black beside a tall picture"
    assert middle[:, 25].tolist() == pytest.approx([0, 0, 1], abs=1e-5) and middle[:, 38].tolist() == pytest.approx(
        [1, 0, 0], abs=1e-5
    )


def test_schp_file_of_the_authors_form_is_loaded(tmp_path: Path) -> None:
    path = schp_file(tmp_path / "pascal.pth")
    parser = load_schp(path, "cpu")
    (parsing,) = parser([half_and_half(32, 16)])
    assert parsing.person.shape == (32, 16) and 0 <= parsing.person.min() <= parsing.person.max() <= 1
    assert parser.identity.startswith("schp pascal ")
    assert load_schp(path, "cpu").identity == parser.identity != load_schp(schp_file(tmp_path / "lip.pth", 20), "cpu").identity


def test_schp_scales_by_the_absolute_weight_of_its_norms(tmp_path: Path) -> None:
    plain, negative = (load_schp(schp_file(tmp_path / f"{sign}.pth", negative=sign), "cpu") for sign in (False, True))
    picture = half_and_half(40, 20)
    assert np.array_equal(plain([picture])[0].person, negative([picture])[0].person)


@pytest.mark.parametrize("kind", ["missing", "garbage", "other", "lacking", "shallow", "classes"])
def test_a_file_that_is_no_schp_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if kind == "garbage":
        path.write_bytes(b"no weights at all")
    if kind == "other":
        torch.save({"conv1.weight": torch.zeros(3)}, path)
    if kind == "lacking":
        state = SchpNetwork(7, width=8, depths=(1, 1, 1, 1)).state_dict()
        torch.save({name: t for name, t in state.items() if not name.startswith("edge.conv2")}, path)
    if kind == "shallow":
        torch.save(SchpNetwork(7, width=8, depths=(1, 1, 0, 1)).state_dict(), path)
    if kind == "classes":
        schp_file(path, classes=9)
    expected = {
        "missing": "no weights",
        "garbage": "cannot read",
        "other": "is no file of SCHP",
        "lacking": "conv2",
        "shallow": r"lacks layer3\.0",
        "classes": "9 classes",
    }
    with pytest.raises(CheckpointError, match=expected[kind]):
        load_schp(path, "cpu")


# --- Grapy-ML


def test_grapy_averages_over_sizes_and_mirrors_and_knows_left_from_right() -> None:
    class LeftArm(nn.Module):
        """Says "left arm" on the picture's left half, whatever it shows."""

        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[tuple[int, ...]] = []

        def forward(self, pictures: Tensor) -> Tensor:
            self.sizes.append(tuple(pictures.shape))
            scores = torch.zeros(len(pictures), 20, *pictures.shape[2:])
            scores[:, 14, :, : pictures.shape[3] // 2] = 10
            return scores

    network = LeftArm()
    parser = GrapyParser(network, CIHP, "0", "cpu", height=64)
    (parsing,) = parser([half_and_half(32, 16)])
    assert network.sizes == [(2, 3, int(64 * scale), int(32 * scale)) for scale in SCALES]
    parser([half_and_half(2, 500)])
    assert max(size[3] for size in network.sizes) == 128 * max(SCALES), "a strip is not made 64 high and 16000 wide"
    left, right = parsing.classes[:, :7], parsing.classes[:, 9:]
    assert np.all(left == 14) and np.all(right == 15), "the mirrored half says right arm"


def test_grapy_sees_blue_first_values_from_minus_one_to_one() -> None:
    network = BlueIsPerson(7)
    parser = GrapyParser(network, PASCAL, "0", "cpu", scales=[1.0], mirror=False, height=None)
    pictures = [half_and_half(20, 10), half_and_half(12, 30), half_and_half(20, 10)]
    for parsing, picture in zip(parser(pictures), pictures, strict=True):
        assert np.array_equal(parsing.inside, picture[..., 2] == 255)
    assert [tuple(seen.shape) for seen in network.seen] == [(2, 3, 20, 10), (1, 3, 12, 30)], "equal sizes go together"
    assert network.seen[0][0, :, 0, 0].tolist() == [-1, -1, 1] and network.seen[0][0, :, 0, -1].tolist() == [1, -1, -1]


def test_grapy_file_of_three_datasets_is_loaded_for_the_one_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "GPM-ML_multi-dataset.pth"
    state = dict(GrapyNetwork(PASCAL, SHARED_HEADS).state_dict())
    extra = {
        "transform.weight": torch.zeros(256, 256, 1, 1),
        "semantic_aux_atr.bias": torch.zeros(18),
        "aspp1.bn._running_iter": torch.ones(1),
    }
    torch.save(state | extra, path)
    with pytest.raises(CheckpointError, match="several datasets; give labels cihp, pascal, atr"):
        load_grapy(path, "cpu")
    with pytest.raises(DinogrlError, match="did you mean 'pascal'"):
        load_grapy(path, "cpu", labels="pascl")
    parser = load_grapy(path, "cpu", labels="pascal", scales=[1.0], mirror=False, height=48)
    (parsing,) = parser([half_and_half(32, 16)])
    assert parsing.person.shape == (32, 16) and parsing.classes.max() < 7


def test_what_is_no_grapy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"sem.weight": torch.zeros(3, 2)}, path)
    with pytest.raises(CheckpointError, match="is no file of Grapy-ML"):
        load_grapy(path, "cpu")
    torch.save({"sem2.weight": torch.zeros(7, 256, 1, 1)}, path)
    with pytest.raises(CheckpointError, match="not those of cihp"):
        load_grapy(path, "cpu", labels="cihp")


# --- ONNX


def onnx_file(path: Path, network: nn.Module, shape: tuple[int, ...], dynamic: bool = True) -> Path:
    axes = {"x": {0: "n", 2: "h", 3: "w"}} if dynamic else None
    torch.onnx.export(network, (torch.zeros(shape),), path, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False)
    return path


class RedScores(nn.Module):
    """Two classes: a person where the first channel is well above zero."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x[:, :1]), 20 * x[:, :1] - 10], dim=1)


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_onnx_file_of_scores_parses(dynamic: bool, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "p.onnx", RedScores(), (1, 3, 32, 16), dynamic)
    pictures = [half_and_half(50, 20), half_and_half(24, 60)]
    red = OnnxParser(path, OnnxInput(size=(32, 16), values="unit"))(pictures)
    blue = OnnxParser(path, OnnxInput(size=(32, 16), values="unit", blue_first=True))(pictures)
    for parsing, other, picture in zip(red, blue, pictures, strict=True):
        assert parsing.inside.shape == picture.shape[:2]
        assert (parsing.inside == (picture[..., 0] == 255)).mean() > 0.9
        assert (other.inside == (picture[..., 2] == 255)).mean() > 0.9


def test_onnx_files_with_other_endings_parse(tmp_path: Path) -> None:
    class Numbers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return RedScores()(x).argmax(dim=1)

    class LastChannel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return RedScores()(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return RedScores()(x)[:, 1:].sigmoid()

    picture = half_and_half(32, 16)
    cases = {"numbers": (Numbers(), (1, 3, 32, 16)), "one": (One(), (1, 3, 32, 16)), "last": (LastChannel(), (1, 32, 16, 3))}
    for name, (network, shape) in cases.items():
        path = onnx_file(tmp_path / f"{name}.onnx", network, shape, dynamic=False)
        (parsing,) = OnnxParser(path, OnnxInput(values="unit"))([picture])
        assert np.array_equal(parsing.inside, picture[..., 0] == 255), name


def test_what_is_no_parser_in_onnx_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no ONNX file at"):
        OnnxParser(tmp_path / "nowhere.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot read"):
        OnnxParser(tmp_path / "broken.onnx")
    with pytest.raises(CheckpointError, match="expected one picture"):
        OnnxParser(onnx_file(tmp_path / "four.onnx", nn.Conv2d(4, 2, 1), (1, 4, 8, 8)))
    pooled = onnx_file(tmp_path / "vector.onnx", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 3, 8, 8))
    with pytest.raises(CheckpointError, match="expected scores"):
        OnnxParser(pooled, OnnxInput(size=(8, 8)))([half_and_half(8, 8)])
    with pytest.raises(DinogrlError, match="did you mean 'imagenet'"):
        OnnxParser(pooled, OnnxInput(values="imagnet"))


def test_ranges_of_values() -> None:
    """Where black and white lie, red first."""
    ends = {"unit": (0, 1), "symmetric": (-1, 1), "bytes": (0, 255), "imagenet": (-0.485 / 0.229, (1 - 0.485) / 0.229)}
    assert ends.keys() == set(VALUES)
    for name, (black, white) in ends.items():
        one = VALUES[name]
        made = [(level * one.scale - one.mean[0]) / one.spread[0] for level in (0, 255)]
        assert made == pytest.approx([black, white], abs=1e-6), name


def made_by_hand(path: Path, kind: int, shape: list[int | str], last: str = "Identity", **settings: object) -> Path:
    """A file that makes float32 of its input and then does the one step ``last``; its second output is the opposite."""
    steps = [("Cast", "x", "floats", {"to": onnx.TensorProto.FLOAT}), (last, "floats", "y", settings), ("Neg", "y", "other", {})]
    nodes = [onnx.helper.make_node(step, [before], [after], **given) for step, before, after, given in steps]
    inputs = [onnx.helper.make_tensor_value_info("x", kind, shape)]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("y", "other")]
    graph = onnx.helper.make_graph(nodes, "parser", inputs, outputs)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("kind", [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_onnx_files_take_pixels_of_their_kind_and_their_first_output_counts(kind: int, tmp_path: Path) -> None:
    parser = OnnxParser(made_by_hand(tmp_path / "p.onnx", kind, ["n", 3, 16, 16]), OnnxInput(values="bytes", background=2))
    pictures = [half_and_half(32, 16), half_and_half(1, 2), half_and_half(3, 50)]  # red or blue where its channel is the highest
    for parsing, picture in zip(parser(pictures), pictures, strict=True):
        assert (parsing.inside == (picture[..., 0] == 255)).mean() > 0.9


def test_class_numbers_in_floats_are_class_numbers(tmp_path: Path) -> None:
    path = made_by_hand(tmp_path / "p.onnx", onnx.TensorProto.FLOAT, ["n", 3, 16, 16], "ReduceMin", axes=[1], keepdims=0)
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = 7
    (parsing,) = OnnxParser(path, OnnxInput(values="bytes"))([picture])
    assert set(parsing.person[:6].ravel()) == {1} and set(parsing.person[10:].ravel()) == {0}


@pytest.mark.parametrize(
    ("kind", "shape", "said"),
    [
        (onnx.TensorProto.FLOAT, [4, 3, 8, 8], "takes 4 pictures"),
        (onnx.TensorProto.INT64, ["n", 3, 8, 8], r"of tensor\(int64\), expected"),
    ],
)
def test_onnx_files_that_take_something_else_are_refused(kind: int, shape: list[int | str], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        OnnxParser(made_by_hand(tmp_path / "p.onnx", kind, shape))


def test_an_onnx_file_that_fails_says_so_in_a_line(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 9), nn.Softmax(1))
    parser = OnnxParser(onnx_file(tmp_path / "p.onnx", network, (1, 3, 32, 32)), OnnxInput(size=(4, 4)))
    with pytest.raises(CheckpointError, match=r"fails on pictures of \(4, 4\) pixels: "):
        parser([half_and_half(8, 8)])


# --- all


def test_a_parsing_adds_up() -> None:
    probabilities = torch.rand(20, 6, 4).softmax(dim=0)
    parsing = parsing_of(probabilities)
    assert np.allclose(parsing.person, 1 - probabilities[0].numpy(), atol=1e-6)
    assert np.array_equal(parsing.inside, probabilities.argmax(dim=0).numpy() != 0)
    assert np.array_equal(parsing_of(probabilities, {3}).inside, probabilities.argmax(dim=0).numpy() == 3)
    assert parsing.mask().dtype == np.uint8 and len(LIP.classes) == 20


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_parser_that_gives_no_numbers_gives_no_mask(broken: float) -> None:
    """NaN would come out as an empty mask, frame after frame."""
    probabilities = torch.full((4, 3, 2), 0.25)
    probabilities[:, 1, 1] = broken
    with pytest.raises(DataError, match="not finite"):
        parsing_of(probabilities)


def test_unknown_parsers_and_no_weights_are_named() -> None:
    with pytest.raises(DinogrlError, match="did you mean 'schp'"):
        load_parser("schpp", ParserSettings("x"))
    with pytest.raises(DinogrlError, match="needs weights"):
        load_parser("schp", ParserSettings(""))
