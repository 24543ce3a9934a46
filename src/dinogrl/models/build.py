"""From a recipe to a network: the only place that knows both."""

from __future__ import annotations

from torch import nn

from dinogrl.models import pretrained
from dinogrl.models.backbones.frozen import FrozenPrior
from dinogrl.models.backbones.lora import adapt
from dinogrl.models.backbones.priors import CONFIGS, config_of_shape, make_prior, read_config
from dinogrl.models.backbones.resnet import Layers, Stem
from dinogrl.models.dinogrl import DinoGRL, Head
from dinogrl.models.enhancement import ENHANCEMENTS, enhanced_features
from dinogrl.models.heads import BNNeck, PartLinear
from dinogrl.models.streams.appearance import AppearanceStream
from dinogrl.models.streams.fusion import AttentionFusion
from dinogrl.models.streams.gait import GaitStream, MapEncoder
from dinogrl.models.streams.parsed import ParsedGaitStream
from dinogrl.models.streams.silhouette import AppearancePrior, GaitPrior, MaskEncoder
from dinogrl.recipes import schema
from dinogrl.recipes.loading import load_recipe


def build_model(recipe: schema.Recipe | schema.Model | str, identities: int, *, start_weights: bool = True) -> DinoGRL:
    """The network that a recipe (or the name of one) describes, with a classifier for ``identities`` training identities.

    ``start_weights=False`` reads no weights at all: for a network whose checkpoint is loaded next. Raises
    :class:`dinogrl.errors.CheckpointError` for weights that the recipe names and that are missing or do not fit.
    """
    named = load_recipe(recipe) if isinstance(recipe, str) else recipe
    model = named.model if isinstance(named, schema.Recipe) else named
    appearance = _appearance(model.appearance, start_weights)
    gait = _gait(model.gait, start_weights) if model.gait else None
    enhancement = _enhancement(model) if model.enhancement else None
    enhanced = enhanced_features(model.enhancement)
    stripes = sum(model.pooling.stripes)
    streams = 2 if gait else 1
    total = stripes + enhanced
    main = [0, *range(stripes, total)] if model.supervise == "global" else list(range(total))
    supervised = [stream * total + part for stream in range(streams) for part in main]
    return DinoGRL(
        appearance=appearance,
        appearance_head=_head(appearance.out_channels, model.pooling, enhanced, identities),
        gait=gait,
        gait_head=_head(gait.out_channels, model.pooling, enhanced, identities) if gait else None,
        enhancement=enhancement,
        stripes=model.pooling.stripes,
        supervised=supervised,
        embedded=supervised if model.embed == "supervised" else list(range(streams * total)),
    )


def _appearance(recipe: schema.Appearance, start_weights: bool) -> AppearanceStream:
    visible, infrared = (Stem(recipe.width, recipe.stem_relu) for _ in range(2))
    layers = Layers(recipe.width, recipe.depths, recipe.non_local)
    if recipe.weights and start_weights:
        pretrained.load_resnet(recipe.weights, stems=[visible, infrared], layers=layers)
    return AppearanceStream(visible, infrared, layers)


def _gait(recipe: schema.Gait, start_weights: bool) -> GaitStream | ParsedGaitStream:
    size = (recipe.map_height, recipe.map_width)
    if recipe.silhouette == "masks":
        return ParsedGaitStream(MapEncoder(1, recipe.embed), _gait_layers(recipe, start_weights), size)
    prior = _prior(recipe.prior, start_weights)
    plain = recipe.silhouette == "plain"
    makers = {"gait": GaitPrior, "appearance": AppearancePrior}
    names = [] if plain else [name for name in makers if name in recipe.priors]
    mask = MaskEncoder(prior.width, recipe.mask_dropout)
    if start_weights and recipe.mask_start not in {"centre", "random"}:
        pretrained.load_mask_branch(recipe.mask_start, mask)
    priors: dict[str, nn.Module] = {name: makers[name](prior.width * len(prior.blocks), recipe.channels) for name in names}
    if plain:
        encoders = {"silhouette": MapEncoder(1, recipe.embed)}
    else:
        encoders = {name: MapEncoder(recipe.channels, recipe.embed) for name in names}
    layers = _gait_layers(recipe, start_weights)
    return GaitStream(
        prior=prior,
        mask=mask,
        priors=priors,
        encoders=encoders,
        fusion=AttentionFusion(recipe.embed) if len(names) == 2 else None,
        layers=layers,
        size=size,
        multiply=recipe.multiply,
        foreground_only=recipe.foreground_only,
        joint=recipe.joint,
        joint_priors=recipe.joint_priors,
        drop_prior=recipe.drop_prior,
        start_from_data=recipe.mask_start == "centre",
    )


def _gait_layers(recipe: schema.Gait, start_weights: bool) -> Layers:
    layers = Layers(recipe.width, recipe.depths, in_channels=recipe.embed)
    if recipe.weights and start_weights:
        pretrained.load_resnet(recipe.weights, stems=[], layers=layers)
    return layers


def _prior(recipe: schema.Prior, start_weights: bool) -> FrozenPrior:
    source = pretrained.prior_source(recipe) if start_weights else None
    if recipe.shape is not None:
        config = config_of_shape(recipe.shape)
    elif source is not None and source.is_dir():
        config = read_config(source)
    else:
        config = CONFIGS[recipe.name]()
    prior = make_prior(config, recipe)
    if source is not None:
        pretrained.load_prior(prior, source)
    if recipe.lora is not None:
        adapt(prior, recipe.lora)
    return prior


def _enhancement(model: schema.Model) -> nn.Module:
    recipe = model.enhancement
    assert recipe is not None
    return ENHANCEMENTS[recipe.name](recipe, model.pooling.stripes, model.pooling.width)


def _head(in_channels: int, pooling: schema.Pooling, enhanced: int, identities: int) -> Head:
    stripes, whole = sum(pooling.stripes), pooling.start == "whole"
    parts = PartLinear(stripes, in_channels, pooling.width, start_as_whole=whole)
    return Head(parts, BNNeck(stripes + enhanced, pooling.width, identities, start_as_whole=whole))
