"""Finding persons in a picture: OpenCV's built-in HOG, or any object detector of transformers."""

from __future__ import annotations

import math
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from dinogrl import runtime
from dinogrl.data.frames import Image
from dinogrl.errors import DinogrlError, in_one_line
from dinogrl.footage.boxes import Boxes, alone, merged
from dinogrl.hub_folders import UNLOADABLE, model_folder, without_bars

PERSONS = ("person", "pedestrian", "people", "human")
"""What a detector's labels may call a person."""


class Detector(Protocol):
    """Finds persons. ``name`` is written beside what was found; ``sees_still``: are its boxes that never move persons too?"""

    name: str
    sees_still: bool

    def __call__(self, image: Image) -> Boxes:
        """The persons in an RGB picture (H,W,3)."""
        ...


def load_detector(name: str = "hog", device: str = "auto") -> Detector:
    """``hog``, or the folder or hub name of a transformers object detector that knows persons.

    Raises :class:`DinogrlError` for a detector that cannot be had.
    """
    return HogDetector() if name == "hog" else TransformersDetector(name, device)


class HogDetector:
    """Histograms of oriented gradients and a linear classifier (Dalal and Triggs, CVPR 2005), as OpenCV ships them.

    No download and no GPU; upright, whole people that stand apart from what is behind them. The window is 128 pixels high and holds
    a person of about 100, so a picture is first enlarged by ``enlarge`` to find people of 66 pixels, or less where it would
    have more than ``pixels`` then.
    """

    name = "hog"
    sees_still = False  # window frames and parked cars look like persons to it, day in, day out

    def __init__(self, enlarge: float = 1.5, pixels: int = 1_000_000, pyramid: float = 1.05, floor: float = 0.0) -> None:
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())  # type: ignore[attr-defined]
        self._enlarge, self._pixels, self._pyramid, self._floor = enlarge, pixels, pyramid, floor

    def __call__(self, image: Image) -> Boxes:
        """See :class:`Detector`."""
        height, width = image.shape[:2]
        scale = min(self._enlarge, math.sqrt(self._pixels / (height * width)))
        size = (max(round(width * scale), 64), max(round(height * scale), 128))
        sized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        windows, margins = self._hog.detectMultiScale(
            sized, hitThreshold=self._floor, winStride=(8, 8), padding=(16, 16), scale=self._pyramid, groupThreshold=0
        )
        if not len(windows):
            return Boxes.none()
        boxes = tightened(np.asarray(windows, np.float64)) * np.tile((width / size[0], height / size[1]), 2)
        return alone(merged(Boxes(boxes, likelihood(np.asarray(margins, np.float64).ravel())), threshold=0.35))


def tightened(windows: np.ndarray) -> np.ndarray:
    """The person inside HOG windows (N,4): the classifier was trained with a margin all round."""
    left, top, width, height = windows.T
    return np.stack([left + 0.14 * width, top + 0.09 * height, 0.72 * width, 0.82 * height], axis=1)


def likelihood(margins: np.ndarray) -> np.ndarray:
    """Distance from the classifier's plane (N,) -> 0..1. 0.3 is as often a person as not."""
    return np.asarray(1 / (1 + np.exp(-4 * (margins - 0.3))))


class TransformersDetector:
    """An object detector of transformers (RT-DETR, DETR, YOLOS ...). Safetensors only, and never code from a model's folder."""

    sees_still = True

    def __init__(self, name: str, device: str = "auto") -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self.name = name
        source = model_folder(name, kind="detector", instead="hog, ")
        try:
            self._prepare = AutoImageProcessor.from_pretrained(source, trust_remote_code=False, backend="pil")
            with without_bars():
                self._network = AutoModelForObjectDetection.from_pretrained(
                    source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
                )
        except UNLOADABLE as error:
            reason = in_one_line(error, 200)
            raise DinogrlError(f"detector {name!r} is no object detector that can be loaded: {reason}") from error
        labels = {int(number): str(label).lower() for number, label in self._network.config.id2label.items()}
        self._persons = [number for number, label in labels.items() if label in PERSONS]
        if not self._persons:
            known = ", ".join(sorted(set(labels.values()))[:12])
            raise DinogrlError(f"detector {name!r} knows no person, only: {known}")
        self._device = runtime.device(device)
        self._network.eval().to(self._device)

    def __call__(self, image: Image) -> Boxes:
        """See :class:`Detector`."""
        batch = self._prepare(images=image, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            output = self._network(**batch)
        found: dict[str, Any] = self._prepare.post_process_object_detection(
            output, threshold=0.05, target_sizes=torch.tensor([image.shape[:2]])
        )[0]
        persons = torch.isin(found["labels"], torch.tensor(self._persons, device=found["labels"].device))
        corners = found["boxes"][persons].double().cpu().numpy().reshape(-1, 4)
        scores = found["scores"][persons].double().cpu().numpy()
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return merged(Boxes(boxes, scores), threshold=0.7)
