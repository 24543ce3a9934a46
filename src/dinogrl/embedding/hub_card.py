"""The card of a published model: what it is, what it learned from, how it scored under which protocol, and what it is for."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import ModelCardData

from dinogrl.evaluation.results import Metrics
from dinogrl.models.archive import TrainedModel
from dinogrl.recipes import Recipe

_UNKNOWN = "not recorded"
_USE = """\
## Intended use

Research, and search by a human who checks each answer, where the law and the people concerned allow it. An embedding is biometric
data wherever that term has a legal meaning. A first rank is a suggestion, never evidence that two people are one. Not for decisions
about people without a human, nor for covert tracking. Models do worse, and not equally badly for everybody, on other cameras,
seasons and populations than those of their training: measure on your own footage.

## Licence

The program is under Apache-2.0. The weights are bound by the terms of what they were trained on: the public datasets of this field
allow academic, non-commercial use only."""
_PRIORS = {
    "dinov2": "DINOv2's weights, which are inside, are under Apache-2.0.",
    "dinov3": "DINOv3's weights, which are inside, are under Meta's DINOv3 License; whoever passes them on is bound by it.",
}
"""Terms of a prior's weights, by its family."""


def write_card(trained: TrainedModel, scores: Sequence[Metrics] = ()) -> str:
    """README.md: the hub's header in YAML, then the card."""
    recipe, facts = trained.recipe, trained.facts
    dataset = str(facts.get("dataset", _UNKNOWN))
    family = _family_of_prior(recipe)
    terms = None if "simulat" in dataset.lower() else "terms-of-the-training-data"
    if terms is None and family == "dinov3":
        terms = "dinov3-license"
    data = ModelCardData(
        library_name="dinogrl",
        license="apache-2.0" if terms is None else "other",
        license_name=terms,
        pipeline_tag="image-feature-extraction",
        tags=["person-re-identification", "visible-infrared", "video", "gait"],
    )
    return "\n".join(
        [
            "---",
            data.to_yaml(),
            "---",
            "",
            f"# {recipe.name}, a DinoGRL model",
            "",
            "Finds the same person across visible (day) and infrared (night) cameras, from short tracklets of one person each.",
            f"The network gives {_parts(trained)} for clips of {recipe.data.frames} frames of "
            f"{recipe.data.height}x{recipe.data.width} pixels. Fingerprint of the weights: `{trained.fingerprint}`.",
            "",
            "```python",
            "from dinogrl import Embedder",
            "",
            'embedder = Embedder.from_pretrained("OWNER/NAME")',
            'night = embedder.embed(["0001.jpg", "0002.jpg"], "infrared")',
            "```",
            "",
            "## Training data",
            "",
            f"Dataset: {dataset}. Training identities: {trained.identities}. Epochs: {facts.get('epoch', _UNKNOWN)}. "
            f"Weights chosen by: {facts.get('selection', _UNKNOWN)}. The whole recipe stands in `config.json`.",
            "",
            "## Scores",
            "",
            *_scores(scores),
            "",
            _USE,
            *([_PRIORS[family]] if family is not None else []),
            "",
        ]
    )


def _family_of_prior(recipe: Recipe) -> str | None:
    """dinov2 or dinov3, where weights of one are inside."""
    gait = recipe.model.gait
    read = gait is not None and gait.silhouette != "masks" and not gait.prior.random_init and gait.prior.name != "tiny"
    return gait.prior.family if gait is not None and read else None


def _parts(trained: TrainedModel) -> str:
    return f"{len(trained.network.embedded)} part vectors of {trained.recipe.model.pooling.width} numbers"


def _scores(scores: Sequence[Metrics]) -> list[str]:
    """A table of rates in per cent; each row says dataset and protocol."""
    if not scores:
        return ["None recorded. `dinogrl evaluate` measures them under a named protocol."]
    columns = ("dataset", "protocol", "direction", "rank-1", "rank-5", "mAP", "mINP", "queries", "gallery")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for metrics in scores:
        for direction, rates in metrics.directions.items():
            numbers = " | ".join(f"{100 * rate:.1f}" for rate in (rates.rank1, rates.rank5, rates.mAP, rates.mINP))
            way = direction.replace("_to_", " to ")
            rows.append(f"| {metrics.dataset} | {metrics.protocol} | {way} | {numbers} | {rates.queries} | {rates.gallery} |")
    return ["In per cent.", "", *rows]
