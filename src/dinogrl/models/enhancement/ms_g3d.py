"""Disentangled multi-scale graph convolution over the tree of stripes.

Source: MS-G3D (Z. Liu et al., *Disentangling and Unifying Graph Convolutions for Skeleton-Based Action Recognition*, CVPR 2020):
one adjacency matrix for each distance 0..K-1 on the graph, normalised, plus a small learned residual; what they gather is laid side
by side and mapped by a linear layer with batch norm and ReLU. Its "G3D" window joins the nodes of neighbouring frames into one.

Adapted: the skeleton is the tree of stripes (1+2+4+8+16 = 31 nodes: halves of a stripe hang below it), with 5 distances, as the
published DinoGRL code declares it (and never calls it). By us: the two streams take the place of two frames in the window, so that
messages pass between them; the enhanced feature of granularity n is the mean of its n nodes after the convolution. As in the
source nothing is added to the result: it does not start as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dinogrl.models.enhancement.vectors import VectorEnhancement, stripe_slices
from dinogrl.models.vector_norm import VectorNorm

SCALES = 5


def stripe_tree(stripes: Sequence[int]) -> Tensor:
    """(P,P) adjacency, P = sum(stripes): each stripe hangs below the one of the next coarser row in which its middle lies."""
    starts = [sum(stripes[:level]) for level in range(len(stripes))]
    adjacency = torch.zeros(sum(stripes), sum(stripes))
    for level in range(1, len(stripes)):
        for stripe in range(stripes[level]):
            above = (2 * stripe + 1) * stripes[level - 1] // (2 * stripes[level])
            child, parent = starts[level] + stripe, starts[level - 1] + above
            adjacency[child, parent] = adjacency[parent, child] = 1
    return adjacency


def distance_scales(adjacency: Tensor, scales: int) -> Tensor:
    """(K,V,V): pairs at distance exactly k on the graph, for k = 0..K-1, with self loops; rows and columns over root of degree."""
    nodes = torch.eye(len(adjacency))
    reached, found = nodes, [nodes]
    for _ in range(1, scales):
        further = ((reached @ (adjacency + nodes)) > 0).float()
        found.append(further - reached + nodes)
        reached = further
    stacked = torch.stack(found)
    degree = stacked.sum(2).clamp_min(1).rsqrt()
    return degree[:, :, None] * stacked * degree[:, None, :]


class StripeGraph(VectorEnhancement):
    """One enhanced global feature a granularity; call and shapes of :class:`VectorEnhancement`."""

    def __init__(self, stripes: Sequence[int], granularities: Sequence[int], width: int, scales: int = SCALES) -> None:
        super().__init__()
        self.stripes = stripe_slices(stripes, granularities)
        tree = stripe_tree(stripes)
        # the window: a node sees, in the other stream, its own place and its neighbours there
        both = (tree + torch.eye(len(tree))).tile(2, 2) - torch.eye(2 * len(tree))
        self.adjacency: Tensor
        self.register_buffer("adjacency", distance_scales(both, scales), persistent=False)
        self.residual = nn.Parameter(torch.empty_like(self.adjacency).uniform_(-1e-6, 1e-6))
        self.out = nn.Sequential(nn.Linear(scales * width, width), VectorNorm(width), nn.ReLU())

    def enhance(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        nodes = torch.cat([gait, appearance], dim=1)  # (B,V,D), V = 2P
        gathered = torch.einsum("kvu,bud->bvkd", self.adjacency + self.residual, nodes)
        answers = self.out(gathered.flatten(2)).split(gait.shape[1], dim=1)
        gait_enhanced, appearance_enhanced = (
            torch.stack([answer[:, rows].mean(1) for rows in self.stripes], dim=1) for answer in answers
        )
        return gait_enhanced, appearance_enhanced
