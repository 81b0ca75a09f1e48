"""What a camera does to the light of a scene: exposure, scattered light, motion, noise. Pure: arrays in and out.

Applied to a finished edit, so that a picture of a scene at night is also that of a camera at night. Nothing moves: every
kernel is symmetric.
"""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np

from diffgen.dataset.images import Pixels
from diffgen.editing.levers.linear_light import Light, to_light, to_pixels
from diffgen.types import Sensor, unit

# Noise of a sensor (Foi et al., Practical Poissonian-Gaussian noise modeling and fitting, 2008): its variance rises with the
# light (shot noise) from a floor (readout). The floor's share of the standard deviation at full light:
READOUT = 0.03
GRAIN = 0.6  # px, standard deviation: demosaicing and noise reduction of a camera make the grain coarser than a pixel
VEILS = (
    (0.01, 0.5),
    (0.04, 0.3),
    (0.2, 0.2),
)  # (standard deviation as a share of the width, share of the scattered light)
VEIL_SIDE = 320  # px; the width at which scattered light is computed, as it is smooth


def exposed(pixels: Pixels, sensor: Sensor, seed: int) -> Pixels:
    """The picture, (H, W, 3), as the sensor would record it. Each value is drawn from its range by the seed."""
    drawn = {f.name: _drawn(f.name, getattr(sensor, f.name), seed) for f in fields(sensor)}
    if not any(drawn.values()):
        return pixels.copy()
    light = to_light(pixels) * np.float32(2.0 ** drawn["exposure"])
    if drawn["glare"]:
        light = _veiled(light, drawn["glare"])
    if drawn["blur"]:
        light = _moved(light, drawn["blur"] * pixels.shape[1], math.pi * unit("direction", seed))
    if drawn["noise"]:
        light = light + _noise(light, drawn["noise"], seed)
    return to_pixels(light)


def _drawn(name: str, ends: tuple[float, float], seed: int) -> float:
    low, high = ends
    return low + (high - low) * unit("sensor", name, seed)


def _veiled(light: Light, share: float) -> Light:
    """A share of the light scattered over the picture, near and far, as in any lens (veiling glare, ISO 9358)."""
    import cv2

    height, width = light.shape[:2]
    scale = min(1.0, VEIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
    veil = sum(part * cv2.GaussianBlur(small, (0, 0), spread * size[0] + 0.3) for spread, part in VEILS)
    far = cv2.resize(np.asarray(veil, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray((1 - share) * light + share * far, dtype=np.float32)


def _moved(light: Light, length: float, direction: float) -> Light:
    """The mean over a straight line of `length` pixels through each pixel; `direction` in radians."""
    import cv2

    steps = max(3, 2 * math.ceil(length) + 1)
    reach = math.ceil(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for t in np.linspace(-length / 2, length / 2, steps):
        x, y = reach + t * math.cos(direction), reach + t * math.sin(direction)
        left, top = math.floor(x), math.floor(y)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            kernel[top + j, left + i] += (1 - abs(x - left - i)) * (1 - abs(y - top - j))
    kernel = (kernel + kernel[::-1, ::-1]) / (2 * kernel.sum())
    return np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)


def _noise(light: Light, deviation: float, seed: int) -> Light:
    import cv2

    field = np.random.default_rng(int(unit("noise", seed) * 2**48)).standard_normal(light.shape, np.float32)
    field = np.asarray(cv2.GaussianBlur(field, (0, 0), GRAIN), dtype=np.float32).reshape(light.shape)
    field /= max(float(field.std()), 1e-6)
    return np.asarray(field * deviation * np.sqrt(READOUT**2 + light.clip(0)), dtype=np.float32)
