"""Light on surfaces: seen points -> daylight colour or infrared grey. n points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dinogrl.simulation.body import Floats
from dinogrl.simulation.cameras import Camera
from dinogrl.simulation.figure import Figure, Part
from dinogrl.simulation.render import Touched
from dinogrl.simulation.wardrobe import Pattern, Surface


def pattern_weights(figure: Figure, touched: Touched) -> Floats:
    """(n,) share of a surface's second colour at each point, 0..1; the same in both modalities."""
    surface = figure.surface[touched.limb]
    weights = np.zeros(len(surface), np.float32)
    for number, look in enumerate(figure.surfaces):
        if look.pattern != Pattern.PLAIN:
            here = np.flatnonzero(surface == number)
            if look.pattern == Pattern.LOGO:
                here = here[figure.part[touched.limb[here]] == Part.TORSO]
            weights[here] = _PATTERNS[look.pattern](look, touched, here)
    return weights


def _ramp(values: Floats, sharpness: float) -> Floats:
    ramp: Floats = np.clip(values * np.float32(sharpness) + np.float32(0.5), 0, 1)
    return ramp


def _rings(look: Surface, touched: Touched, here: np.ndarray) -> Floats:
    return _ramp(np.sin(touched.metres[here] * np.float32(2 * np.pi / look.scale) + look.phase), 2.5)


def _pinstripes(look: Surface, touched: Touched, here: np.ndarray) -> Floats:
    around = np.arctan2(touched.side[here], touched.front[here])
    return _ramp(np.sin(around * np.float32(0.9 / look.scale) + look.phase) - 0.2, 2.0)


def _plaid(look: Surface, touched: Touched, here: np.ndarray) -> Floats:
    return 0.5 * (_rings(look, touched, here) + _pinstripes(look, touched, here))


def _logo(look: Surface, touched: Touched, here: np.ndarray) -> Floats:
    """A print on the chest, or on the back."""
    facing = touched.front[here] if look.phase < 4 else -touched.front[here]
    high = 1 - np.abs(touched.metres[here] - 0.14) / np.float32(0.5 * look.scale + 0.03)
    wide = 1 - np.abs(touched.side[here]) / np.float32(3.5 * look.scale + 0.15)
    return np.asarray(_ramp(np.minimum(high, wide), 6) * (facing > 0.1), np.float32)


def _block(look: Surface, touched: Touched, here: np.ndarray) -> Floats:
    return _ramp(touched.along[here] - np.float32(look.scale), 20)


def _face(look: Surface, touched: Touched, here: np.ndarray) -> Floats:
    """Hair where the face is not; two dark eyes belong to the hair's colour too."""
    front, high = touched.front[here], touched.along[here]
    hair = np.maximum(
        _ramp(high - np.float32(look.scale + 0.25) + 0.3 * (1 - front), 6), _ramp(0.22 - front, 8) * _ramp(high - 0.1, 8)
    )
    eyes = 0.55 * (np.abs(high - 0.62) < 0.07) * (front > 0.45) * (np.abs(np.abs(touched.side[here]) - 0.38) < 0.2)
    return np.asarray(np.maximum(hair, eyes), np.float32)


_PATTERNS = {
    Pattern.RINGS: _rings,
    Pattern.PINSTRIPES: _pinstripes,
    Pattern.PLAID: _plaid,
    Pattern.LOGO: _logo,
    Pattern.BLOCK: _block,
    Pattern.FACE: _face,
}


def daylight(figure: Figure, touched: Touched, weights: Floats, camera: Camera) -> Floats:
    """(n,3) RGB of the points under the sky and a soft sun."""
    right, down, near = camera.light
    sun = np.maximum(touched.normal_right * right + touched.normal_down * down + touched.normal_near * near, 0)
    sky = 0.5 - 0.5 * touched.normal_down
    light = camera.ambient * (0.45 + 0.55 * sky) + (1.15 - camera.ambient) * sun + 0.12
    light *= _shade(figure, touched) * (0.7 + 0.3 * touched.normal_near)
    first, second = (_column([getattr(s, name) for s in figure.surfaces], figure, touched) for name in ("colour", "second"))
    colour = first + weights[:, None] * (second - first)
    gain = np.array(camera.cast, np.float32) * np.float32(camera.exposure * 1.25)
    return np.asarray(np.clip(colour * light[:, None] * gain, 0, 1) ** np.float32(camera.gamma), np.float32)


def infrared(figure: Figure, touched: Touched, weights: Floats, camera: Camera) -> Floats:
    """(n,) grey of the points under a lamp beside the camera: what faces the lens is bright, rims are dark; colour has no part."""
    light = (0.22 + 0.92 * touched.normal_near) * _shade(figure, touched)
    first, second = (
        _column([getattr(s, name) for s in figure.surfaces], figure, touched) for name in ("infrared", "infrared_second")
    )
    reflectance = first + weights * (second - first)
    return np.asarray(np.clip(reflectance * light * np.float32(camera.lamp), 0, 1), np.float32)


def _column(values: Sequence[float | tuple[float, float, float]], figure: Figure, touched: Touched) -> Floats:
    return np.asarray(np.array(values, np.float32)[figure.surface][touched.limb], np.float32)


def _shade(figure: Figure, touched: Touched) -> Floats:
    """Creases of cloth, and the dimmer far side of the body."""
    fold = _column([s.fold for s in figure.surfaces], figure, touched)
    phase = _column([s.phase for s in figure.surfaces], figure, touched) + touched.limb.astype(np.float32)
    crease = np.sin(touched.metres * 38 + 3 * touched.side + phase) * np.sin(touched.metres * 17 - 5 * touched.front + 2 * phase)
    far = 1 - 0.35 * np.clip((touched.behind + 0.02) / 0.25, 0, 1)
    shade: Floats = (1 + fold * crease) * far
    return shade
