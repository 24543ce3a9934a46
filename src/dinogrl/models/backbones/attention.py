"""Self-attention of the frozen transformer, written for a CPU's cache.

torch's fused attention multiplies in float32 speed on CPUs without matrix tiles, also in bfloat16. One image's scores of all heads
are 3 MB (513 tokens, 6 heads, bfloat16) and stay in the cache between two plain batched products, which run at bfloat16 speed:
more than twice as fast (benchmarks/README.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "dinogrl_cached"


def cached_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(Q K^T / sqrt(d)) V in the form that ``transformers`` asks for: (B,heads,N,d) each -> (B,N,heads,d).

    Image by image for bfloat16 on a CPU without gradient, torch's fused attention otherwise.
    """
    assert attention_mask is None and not dropout, "a frozen image transformer masks and drops nothing"
    plain = query.is_cpu and query.dtype == torch.bfloat16 and not query.requires_grad and not torch.compiler.is_compiling()
    attend = _image_by_image if plain else F.scaled_dot_product_attention
    return attend(query, key, value, scale=scaling).transpose(1, 2), None


def _image_by_image(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    # A softmax does not see what all keys have in common. DINOv2's keys have much: scores up to 300 with it, 80 without, and
    # bfloat16 holds three digits of a score.
    key = (key - key.mean(2, keepdim=True)).contiguous()
    query = query * (query.shape[3] ** -0.5 if scale is None else scale)
    value = value.contiguous()
    result = torch.empty(query.shape, dtype=query.dtype)
    for q, k, v, out in zip(query, key, value, result, strict=True):
        torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(dim=2), v, out=out)
    return result


# The library's own way to bring an attention function: models look it up by this name.
AttentionInterface.register(NAME, cached_attention)
