"""Non-local attention between the streams' parts.

Source: X. Wang et al., *Non-local Neural Networks*, CVPR 2018, and the form in which AGW uses it (M. Ye et al., TPAMI 2021, and its
code for visible-infrared images): 1x1 convolutions theta, phi and g, a relation of every position to every other, a last
convolution with a batch norm that starts at 0, and the input added.

Adapted, by us: the positions of the map are the global part and the n stripes of BOTH streams, 2(1+n) vectors, so that each
sees its own stream and the other. One block a granularity; its answer is read at the two global parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dinogrl.catalog import Catalog
from dinogrl.models.enhancement.vectors import VectorEnhancement, stripe_slices
from dinogrl.models.vector_norm import VectorNorm


def dot_product(query: Tensor, key: Tensor) -> Tensor:
    """AGW's relation: the product over the number of positions N, no softmax. (B,M,L), (B,N,L) -> (B,M,N)"""
    return query @ key.transpose(1, 2) / key.shape[1]


def embedded_gaussian(query: Tensor, key: Tensor) -> Tensor:
    """The first paper's relation: softmax of the product over the positions. (B,M,L), (B,N,L) -> (B,M,N)"""
    return (query @ key.transpose(1, 2)).softmax(dim=2)


RELATIONS: Catalog[Callable[[Tensor, Tensor], Tensor]] = Catalog(
    "relation", {"dot_product": dot_product, "embedded_gaussian": embedded_gaussian}
)


class NonLocalVectors(nn.Module):
    """z = BN(W(f(theta x, phi x) g x)) + x over N vectors of D; starts as the identity. (B,N,D) -> (B,N,D)

    ``inner`` channels: D in AGW's code for visible-infrared images, D/2 in the first paper.
    """

    def __init__(self, width: int, inner: int, relation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Sequential(nn.Linear(inner, width), VectorNorm(width, start=0.0))
        self.relation = relation

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(x + self.out(self.relation(self.theta(x), self.phi(x)) @ self.g(x)))


class NonLocalEnhancement(VectorEnhancement):
    """One enhanced global feature a granularity; call and shapes of :class:`VectorEnhancement`.

    ``relation`` names an entry of :data:`RELATIONS`; with it goes the inner width of its source.
    """

    def __init__(self, stripes: Sequence[int], granularities: Sequence[int], width: int, relation: str = "dot_product") -> None:
        super().__init__()
        self.stripes = stripe_slices(stripes, granularities)
        inner = width if relation == "dot_product" else max(1, width // 2)
        self.blocks = nn.ModuleList(NonLocalVectors(width, inner, RELATIONS[relation]) for _ in granularities)

    def enhance(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        globals_ = [gait[:, :1], appearance[:, :1]]
        seen = [
            block(torch.cat([*globals_, gait[:, rows], appearance[:, rows]], dim=1))[:, :2]
            for rows, block in zip(self.stripes, self.blocks, strict=True)
        ]
        gait_enhanced, appearance_enhanced = torch.stack(seen, dim=1).unbind(2)
        return gait_enhanced, appearance_enhanced
