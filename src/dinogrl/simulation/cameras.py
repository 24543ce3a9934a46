"""Cameras: where they stand, how they look, how they project. The picture of a camera is ``SCENE`` pixels large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dinogrl.simulation.body import Floats

SCENE = (720, 1280)
"""Height and width of a camera's whole picture in pixels."""


@dataclass(frozen=True)
class Camera:
    """A camera at the origin of the ground, ``height`` metres up, that looks along +x and down by ``pitch`` radians."""

    number: int
    height: float
    pitch: float
    distance: float
    """Metres from the camera to the middle of the path that people take."""
    focal: float
    """Focal length in pixels."""
    course: float
    """Direction of that path in radians: 0 leads away from the camera, pi/2 to its left."""
    frame_rate: float
    light: tuple[float, float, float]
    """Direction to the daylight in the picture: right, down, towards the camera."""
    ambient: float
    cast: tuple[float, float, float]
    """Gain of red, green and blue."""
    gamma: float
    exposure: float
    lamp: float
    """Gain of the infrared lamp, which shines from the camera."""
    noise_visible: float
    noise_infrared: float
    blur: float
    """Defocus: standard deviation as a share of the frame's height."""
    quality: int
    """JPEG quality."""

    @property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Right, down and forward directions in the world."""
        sine, cosine = np.sin(self.pitch), np.cos(self.pitch)
        return (
            np.array([0, -1, 0], np.float32),
            np.array([-sine, 0, -cosine], np.float32),
            np.array([cosine, 0, -sine], np.float32),
        )

    def project(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """World points (...,3) -> pixel x, pixel y, depth in metres."""
        right, down, forward = self.axes
        from_camera = points - np.array([0, 0, self.height], np.float32)
        depth = np.maximum(from_camera @ forward, 0.3)
        x = SCENE[1] / 2 + self.focal * (from_camera @ right) / depth
        y = SCENE[0] / 2 + self.focal * (from_camera @ down) / depth
        return x, y, depth

    @property
    def horizon(self) -> float:
        """Pixel row of the horizon."""
        return SCENE[0] / 2 - self.focal * float(np.tan(self.pitch))

    def ground_row(self, distance: float) -> float:
        """Pixel row of the ground at a distance straight ahead."""
        return float(self.project(np.array([[distance, 0, 0]], np.float32))[1][0])


# Side, three-quarter and frontal courses, in the order in which cameras get them.
COURSES = (88, 52, 128, 75, 20, 105, 40, 140, 92, 65, 160, 115)


def draw_camera(rng: np.random.Generator, number: int) -> Camera:
    """Draw a camera; its course comes from its number, so that few cameras still show different sides."""
    height, distance = float(rng.uniform(2.2, 4.2)), float(rng.uniform(8.5, 13))
    tint = rng.uniform(-0.08, 0.08)
    side = rng.uniform(-0.75, 0.75)
    light = np.array([side, -rng.uniform(0.5, 1.0), rng.uniform(0.3, 0.8)])
    light /= np.linalg.norm(light)
    return Camera(
        number=number,
        height=height,
        pitch=float(np.arctan2(height - 0.9, distance)),
        distance=distance,
        focal=float(rng.uniform(120, 160)) * distance,
        course=float(np.radians(COURSES[number % len(COURSES)] + rng.uniform(-8, 8))),
        frame_rate=float(rng.uniform(8, 12)),
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=float(rng.uniform(0.42, 0.68)),
        cast=(1 + tint, 1.0, 1 - tint),
        gamma=float(rng.uniform(0.8, 1.15)),
        exposure=float(rng.uniform(0.8, 1.15)),
        lamp=float(rng.uniform(0.8, 1.2)),
        noise_visible=float(rng.uniform(0.008, 0.022)),
        noise_infrared=float(rng.uniform(0.012, 0.03)),
        blur=float(rng.uniform(0.0025, 0.0055)),
        quality=int(rng.integers(72, 93)),
    )
