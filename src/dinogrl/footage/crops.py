"""From a box in a picture to the crop that the network is fed, and how sharp it is."""

from __future__ import annotations

import cv2
import numpy as np

from dinogrl.data.frames import Image, resize

ASPECT = 2.0
"""Height over width of a crop, that of the network's input in the public datasets."""
MARGIN = 0.05
"""Added above and below a person, as a share of the height."""
TALLEST = 512
"""Pixels; larger crops are shrunk, the network looks at fewer."""

Box = tuple[float, float, float, float]


def crop(image: Image, box: Box) -> Image:
    """The person in ``box`` (left, top, width, height) with what is around: padded to ``ASPECT``, never stretched.

    Where the padded box reaches beyond the picture, the picture's edge is repeated.
    """
    left, top, right, bottom = _padded(box)
    height, width = image.shape[:2]
    inside = image[max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)]
    assert inside.size, f"the box {box} lies beside the picture"
    if inside.shape[:2] != (bottom - top, right - left):
        beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
        inside = np.asarray(cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE), np.uint8)
    return resize(inside, (TALLEST, round(TALLEST / ASPECT))) if inside.shape[0] > TALLEST else inside


def _padded(box: Box) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the crop in whole pixels."""
    left, top, width, height = box
    tall = max(height * (1 + 2 * MARGIN), width * ASPECT)
    rows = max(round(tall), 2)
    columns = max(round(tall / ASPECT), 1)
    first_row, first_column = round(top + height / 2 - rows / 2), round(left + width / 2 - columns / 2)
    return first_column, first_row, first_column + columns, first_row + rows


def inside_share(image: Image, box: Box) -> float:
    """Share of a box that lies within the picture."""
    left, top, width, height = box
    rows = min(top + height, image.shape[0]) - max(top, 0)
    columns = min(left + width, image.shape[1]) - max(left, 0)
    return max(rows, 0) * max(columns, 0) / max(width * height, 1e-9)


def sharpness(image: Image) -> float:
    """Share of fine detail in a crop: the standard deviation of its Laplacian over that of its grey, both at 128 rows.

    About 0.3 for people on a street camera, 0.12 when they are blurred by one hundredth of their height, 0.05 by two. Neither
    contrast nor brightness counts.
    """
    grey = cv2.cvtColor(resize(image, (128, 64)), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F).std() / max(float(grey.std()), 1.0))
