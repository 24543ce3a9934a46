"""Where half precision would lose too much, and where a memory layout would."""

from __future__ import annotations

import torch
from torch import Tensor


def full(tensor: Tensor) -> Tensor:
    """``tensor`` in float32, or as it is where it is finer."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def laid_out(maps: Tensor) -> Tensor:
    """Maps (N,C,H,W) in the memory layout that a convolutional network should read, and will keep from layer to layer.

    Channels last is the faster one. In it, though, torch's batch norm on a CPU adds up the rows one by one, in float32 tens of
    thousands of them: two digits are lost in every layer. So full precision on a CPU goes plane by plane (about a tenth slower).
    """
    kind = maps.device.type
    exact = kind == "cpu" and maps.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(kind)
    return maps.contiguous(memory_format=torch.contiguous_format if exact else torch.channels_last)
