"""Where half precision would lose too much."""

from __future__ import annotations

import torch
from torch import Tensor


def full(tensor: Tensor) -> Tensor:
    """``tensor`` in float32, or as it is where it is finer."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
