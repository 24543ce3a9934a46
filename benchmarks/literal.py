"""The published network and its losses written down step by step, from the published tensor names: slow, and the truth.

Every map is made at full size, rows are gathered and scattered, every relation of the enhancement is a full matrix, and frames,
clips and parts go through loops. Float32, eager, nothing kept or shared: what the benchmarks compare with, and the tests' truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

STRIPES = (1, 2, 4, 8, 16)
_STRIDES = (1, 2, 2, 1)


@dataclass
class Literal:
    """What the published network gives for n clips: parts and cosines (n,P,...) of both streams, maps, and the losses by name."""

    parts: Tensor
    logits: Tensor
    foreground: Tensor
    losses: dict[str, Tensor]


class Published:
    """The three state dicts. ``train``: batch statistics everywhere; buffers are left as they are."""

    def __init__(self, files: dict[str, dict[str, Tensor]], train: bool, heads: int, blocks: tuple[int, ...]) -> None:
        self.files, self.train, self.heads, self.blocks = files, train, heads, blocks

    def __call__(
        self,
        frames: Tensor,
        modality: Tensor,
        identity: Tensor,
        prior_size: tuple[int, int],
        map_size: tuple[int, int],
        dropped: list[tuple[int, int]],
    ) -> Literal:
        clips, times = frames.shape[:2]
        walked, maps, losses = self.shape_stream(frames.flatten(0, 1), times, prior_size, map_size, dropped)
        seen = self.appearance_stream(frames, modality)
        streams = {
            "gait": per_part(pyramid(pooled(walked, times)), self.get("best_shape", "dinov2.gait_net.FCs.fc_bin")),
            "appearance": per_part(pyramid(pooled(seen, times)), self.get("best_model", "FCs.fc_bin")),
        }
        gait, appearance = self.enhanced(streams["gait"], streams["appearance"])
        logits = {"gait": self.neck("best_shape", "dinov2.gait_net.", gait), "appearance": self.neck("best_model", "", appearance)}
        for stream, parts in (("gait", gait), ("appearance", appearance)):
            losses[f"identity_{stream}"] = torch.stack(
                [F.cross_entropy(16 * logits[stream][:, p], identity, label_smoothing=0.1) for p in range(parts.shape[1])]
            ).mean()
            losses[f"triplet_{stream}"] = torch.stack([triplets(parts[:, p], identity) for p in range(parts.shape[1])]).mean()
        dino = losses["mask"] + 0.02 * losses["mask_smoothness"] + 0.01 * losses["smoothness"] + 5 * losses["diversity"]
        losses["total"] = dino + sum(losses[f"{kind}_{stream}"] for kind, stream in product(("identity", "triplet"), streams))
        assert gait.shape[0] == clips
        return Literal(torch.cat([gait, appearance], 1), torch.cat([logits["gait"], logits["appearance"]], 1), maps, losses)

    @torch.no_grad()
    def embedded(self, frames: Tensor, modality: Tensor, prior_size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
        """Parts (n,P,D), gait first."""
        times = frames.shape[1]
        walked, _, _ = self.shape_stream(frames.flatten(0, 1), times, prior_size, map_size, [])
        seen = self.appearance_stream(frames, modality)
        gait = per_part(pyramid(pooled(walked, times)), self.get("best_shape", "dinov2.gait_net.FCs.fc_bin"))
        appearance = per_part(pyramid(pooled(seen, times)), self.get("best_model", "FCs.fc_bin"))
        return torch.cat(self.enhanced(gait, appearance), 1)

    def learn(self) -> list[Tensor]:
        """Let all that the published code trains require gradients, and give it."""
        still = ("dinov2.dinov2.", "dinov2.gait_net.gcn_", "running_", "num_batches_tracked", "GAP.p")
        chosen = [t for tensors in self.files.values() for name, t in tensors.items() if not any(word in name for word in still)]
        return [tensor.requires_grad_() for tensor in chosen]

    # ---- by name

    def get(self, file: str, name: str) -> Tensor:
        return self.files[file][name]

    def norm(self, x: Tensor, file: str, name: str) -> Tensor:
        """Batch norm over all but dimension 1."""
        tensors = self.files[file]
        mean, var = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        train = self.train and x.numel() > x.shape[1]
        return F.batch_norm(x, mean.clone(), var.clone(), tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias"), train)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.get("best_shape", f"{name}.weight"), self.get("best_shape", f"{name}.bias"))

    def resnet(self, x: Tensor, file: str, prefix: str) -> Tensor:
        for layer, stride in enumerate(_STRIDES):
            block = 0
            while f"{prefix}.{layer}.{block}.conv1.weight" in self.files[file]:
                at = f"{prefix}.{layer}.{block}"
                step = stride if block == 0 else 1
                y = self.norm(F.conv2d(x, self.get(file, f"{at}.conv1.weight")), file, f"{at}.bn1").relu()
                y = self.norm(F.conv2d(y, self.get(file, f"{at}.conv2.weight"), stride=step, padding=1), file, f"{at}.bn2").relu()
                y = self.norm(F.conv2d(y, self.get(file, f"{at}.conv3.weight")), file, f"{at}.bn3")
                if f"{at}.downsample.0.weight" in self.files[file]:
                    x = F.conv2d(x, self.get(file, f"{at}.downsample.0.weight"), stride=step)
                    x = self.norm(x, file, f"{at}.downsample.1")
                x = (x + y).relu()
                block += 1
        return x

    # ---- the streams

    def appearance_stream(self, frames: Tensor, modality: Tensor) -> Tensor:
        """Clip by clip through its stem, in the order visible, infrared for the batch norm, and back."""
        order = [i for m in (0, 1) for i, value in enumerate(modality.tolist()) if value == m]
        stems = []
        for m in (0, 1):
            mine = [i for i in order if modality[i] == m]
            if mine:
                stem = f"image_encoder{m + 1}.resnet_conv"
                x = F.conv2d(frames[mine].flatten(0, 1), self.get("best_model", f"{stem}.0.weight"), stride=2, padding=3)
                stems.append(F.max_pool2d(self.norm(x, "best_model", f"{stem}.1"), 3, 2, 1))
        maps = self.resnet(torch.cat(stems), "best_model", "share_encoder.resnet_conv").unflatten(0, (len(frames), -1))
        return torch.stack([maps[order.index(i)] for i in range(len(frames))]).flatten(0, 1)

    def tokens(self, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """DINOv2's last tokens (N,D,h0,w0) and those of the chosen blocks (N,4D,h0,w0)."""
        vit = {n.removeprefix("dinov2.dinov2."): t for n, t in self.files["best_shape"].items() if n.startswith("dinov2.dinov2.")}
        x = F.interpolate(images, size, mode="bilinear", align_corners=False)
        x = F.conv2d(x, vit["patch_embed.proj.weight"], vit["patch_embed.proj.bias"], stride=14)
        height, width = x.shape[2:]
        positions = vit["pos_embed"][:, 1:]
        side = math.isqrt(positions.shape[1])
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        grid = positions.transpose(1, 2).unflatten(2, (side, side)).float()  # as there, whatever the rest is in
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False).to(x)
        x = torch.cat(
            [(vit["cls_token"] + vit["pos_embed"][:, :1]).expand(len(x), -1, -1), (x + grid).flatten(2).transpose(1, 2)], 1
        )
        depth, kept = sum(name.endswith("norm1.weight") for name in vit), []
        for i in range(depth):
            b = {name.removeprefix(f"blocks.{i}."): t for name, t in vit.items() if name.startswith(f"blocks.{i}.")}
            y = F.layer_norm(x, x.shape[2:], b["norm1.weight"], b["norm1.bias"], 1e-6)
            joint = F.linear(y, b["attn.qkv.weight"], b["attn.qkv.bias"]).unflatten(2, (3, self.heads, -1))
            q, k, v = joint.permute(2, 0, 3, 1, 4)
            y = ((q @ k.transpose(2, 3)) / math.sqrt(q.shape[3])).softmax(3) @ v
            y = F.linear(y.transpose(1, 2).flatten(2), b["attn.proj.weight"], b["attn.proj.bias"])
            x = x + b["ls1.gamma"] * y
            y = F.layer_norm(x, x.shape[2:], b["norm2.weight"], b["norm2.bias"], 1e-6)
            y = F.linear(F.gelu(F.linear(y, b["mlp.fc1.weight"], b["mlp.fc1.bias"])), b["mlp.fc2.weight"], b["mlp.fc2.bias"])
            x = x + b["ls2.gamma"] * y
            if i in self.blocks:
                kept.append(x)
        middle = torch.cat(kept, 2)
        middle = F.layer_norm(middle, middle.shape[2:], eps=1e-6)
        last = F.layer_norm(x, x.shape[2:], vit["norm.weight"], vit["norm.bias"], 1e-6)
        return tuple(t[:, 1:].transpose(1, 2).unflatten(2, (height, width)) for t in (last, middle))  # type: ignore[return-value]

    def shape_stream(
        self, images: Tensor, times: int, prior_size: tuple[int, int], size: tuple[int, int], dropped: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Maps (N,C,h/4,w/4) of the gait network, the foreground (N,h,w), and the four losses of the maps."""
        frames, pixels = len(images), size[0] * size[1]
        with torch.no_grad():
            last, middle = (
                F.interpolate(t, size, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2).flatten(0, 1)
                for t in self.tokens(images, prior_size)
            )  # (N*h*w, D)
        branch = "dinov2.Mask_Branch"
        both = self.linear(self.norm(last, "best_shape", f"{branch}.bn_s"), f"{branch}.down_sampling").softmax(1)
        losses = {"mask": (self.linear(both, f"{branch}.up_sampling") - last).square().mean()}
        losses["mask_smoothness"] = edges(both.view(frames, 2, *size))
        foreground = torch.stack([self.body(m) for m in both.detach().view(frames, *size, 2)])
        chosen = foreground.flatten() > 0
        rows = middle[chosen]
        branch = "dinov2.Denoising_Branch"
        hidden = self.linear(self.norm(rows, "best_shape", f"{branch}.bn_s"), f"{branch}.down_sampling.0")
        hidden = F.gelu(self.norm(hidden, "best_shape", f"{branch}.down_sampling.1"))
        denoised = self.linear(hidden, f"{branch}.down_sampling.3").softmax(1)
        branch = "dinov2.Appearance_Branch"
        looks = self.linear(self.norm(rows, "best_shape", f"{branch}.bn_s"), f"{branch}.down_sampling")
        looks = self.norm(looks, "best_shape", f"{branch}.bn_t").sigmoid()
        maps = []
        for found in (denoised, looks):
            scattered = found.new_zeros(frames * pixels, found.shape[1])
            scattered[chosen] = found
            maps.append(scattered.view(frames, *size, -1).permute(0, 3, 1, 2))
        losses["smoothness"] = edges(maps[0][:, :-1])
        losses["diversity"] = diversity(maps[0])
        for clip, which in dropped:
            keep = torch.ones(frames).to(maps[which])
            keep[clip * times : (clip + 1) * times] = 0
            maps[which] = maps[which] * keep[:, None, None, None]
        net = "dinov2.gait_net"
        first, second = self.first_layers(maps[0], f"{net}.pre_part"), self.first_layers(maps[1], f"{net}.pre_rgb")
        score, at = torch.cat([first, second], 1), f"{net}.fusion.conv.forward_block"
        score = self.norm(F.conv2d(score, self.get("best_shape", f"{at}.0.weight")), "best_shape", f"{at}.1").relu()
        score = self.norm(F.conv2d(score, self.get("best_shape", f"{at}.3.weight"), padding=1), "best_shape", f"{at}.4").relu()
        share = F.conv2d(score, self.get("best_shape", f"{at}.6.weight")).unflatten(1, (-1, 2)).softmax(2)
        fused = first * share[:, :, 0] + second * share[:, :, 1]
        return self.resnet(fused, "best_shape", f"{net}.post_backbone.resnet_conv"), foreground, losses

    def body(self, both: Tensor) -> Tensor:
        """(h,w,2) -> 3x3 dilation of the rounded channel that is not at the upper and lower edge."""
        rows = 5
        edge = both[..., 0].round()
        chosen = both[..., 1 if edge[:rows].sum() + edge[-rows:].sum() > rows * both.shape[1] else 0]
        return F.max_pool2d(chosen.round()[None], 3, 1, 1)[0]

    def first_layers(self, x: Tensor, prefix: str) -> Tensor:
        at = f"{prefix}.forward_block"
        x = F.conv2d(x, self.get("best_shape", f"{at}.conv1.conv.weight"), padding=1)
        x = self.norm(x, "best_shape", f"{at}.bn1").relu()
        y = F.conv2d(x, self.get("best_shape", f"{at}.layer1.0.conv1.weight"), padding=1)
        y = self.norm(y, "best_shape", f"{at}.layer1.0.bn1").relu()
        y = F.conv2d(y, self.get("best_shape", f"{at}.layer1.0.conv2.weight"), padding=1)
        return (self.norm(y, "best_shape", f"{at}.layer1.0.bn2") + x).relu()

    # ---- behind the streams

    def enhanced(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        more_gait, more_appearance, start = [], [], 1
        for stripes in STRIPES[1:]:
            g, a = gait[:, 0], appearance[:, 0]
            for part in range(start, start + stripes):
                g = self.step("enhance_shape_net_3", g, appearance[:, part])
                a = self.step("enhance_app_net_3", a, gait[:, part])
            more_gait.append(g)
            more_appearance.append(a)
            start += stripes
        return torch.stack([*gait.unbind(1), *more_gait], 1), torch.stack([*appearance.unbind(1), *more_appearance], 1)

    def step(self, net: str, query: Tensor, other: Tensor) -> Tensor:
        def conv(x: Tensor, name: str) -> Tensor:
            return F.conv1d(x, self.get("best_model2", f"{net}.{name}.weight"), self.get("best_model2", f"{net}.{name}.bias"))

        theta, phi, g = conv(query[:, None], "theta"), conv(other[:, None], "phi"), conv(other[:, None], "g.0")
        relation = theta.transpose(1, 2) @ phi / query.shape[1]
        result = query
        for name, part, sign in (("W1", relation.relu(), 1), ("W2", (-relation).relu(), -1)):
            gathered = (part @ g.transpose(1, 2)).transpose(1, 2)
            result = result + sign * self.norm(conv(gathered, f"{name}.0"), "best_model2", f"{net}.{name}.1")[:, 0]
        return result

    def neck(self, file: str, prefix: str, parts: Tensor) -> Tensor:
        """Cosines (n,P,K)."""
        rows = parts.transpose(1, 2).flatten(1)  # channel by channel
        train, self.train = self.train, self.train and len(rows) > 1
        normed = self.norm(rows, file, f"{prefix}BNNecks.bn1d").view(len(rows), parts.shape[2], -1).transpose(1, 2)
        self.train = train
        classes = F.normalize(self.get(file, f"{prefix}BNNecks.fc_bin"), dim=1)
        return torch.einsum("npd,pdk->npk", F.normalize(normed, dim=2), classes)


def per_part(parts: Tensor, weight: Tensor) -> Tensor:
    """(n,P,C) -> (n,P,D)"""
    return torch.stack([parts[:, p] @ weight[p] for p in range(parts.shape[1])], 1)


def pooled(maps: Tensor, times: int) -> Tensor:
    return maps.unflatten(0, (-1, times)).max(1).values


def pyramid(maps: Tensor) -> Tensor:
    """(n,C,h,w) -> (n,31,C)"""
    strips = [strip for bins in STRIPES for strip in maps.chunk(bins, dim=2)]
    return torch.stack([strip.mean((2, 3)) + strip.amax((2, 3)) for strip in strips], 1)


def edges(maps: Tensor) -> Tensor:
    """(N,C,h,w): |Sobel| of the sum of the channels, over the number of all entries."""
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).to(maps)
    total = maps.sum(1, keepdim=True)
    found = sum(F.conv2d(total, kernel[None, None], padding=1).abs().sum() for kernel in (across, across.T))
    return torch.as_tensor(found) / maps.numel()


def diversity(maps: Tensor) -> Tensor:
    values = []
    for frame in maps:
        share = frame.sum((1, 2)) / (frame.sum() + 1e-6)
        values.append(math.log2(len(share)) + (share * torch.log2(share + 1e-6)).sum())
    return torch.stack(values).mean()


def triplets(vectors: Tensor, identity: Tensor) -> Tensor:
    """Every (anchor, positive, negative), the anchor itself among the positives; mean of those that are not satisfied."""
    gaps = vectors[:, None] - vectors[None]
    apart = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    distances = torch.zeros(len(vectors), len(vectors)).to(vectors)
    distances = distances.masked_scatter(apart, gaps[apart].norm(dim=1))
    same = identity[:, None] == identity[None]
    hinge = (distances[:, :, None] - distances[:, None] + 0.2).relu()[same[:, :, None] & ~same[:, None]]
    return hinge[hinge > 0].mean() if (hinge > 0).any() else vectors.sum() * 0


def mean_part_distance(a: Tensor, b: Tensor) -> Tensor:
    """(N,P,D), (M,P,D) -> (N,M): a full matrix for every part."""
    total = torch.zeros(len(a), len(b)).to(a)
    for x, y in zip(a.unbind(1), b.unbind(1), strict=True):
        squared = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
        total += squared.clamp_min(0).sqrt()
    return total / a.shape[1]
