"""Maps that every part has for itself: the linear map to its vector, and the BN neck with the cosine classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.precision import full
from dinogrl.models.vector_norm import VectorNorm


class PartLinear(nn.Module):
    """One linear map without bias for each part. (B,P,C) -> (B,P,D)

    Starts by Xavier's rule for the map of one part; with ``start_as_whole``, as in the published code, by the rule for the whole
    tensor, which takes the parts for output channels and D for a kernel.
    """

    def __init__(self, parts: int, in_channels: int, width: int, start_as_whole: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, in_channels, width))
        bound = (6 / (in_channels + width)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if start_as_whole:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, parts: Tensor) -> Tensor:
        return exact_bmm(parts.transpose(0, 1), self.weight).transpose(0, 1)


class BNNeck(nn.Module):
    """Batch norm of the part vectors, then the cosine to each identity's weight vector. (B,P,D) -> (B,P,K) in [-1,1]

    The triplet loss and the embedding use the vectors before this neck. ``start_as_whole`` as in :class:`PartLinear`.
    """

    def __init__(self, parts: int, width: int, identities: int, start_as_whole: bool = False) -> None:
        super().__init__()
        self.norm = VectorNorm(parts * width)
        self.weight = nn.Parameter(torch.empty(parts, width, identities))
        nn.init.normal_(self.weight, std=width**-0.5)
        if start_as_whole:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, parts: Tensor) -> Tensor:
        vectors = F.normalize(self.norm(parts.flatten(1)).view_as(parts), dim=2)
        return exact_bmm(vectors.transpose(0, 1), F.normalize(self.weight, dim=1)).transpose(0, 1)


def exact_bmm(first: Tensor, second: Tensor) -> Tensor:
    """``torch.bmm`` in full precision, under autocast too.

    What tells two people apart is small beside what all vectors have in common: rounding to bfloat16 here made as much of an
    embedding's error as all the rest of a network in bfloat16. The products are few, and rounding the weights takes longer.
    """
    with torch.autocast(first.device.type, enabled=False):
        return torch.bmm(full(first), full(second))
