"""SCHP and Grapy-ML are the authors' networks: the same parameters by name and shape, and the same numbers from the same weights.

``golden/human_parsers.json`` holds what the authors' code gives: a digest of its parameters' names and shapes, a few outputs for
weights and a picture made by the rules below, and their way of laying a picture into a square and back.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dinogrl.parsing.grapy_network import SHARED_HEADS, GrapyNetwork
from dinogrl.parsing.labels import ATR, CIHP, LIP, PASCAL, LabelSet
from dinogrl.parsing.schp import laid, laid_back, to_square
from dinogrl.parsing.schp_network import SchpNetwork

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "human_parsers.json").read_text())
Shapes = dict[str, tuple[int, ...]]


def shapes_of(network: nn.Module) -> Shapes:
    return {name: tuple(t.shape) for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def left_out(heads: dict[str, LabelSet]) -> Shapes:
    """What the authors' Grapy-ML holds and never reads: a projection, and the heads of the network it was started from."""
    unused: Shapes = {"transform.weight": (256, 256, 1, 1), "transform.bias": (256,)}
    for ending, labels in heads.items():
        name = f"semantic_aux{ending}" if ending else "semantic"
        unused |= {f"{name}.weight": (len(labels.classes), 256, 1, 1), f"{name}.bias": (len(labels.classes),)}
    return unused


def built(name: str) -> tuple[nn.Module, Shapes]:
    """A network by its name in the golden file, on the meta device, and every parameter that the authors' one has."""
    kind, _, rest = name.partition("_")
    with torch.device("meta"):
        if kind == "schp":
            network: nn.Module = SchpNetwork(int(rest))
            return network, shapes_of(network)
        labels = {"20": CIHP, "18": ATR, "7": PASCAL, "cihp": CIHP, "pascal": PASCAL, "atr": ATR, "": CIHP}[rest]
        heads = SHARED_HEADS if kind == "grapyml" else {"": labels}
        network = GrapyNetwork(labels, heads)
        return network, shapes_of(network) | left_out(heads)


def ruled(shapes: Shapes) -> dict[str, Tensor]:
    """Weights of no low rank from a formula alone: the i-th name in alphabetical order, the t-th number in it."""
    weights = {}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        t = torch.arange(int(np.prod(shape)), dtype=torch.float64)
        wild = torch.sin(t * 12.9898 + (i + 1) * 78.233) * 43758.5453
        value = 2 * (wild - wild.floor()) - 1
        if name.endswith("running_var"):
            value = 1 + 0.3 * value
        elif name.endswith("weight") and len(shape) == 1:
            value = 1 + 0.2 * value
        elif name.endswith(("running_mean", "bias")):
            value = 0.1 * value
        else:
            value = value * (3 * shape[0] / len(t)) ** 0.5
        weights[name] = value.reshape(shape).float()
    return weights


def picture(height: int, width: int) -> Tensor:
    h, w, c = (torch.arange(n, dtype=torch.float64) for n in (height, width, 3))
    c, h, w = c[:, None, None], h[:, None], w
    return (torch.sin(0.05 * h + 0.09 * w + c) + torch.sin(0.011 * h * w + 2 * c)).float()[None]


@pytest.mark.parametrize("name", GOLDEN["names"])
def test_parameters_are_those_of_the_authors_files(name: str) -> None:
    _, shapes = built(name)
    assert len(shapes) == GOLDEN["names"][name]["entries"]
    lines = "\n".join(f"{key} {shape}" for key, shape in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == GOLDEN["names"][name]["sha256"]


@pytest.mark.parametrize("name", GOLDEN["outputs"])
def test_the_same_weights_give_the_authors_numbers(name: str) -> None:
    network, shapes = built(name)
    own = shapes_of(network)
    network.to_empty(device="cpu").eval()
    network.load_state_dict({key: t for key, t in ruled(shapes).items() if key in own}, strict=False)
    with torch.inference_mode():
        given = network(picture(97, 65) if name.startswith("schp") else picture(96, 64))
    wanted = GOLDEN["outputs"][name]
    assert list(given.shape) == wanted["shape"]
    assert given.flatten()[wanted["positions"]].tolist() == pytest.approx(wanted["values"], abs=2e-5)


def test_a_picture_is_laid_into_the_square_as_the_authors_lay_it() -> None:
    h, w, c = np.ogrid[:90, :41, :3]
    matrix = to_square(90, 41, 473)
    square = laid(((h * 3 + w * 5 + c * 40) % 256).astype(np.uint8), matrix, 473)
    assert int(square.sum()) == GOLDEN["crop"]["warped_sum"]
    assert hashlib.sha256(square.tobytes()).hexdigest() == GOLDEN["crop"]["warped_sha256"]
    h, w, c = np.ogrid[:473, :473, :3]
    scores = torch.from_numpy(np.sin(0.02 * h + 0.03 * w + c).astype(np.float32)).permute(2, 0, 1)
    back = laid_back(scores, matrix, 90, 41).permute(1, 2, 0).flatten()
    assert back[GOLDEN["crop"]["back_positions"]].tolist() == pytest.approx(GOLDEN["crop"]["back_values"], abs=1e-5)


def test_label_sets_hang_together() -> None:
    for labels in (LIP, ATR, PASCAL, CIHP):
        count = len(labels.classes)
        assert labels.classes[0] == "background" and len(set(labels.classes)) == count
        for left, right in labels.sides:
            assert labels.classes[left].replace("left", "right") == labels.classes[right]
        if labels.regions:
            assert sorted(number for region in labels.regions for number in region) == list(range(count))
            assert len(labels.regions) == 5 and labels.regions[0] == (0,)
            words = {1: ("hat", "hair", "glasses", "face", "head"), 3: ("arm", "glove"), 4: ("leg", "shoe", "trousers", "socks")}
            for number, name in enumerate(labels.classes[1:], start=1):
                place = next((place for place, some in words.items() if any(word in name for word in some)), 2)
                assert number in labels.regions[place], f"{name} of {labels.name}"
