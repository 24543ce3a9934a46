"""The rasteriser: limbs -> which limb each pixel sees, and where on that limb. It works on all frames of a tracklet at once.

A limb's picture is the union of discs whose centre and radius run linearly from one end to the other. T frames, L limbs, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinogrl.simulation.body import Floats
from dinogrl.simulation.cameras import Camera
from dinogrl.simulation.figure import Figure, Part

FAR = np.float32(1e9)


@dataclass(frozen=True)
class Boxes:
    """The crop of each frame in the camera's picture: ``left`` and ``top`` (T,), and ``scale_x`` and ``scale_y`` (T,), frame
    pixels a picture pixel."""

    left: Floats
    top: Floats
    scale_x: Floats
    scale_y: Floats


@dataclass(frozen=True)
class Visible:
    """What was seen: ``limb`` (T,H,W) number of the nearest limb or -1, ``cover`` (T,H,W) share of each pixel that a limb covers,
    ``depth`` (T,H,W) metres. ``parts`` and ``silhouette`` are of the tracklet's own person only."""

    limb: NDArray[np.int8]
    cover: Floats
    depth: Floats
    parts: NDArray[np.uint8]
    silhouette: NDArray[np.bool_]


@dataclass(frozen=True)
class Touched:
    """The seen points, one row each (n).

    ``index`` of the pixel in the flattened (T,H,W); ``limb``; ``along`` it (0 at its start, 1 at its end) and ``metres`` along it;
    the surface normal's components ``front`` and ``side`` on the limb's forward and left axes, and ``normal_right``,
    ``normal_down``, ``normal_near`` in the picture; ``behind``: metres behind the person's middle.
    """

    index: NDArray[np.intp]
    limb: NDArray[np.intp]
    along: Floats
    metres: Floats
    front: Floats
    side: Floats
    normal_right: Floats
    normal_down: Floats
    normal_near: Floats
    behind: Floats


@dataclass(frozen=True)
class Projected:
    """Limbs in frame pixels; every array is (T,L). ``thick_*``: half-thickness towards the camera in metres."""

    x: Floats
    y: Floats
    dx: Floats
    dy: Floats
    radius: Floats
    d_radius: Floats
    depth: Floats
    d_depth: Floats
    thick: Floats
    metres: Floats
    across_left: Floats
    across_forward: Floats
    near_left: Floats
    near_forward: Floats


def project(figure: Figure, camera: Camera, boxes: Boxes) -> Projected:
    """Limbs of ``figure`` as ``camera`` sees them inside ``boxes``."""
    right, down, _ = camera.axes
    ends = []
    for points in (figure.start, figure.end):
        x, y, depth = camera.project(points)
        ends.append(((x - boxes.left[:, None]) * boxes.scale_x[:, None], (y - boxes.top[:, None]) * boxes.scale_y[:, None], depth))
    (x0, y0, z0), (x1, y1, z1) = ends
    dx, dy = x1 - x0, y1 - y0
    length = np.sqrt(dx * dx + dy * dy) + 1e-6
    across = (-dy / length)[..., None] * right + (dx / length)[..., None] * down  # in the picture, square to the limb
    ray = 0.5 * (figure.start + figure.end) - np.array([0, 0, camera.height], np.float32)
    ray /= np.linalg.norm(ray, axis=2, keepdims=True)

    def component(a: Floats, b: Floats) -> Floats:
        return np.asarray(np.einsum("tlc,tlc->tl", a, b), np.float32)

    across_left, across_forward = component(across, figure.left), component(across, figure.forward)
    near_left, near_forward = -component(ray, figure.left), -component(ray, figure.forward)
    seen = np.sqrt(across_left**2 + (figure.depth * across_forward) ** 2 + np.maximum(1 - across_left**2 - across_forward**2, 0))
    pixels = camera.focal * 0.5 * (boxes.scale_x + boxes.scale_y)[:, None]
    radius0, radius1 = figure.wide_start * seen * pixels / z0, figure.wide_end * seen * pixels / z1
    thick = 0.5 * (figure.wide_start + figure.wide_end) * np.sqrt(near_left**2 + (figure.depth * near_forward) ** 2 + 1e-4)
    metres = np.linalg.norm(figure.end - figure.start, axis=2)
    return Projected(
        x0, y0, dx, dy, radius0, radius1 - radius0, z0, z1 - z0, thick, metres, across_left, across_forward, near_left, near_forward
    )  # fmt: skip


def rasterise(figure: Figure, seen: Projected, height: int, width: int) -> Visible:
    """Draw every limb into a depth buffer; the nearer one wins."""
    frames, limbs = seen.x.shape
    depth = np.full(frames * height * width, FAR, np.float32)
    limb = np.full(frames * height * width, -1, np.int8)
    cover = np.zeros(frames * height * width, np.float32)
    margin = np.maximum(seen.radius, seen.radius + seen.d_radius) + 1
    left = np.minimum(seen.x, seen.x + seen.dx) - margin
    right = np.maximum(seen.x, seen.x + seen.dx) + margin
    top = np.minimum(seen.y, seen.y + seen.dy) - margin
    bottom = np.maximum(seen.y, seen.y + seen.dy) + margin
    present = (right > 0) & (left < width) & (bottom > 0) & (top < height)
    for number in range(limbs):
        chosen = np.flatnonzero(present[:, number])
        if not len(chosen):
            continue
        low_x, low_y = left[chosen, number].clip(0, width - 1), top[chosen, number].clip(0, height - 1)
        wide = min(int(np.ceil((right[chosen, number].clip(0, width) - low_x).max())) + 1, width)
        tall = min(int(np.ceil((bottom[chosen, number].clip(0, height) - low_y).max())) + 1, height)
        x0 = np.minimum(np.floor(low_x), width - wide).astype(np.int32)
        y0 = np.minimum(np.floor(low_y), height - tall).astype(np.int32)
        part = [
            getattr(seen, name)[chosen, number, None, None]
            for name in ("x", "y", "dx", "dy", "radius", "d_radius", "depth", "d_depth", "thick")
        ]
        x, y, dx, dy, radius, d_radius, near, d_near, thick = part
        px = (x0[:, None] + np.arange(wide, dtype=np.float32))[:, None, :] + np.float32(0.5) - x
        py = (y0[:, None] + np.arange(tall, dtype=np.float32))[:, :, None] + np.float32(0.5) - y
        square = dx * dx + dy * dy + np.float32(1e-6)
        along = px * (dx / square) + py * (dy / square)
        inside = np.clip(along, 0, 1)
        px, py = px - inside * dx, py - inside * dy
        distance = np.sqrt(px * px + py * py)
        reach = radius + inside * d_radius
        covered = reach - distance
        covered += np.float32(0.5)
        if figure.flat[number]:
            edge = np.sqrt(square)
            np.minimum(covered, np.minimum(along, 1 - along) * edge + np.float32(0.5), out=covered)
        hit = np.flatnonzero(covered > 0)
        if not len(hit):
            continue
        frame, rest = np.divmod(hit, tall * wide)
        row, column = np.divmod(rest, wide)
        pixel = ((chosen[frame] * height) + y0[frame] + row) * width + x0[frame] + column
        share = np.minimum(distance.ravel()[hit] / (reach.ravel()[hit] + np.float32(1e-6)), 1)
        bulge = np.sqrt(1 - share * share)
        z = near.ravel()[frame] + inside.ravel()[hit] * d_near.ravel()[frame] - bulge * thick.ravel()[frame]
        cover[pixel] = np.maximum(cover[pixel], np.minimum(covered.ravel()[hit], 1))
        front = z < depth[pixel]
        winners = pixel[front]
        depth[winners] = z[front]
        limb[winners] = number
    shape = (frames, height, width)
    own = (limb >= 0) & (figure.owner[limb] == 0) & (cover >= 0.5)
    parts = np.where(own, figure.part[limb], np.uint8(Part.BACKGROUND)).astype(np.uint8)
    return Visible(limb.reshape(shape), cover.reshape(shape), depth.reshape(shape), parts.reshape(shape), own.reshape(shape))


def touch(seen: Projected, visible: Visible, middle: Floats) -> Touched:
    """Where on its limb each covered pixel lies. ``middle`` (T,) is the depth of the person's middle."""
    height, width = visible.limb.shape[1:]
    limbs = seen.x.shape[1]
    index = np.flatnonzero(visible.limb.ravel() >= 0)
    limb = visible.limb.ravel()[index].astype(np.intp)
    frame, rest = np.divmod(index, height * width)
    row, column = np.divmod(rest, width)
    flat = frame * limbs + limb

    def of(values: Floats) -> Floats:
        return values.ravel()[flat]

    dx, dy = of(seen.dx), of(seen.dy)
    square: Floats = dx * dx + dy * dy + np.float32(1e-6)
    px = column.astype(np.float32) + np.float32(0.5) - of(seen.x)
    py = row.astype(np.float32) + np.float32(0.5) - of(seen.y)
    along: Floats = np.clip((px * dx + py * dy) / square, 0, 1).astype(np.float32, copy=False)
    px -= along * dx
    py -= along * dy
    reach = of(seen.radius) + along * of(seen.d_radius) + np.float32(1e-6)
    length: Floats = np.sqrt(square).astype(np.float32, copy=False)
    # The normal of the cone's side, in its round ends too: where two limbs join, light then runs on without a seam.
    across: Floats = np.clip((py * dx - px * dy) / (length * reach), -1, 1).astype(np.float32, copy=False)
    near: Floats = np.sqrt(1 - across * across)
    return Touched(
        index=index,
        limb=limb,
        along=along,
        metres=along * of(seen.metres),
        front=across * of(seen.across_forward) + near * of(seen.near_forward),
        side=across * of(seen.across_left) + near * of(seen.near_left),
        normal_right=-across * dy / length,
        normal_down=across * dx / length,
        normal_near=near,
        behind=visible.depth.ravel()[index] - middle[frame],
    )
