"""Cross-entropy over identities (paper, equation 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def identity_loss(logits: Tensor, identity: Tensor, *, scale: float = 16.0, label_smoothing: float = 0.1) -> Tensor:
    """Mean cross-entropy of every part of every clip.

    ``logits`` (B,P,K) are cosines between part vectors and class weights, multiplied by ``scale`` here; ``identity`` (B,) are class
    indices. The paper does not say scale and smoothing: the defaults are the published code's.
    """
    clips, parts, classes = logits.shape
    target = identity[:, None].expand(clips, parts)
    return F.cross_entropy(logits.reshape(-1, classes) * scale, target.reshape(-1), label_smoothing=label_smoothing)


def identity_accuracy(logits: Tensor, identity: Tensor) -> Tensor:
    """Share of (clip, part) pairs whose largest logit is the right class."""
    return (logits.argmax(dim=-1) == identity[:, None]).float().mean()
