"""The graph pyramid of Grapy-ML (He et al., "Grapy-ML: Graph Pyramid Mutual Learning for Cross-dataset Human Parsing", AAAI 2020).

A first parsing says which pixel belongs to which class. Three times, from coarse classes to fine ones, each class is summarised as
a node, the nodes attend to each other, and what they have learned goes back to their pixels. The parameters' names are those of the
authors' files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.parsing.labels import LabelSet

WIDTH, NODE_WIDTH = 256, 512


class NodeAttention(nn.Module):
    """Every node gathers from all nodes. (N,D,K) -> (N,D,K), added to its input"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv1d(width, width // 8, 1)
        self.key_conv = nn.Conv1d(width, width // 8, 1)
        self.value_conv = nn.Conv1d(width, width, 1)

    def forward(self, nodes: Tensor) -> Tensor:
        weights = (self.query_conv(nodes).transpose(1, 2) @ self.key_conv(nodes)).softmax(dim=-1)  # (N,K,K), a row a node
        return self.value_conv(nodes) @ weights.transpose(1, 2) + nodes


class LevelReasoning(nn.Module):
    """Three rounds of :class:`NodeAttention` among the nodes of a level. (N,512,K) -> (N,256,K)"""

    def __init__(self) -> None:
        super().__init__()
        self.graph_transfer = nn.Conv1d(NODE_WIDTH, NODE_WIDTH, 1)
        self.graph_transfer_back = nn.Conv1d(NODE_WIDTH, WIDTH, 1)
        for i in (1, 2, 3):
            self.add_module(f"attn{i}", NodeAttention(NODE_WIDTH))
            self.add_module(f"bn{i}", nn.BatchNorm1d(NODE_WIDTH))

    def forward(self, nodes: Tensor) -> Tensor:
        nodes = self.graph_transfer(nodes)
        for i in (1, 2, 3):
            nodes = F.relu(self.get_submodule(f"attn{i}")(self.get_submodule(f"bn{i}")(nodes)))
        return torch.as_tensor(self.graph_transfer_back(nodes))


class GraphPyramid(nn.Module):
    """Features (N,256,h,w) -> features of the same size that know of the classes around them.

    ``heads``: label set by the ending of its parameters' names; the authors' network for one dataset has a single head without one.
    """

    def __init__(self, heads: dict[str, LabelSet]) -> None:
        super().__init__()
        self.gcn_block_feature1 = LevelReasoning()
        self.gcn_block_feature2 = LevelReasoning()
        for ending, labels in heads.items():
            self.add_module(f"gcn_block_feature{ending or 3}", LevelReasoning())
            self.add_module(f"sem{ending}", nn.Conv2d(WIDTH, len(labels.classes), 1))
        for level in (1, 2, 3):
            self.add_module(f"transform_lv{level}", nn.Conv2d(WIDTH, WIDTH, 1))
        self.fusion = nn.Sequential(nn.Conv2d(4 * WIDTH, 2 * WIDTH, 1), nn.Conv2d(2 * WIDTH, WIDTH, 1), nn.ReLU())

    def forward(self, features: Tensor, ending: str, labels: LabelSet) -> Tensor:
        classes = self.get_submodule(f"sem{ending}")(features).argmax(dim=1)
        person = ((0,), tuple(range(1, len(labels.classes))))
        every = tuple((number,) for number in range(len(labels.classes)))
        levels = {"1": person, "2": labels.regions, ending or "3": every}
        pyramid = [features]
        for level, (name, regions) in enumerate(levels.items(), start=1):
            members = membership(classes, regions).to(features.dtype)
            nodes = self.get_submodule(f"gcn_block_feature{name}")(summaries(pyramid[-1], members))
            spread = torch.einsum("nck,nkhw->nchw", nodes, members)
            pyramid.append(pyramid[-1] + self.get_submodule(f"transform_lv{level}")(spread))
        return torch.as_tensor(self.fusion(torch.cat(pyramid, dim=1)))


def membership(classes: Tensor, regions: tuple[tuple[int, ...], ...]) -> Tensor:
    """Which pixel belongs to which region: classes (N,h,w) -> (N,K,h,w) of booleans."""
    return torch.stack([torch.isin(classes, classes.new_tensor(region)) for region in regions], dim=1)


def summaries(features: Tensor, members: Tensor) -> Tensor:
    """A node a region: mean over its pixels (zero where it has none), beside the maximum with all other pixels set to zero.

    (N,C,h,w) and (N,K,h,w) -> (N,2C,K)
    """
    size = members.sum(dim=(2, 3)).clamp(min=1)  # (N,K)
    means = torch.einsum("nchw,nkhw->nck", features, members) / size[:, None]
    peaks = torch.stack([(features * members[:, k, None]).amax(dim=(2, 3)) for k in range(members.shape[1])], dim=2)
    return torch.cat([means, peaks], dim=1)
