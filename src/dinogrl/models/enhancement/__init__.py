"""Ways in which the streams' parts enhance each other's global feature: the paper's, and the alternatives of its table 9.

Every one maps the parts of both streams, (B,P,D) each, gait first, to enhanced global features, (B,G,D) each: one for each
granularity, none for ``none``. How the alternatives were fitted to part vectors is our choice, since the paper does not
say; each file names its source and what was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from dinogrl.catalog import Catalog
from dinogrl.models.enhancement.attention_fusion import AttentionFusionEnhancement
from dinogrl.models.enhancement.cross_non_local import CrossNonLocalEnhancement
from dinogrl.models.enhancement.local_to_global import LocalToGlobal
from dinogrl.models.enhancement.ms_g3d import StripeGraph
from dinogrl.models.enhancement.non_local import NonLocalEnhancement
from dinogrl.models.enhancement.none import NoEnhancement
from dinogrl.models.enhancement.shape_guided import ShapeGuided
from dinogrl.recipes.schema import Enhancement

Builder = Callable[[Enhancement, Sequence[int], int], nn.Module]
"""(section of the recipe, stripes of the parts, D) -> module"""

ENHANCEMENTS: Catalog[Builder] = Catalog(
    "enhancement",
    {
        "none": lambda recipe, stripes, width: NoEnhancement(),
        "non_local": lambda recipe, stripes, width: NonLocalEnhancement(stripes, recipe.granularities, width, recipe.relation),
        "attention_fusion": lambda recipe, stripes, width: AttentionFusionEnhancement(stripes, recipe.granularities, width),
        "cross_non_local": lambda recipe, stripes, width: CrossNonLocalEnhancement(stripes, recipe.granularities, width),
        "shape_guided": lambda recipe, stripes, width: ShapeGuided(stripes, recipe.granularities, width),
        "ms_g3d": lambda recipe, stripes, width: StripeGraph(stripes, recipe.granularities, width),
        "local_to_global": lambda recipe, stripes, width: LocalToGlobal(
            stripes, recipe.granularities, recipe.channels, recipe.shared, recipe.latent
        ),
    },
)


def enhanced_features(recipe: Enhancement | None) -> int:
    """G, the number of enhanced global features of a stream."""
    return 0 if recipe is None or recipe.name == "none" else len(recipe.granularities)
