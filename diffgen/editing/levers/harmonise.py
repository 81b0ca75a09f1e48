"""Harmonisation: matches the brightness of held objects to the edited scene. Pure: arrays in and out.

An object that is edited less than its scene (`objects.strength`) keeps more of the source's brightness than its
surroundings: a daylight car in a night street. The ratio of the edit's brightness to the source's says how the light
changed, independent of material. It is measured around the object and carried into it (normalised convolution, Knutsson and
Westin, 1993). Objects only get darker, never brighter: night and dusk dim everything, but fog and snow add light of their
own in front of an object, which no factor can imitate.
"""

from __future__ import annotations

import numpy as np

from diffgen.checks.structure import Plane, luminance, shrink
from diffgen.dataset.images import Pixels

SIDE = 160  # pixels; the long side at which light is measured
SURROUNDINGS = 6.0  # standard deviation in such pixels; how far around an object light is measured
SMOOTHING = 1.5  # standard deviation in such pixels; of the light inside an object
MIN_FREE = 1e-3  # share of the picture that is not held; with less, the light is unknown


def harmonise(source: Pixels, edited: Pixels, held: Plane) -> Pixels:
    """`edited` with the objects under `held` brightened by no more than their surroundings, each relative to `source`.

    Images are (H, W, 3), `held` is (H, W) in 0 to 1, all of one size. Where `held` is 0, and if it covers the whole picture,
    pixels stay bit for bit.
    """
    import cv2

    scale = min(1.0, SIDE / max(held.shape))
    size = max(1, round(held.shape[1] * scale)), max(1, round(held.shape[0] * scale))
    before, after, mask = (shrink(plane, size) for plane in (luminance(source), luminance(edited), held))
    change = np.log((after + 1 / 255) / (before + 1 / 255))
    free = (1 - mask).clip(0, 1) ** 4  # the transition around an object is partly held
    if free.mean() <= MIN_FREE:
        return edited.copy()
    far = np.float32(1e-3) * free.mean()  # weight of the whole picture, for places without free surroundings
    around = cv2.GaussianBlur(free * change, (0, 0), SURROUNDINGS) + far * np.average(change, weights=free)
    around /= cv2.GaussianBlur(free, (0, 0), SURROUNDINGS) + far
    inside = cv2.GaussianBlur(change, (0, 0), SMOOTHING)
    factor = np.exp(np.minimum(around - inside, 0))
    full = cv2.resize(np.asarray(factor, dtype=np.float32), held.shape[::-1], interpolation=cv2.INTER_LINEAR)
    share = 1 + held * (full - 1)
    return np.asarray(np.rint(edited * share[..., None]), dtype=np.uint8)
