"""Batch norm for vectors, of which a batch may hold one alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class VectorNorm(nn.BatchNorm1d):
    """Batch norm of vectors (..., D) over all that stand before D; ``start`` is the first value of its scale.

    A single vector has no statistics: in training too it is normalised by the running ones, which it leaves as they are.
    """

    def __init__(self, width: int, start: float = 1.0) -> None:
        super().__init__(width)
        nn.init.constant_(self.weight, start)

    def forward(self, vectors: Tensor) -> Tensor:
        rows = vectors.reshape(-1, vectors.shape[-1])
        if not self.training or len(rows) > 1:  # in this order: a traced graph may not ask how many there are
            return super().forward(rows).view(vectors.shape)
        alone = F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return alone.view(vectors.shape)
