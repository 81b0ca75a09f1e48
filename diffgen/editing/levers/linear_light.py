"""Between sRGB bytes and linear light, where light adds up (IEC 61966-2-1). Pure: arrays in and out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.images import Pixels

Light = NDArray[np.float32]  # (H, W, 3), 0 to 1 is what the bytes can show

_BYTES = np.arange(256, dtype=np.float64) / 255
_LIGHT = np.where(_BYTES <= 0.04045, _BYTES / 12.92, ((_BYTES + 0.055) / 1.055) ** 2.4).astype(np.float32)
_STEPS = 1 << 14  # of a table over the square root of light: finer than a byte everywhere


def _bytes() -> NDArray[np.uint8]:
    light = (np.arange(_STEPS) / (_STEPS - 1)) ** 2
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * coded), dtype=np.uint8)


_CODED = _bytes()


def to_light(pixels: Pixels) -> Light:
    return np.asarray(_LIGHT[pixels])


def to_pixels(light: Light) -> Pixels:
    """What is brighter than 1 becomes white, what is darker than 0 black. `to_pixels(to_light(p))` is `p`."""
    root = np.sqrt(light.clip(0, 1))
    return np.asarray(_CODED[(root * (_STEPS - 1) + 0.5).astype(np.uint16)])
