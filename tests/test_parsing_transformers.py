"""Human parsers of transformers: any network of segmentation, its own preprocessing, and what may be wrong with a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from dinogrl.errors import CheckpointError, DinogrlError
from dinogrl.parsing import ParserSettings, load_parser
from dinogrl.parsing.parser import HumanParser
from dinogrl.parsing.segmentation import class_probabilities, person_classes

LABELS = {0: "Background", 1: "Hat", 2: "Left-leg"}
NAMED: dict[str, Any] = {"id2label": LABELS, "label2id": {label: number for number, label in LABELS.items()}}


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def parser_in(folder: Path, background: int | None = None) -> HumanParser:
    return load_parser("transformers", ParserSettings(str(folder), "cpu", background=background))


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, **NAMED
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("segformer")
    network = transformers.SegformerForSemanticSegmentation(config)
    network.decode_head.classifier.bias.data = torch.tensor([0.0, 2.0, 1.0])
    network.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_a_network_of_transformers_parses(segformer: Path) -> None:
    parser = parser_in(segformer)
    parsings = parser([picture(50, 20), picture(24, 60)])
    assert [parsing.person.shape for parsing in parsings] == [(50, 20), (24, 60)]
    assert all(0 <= parsing.person.min() <= parsing.person.max() <= 1 for parsing in parsings)
    other = parser_in(segformer, background=1)
    difference = np.abs(other([picture(50, 20)])[0].person - parsings[0].person)
    assert difference.max() > 1e-3 and other.identity != parser.identity
    assert parser_in(segformer / ".." / segformer.name).identity == parser.identity, "the same weights by another path"


def test_loading_prints_nothing(segformer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parser_in(segformer)
    assert capfd.readouterr() == ("", "")


def test_a_network_of_transformers_gives_its_own_post_processing(segformer: Path) -> None:
    frame = picture(50, 20)
    prepare = transformers.AutoImageProcessor.from_pretrained(segformer, backend="pil")
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(segformer).eval()
    with torch.inference_mode():
        output = network(**prepare(images=frame, return_tensors="pt"))
    (classes,) = prepare.post_process_semantic_segmentation(output, target_sizes=[(50, 20)])
    (parsing,) = parser_in(segformer)([frame])
    assert (parsing.classes == classes.numpy()).mean() > 0.99  # probabilities are resized here, scores there


def test_labels_tell_who_is_a_person() -> None:
    assert person_classes({0: "background", 1: "hat", 2: "face"}, None, "n") == {1, 2}
    assert person_classes({0: "wall", 12: "person", 3: "tree"}, None, "n") == {12}
    assert person_classes({0: "wall", 1: "hat"}, 0, "n") == {1}
    with pytest.raises(CheckpointError, match="which class of 'n' is the background"):
        person_classes({0: "label_0", 1: "label_1"}, None, "n")
    with pytest.raises(CheckpointError, match="has no class 7"):
        person_classes({0: "label_0", 1: "label_1"}, 7, "n")


def test_named_masks_vote_for_their_classes() -> None:
    class Output:
        logits = None
        class_queries_logits = torch.tensor([[[9.0, -9.0, -9.0], [-9.0, 9.0, -9.0]]])
        masks_queries_logits = torch.tensor([[[[20.0, -20.0]], [[-20.0, 20.0]]]])

    assert class_probabilities(Output()).argmax(dim=1).tolist() == [[[0, 1]]]


def test_where_only_things_have_names_the_rest_is_nobody() -> None:
    class Output:
        logits = None
        class_queries_logits = torch.tensor([[[9.0, -9.0]]])  # one class, a person, and none
        masks_queries_logits = torch.tensor([[[[20.0, -20.0]]]])

    probabilities = class_probabilities(Output())
    assert probabilities[0, 0].tolist() == [[pytest.approx(1, abs=1e-3), pytest.approx(0, abs=1e-3)]]
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(1))


SQUARE, SHORT = {"height": 64, "width": 64}, {"shortest_edge": 64, "longest_edge": 128}
PROCESSORS: dict[str, Any] = {
    "squeezes": transformers.SegformerImageProcessor(size=SQUARE),
    "crops": transformers.BeitImageProcessor(size=SQUARE, do_center_crop=True, crop_size={"height": 32, "width": 32}),
    "keeps the shape and crops": transformers.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=SQUARE),
    "keeps the shape and pads": transformers.DPTImageProcessor(size=SQUARE, keep_aspect_ratio=True, do_pad=True, size_divisor=48),
    "pads": transformers.Mask2FormerImageProcessor(size=SHORT, pad_size={"height": 192, "width": 192}),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_the_mask_lies_upon_the_picture_whatever_the_preprocessing(
    kind: str, segformer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bright(self: Any, pixel_values: torch.Tensor, **_: Any) -> SimpleNamespace:
        level = 20 * (pixel_values.mean(dim=1) - pixel_values.amin() - 0.5)
        return SimpleNamespace(logits=torch.stack([-level, level, torch.full_like(level, -30)], dim=1))

    monkeypatch.setattr(transformers.SegformerForSemanticSegmentation, "forward", bright)
    folder = shutil.copytree(segformer, tmp_path / "folder")
    PROCESSORS[kind].save_pretrained(folder)
    pictures = [np.zeros((*size, 3), np.uint8) for size in ((60, 20), (20, 60), (3, 50), (60, 20))]
    for one in pictures:
        one[:, : one.shape[1] // 4] = 255  # a band on the left, which a crop would lose and a margin move
    pictures += [np.zeros((1, 1, 3), np.uint8)]
    for parsing, one in zip(parser_in(folder)(pictures), pictures, strict=True):
        assert parsing.inside.shape == one.shape[:2] and (parsing.inside == (one[..., 0] == 255)).mean() > 0.9


def test_half_precision_is_read_in_full(segformer: Path, tmp_path: Path) -> None:
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(segformer).half()
    folder = shutil.copytree(segformer, tmp_path / "half")
    network.save_pretrained(folder)
    half, full = (parser_in(place)([picture(50, 20)])[0] for place in (folder, segformer))
    assert np.abs(half.person - full.person).max() < 0.01


def test_a_network_without_its_head_is_refused_not_left_random(segformer: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(segformer, tmp_path / "backbone")
    transformers.SegformerModel.from_pretrained(segformer).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"lacks .* tensors: decode_head"):
        parser_in(folder)


def test_mask2former_parses_and_its_kin_with_other_outputs_is_refused(tmp_path: Path) -> None:
    backbone = transformers.SwinConfig(
        embed_dim=16, depths=[1] * 4, num_heads=[1] * 4, window_size=2, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    narrow = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim", "dim_feedforward"), 32)
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=5, **narrow, **NAMED
    )
    torch.manual_seed(1)
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path)
    transformers.Mask2FormerImageProcessor(size=SHORT).save_pretrained(tmp_path)
    parser, pictures = parser_in(tmp_path), [picture(50, 20), picture(24, 60), picture(50, 20)]
    together, alone = parser(pictures), [parser([one])[0] for one in pictures]
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(one.person, other.person, atol=1e-4) and 0 < one.person.mean() < 1
    (tmp_path / "config.json").write_text('{"model_type": "oneformer"}')
    with pytest.raises(CheckpointError, match="oneformer tells no classes of pixels apart, or in a way"):
        parser_in(tmp_path)


def test_a_network_that_fails_on_a_picture_says_so_in_a_line(
    segformer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = parser_in(segformer)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("shape is\ninvalid")

    monkeypatch.setattr(transformers.SegformerForSemanticSegmentation, "forward", fails)
    with pytest.raises(CheckpointError, match="cannot parse pictures of 50x20 pixels: shape is invalid"):
        parser([picture(50, 20)])


def test_what_is_no_network_of_transformers_is_named(tmp_path: Path, segformer: Path) -> None:
    with pytest.raises(DinogrlError, match="no human parser 'nowhere'"):
        load_parser("transformers", ParserSettings("nowhere"))
    with pytest.raises(DinogrlError, match=r"no model\.safetensors"):
        parser_in(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((segformer / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="tells no classes of pixels apart"):
        parser_in(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "segformer", "depths": "three"}')
    with pytest.raises(CheckpointError, match="can be loaded: Validation error for field 'depths'"):
        parser_in(tmp_path)
