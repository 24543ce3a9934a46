"""Ways in which the streams' parts enhance each other's global feature: the paper's, and the alternatives of its table 9.

Every entry is made with (stripes, granularities, channels, shared, latent) and maps the parts of both streams, (B,P,D) each, gait
first, to enhanced global features, (B,G,D) each.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dinogrl.catalog import Catalog
from dinogrl.models.enhancement.local_to_global import LocalToGlobal

ENHANCEMENTS: Catalog[Callable[..., nn.Module]] = Catalog("enhancement", {"local_to_global": LocalToGlobal})
