"""Held objects in the scene's light, so that no daylight car stands on a night street. Pure: arrays in and out.

An object that is edited less than its scene (`objects.strength`) keeps more of the source's brightness than what is around
it. The edit's brightness over the source's tells how the light changed, whatever a thing is made of; around the object it is
known, and carried into it (normalised convolution, Knutsson and Westin, 1993). Only darker, never brighter: night and dusk
take light from everything, but fog and snow lay their own before it, which no factor can do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.checks.structure import luminance
from diffgen.dataset.images import Pixels

Plane = NDArray[np.float32]

SIDE = 160  # pixels; the long side at which light is looked at
REACH = 6.0  # pixels of that; how far around an object its surroundings go
OWN = 1.5  # pixels of that; how smooth the light inside it is taken
LEAST_FREE = 1e-3  # share of the picture that is not held; with less, nothing is known of the light


def harmonise(source: Pixels, edited: Pixels, held: Plane) -> Pixels:
    """`edited` with the objects under `held` (H, W, 0 to 1) no brighter against `source` than what is around them.

    All of one size. Where `held` is 0 the pixels stay bit for bit; where it covers everything, so do all.
    """
    import cv2

    scale = min(1.0, SIDE / max(held.shape))
    size = max(1, round(held.shape[1] * scale)), max(1, round(held.shape[0] * scale))
    before, after, mask = (_reduced(plane, size) for plane in (luminance(source), luminance(edited), held))
    change = np.log((after + 1 / 255) / (before + 1 / 255))
    free = (1 - mask).clip(0, 1) ** 4  # the fall around an object is half held
    if free.mean() <= LEAST_FREE:
        return edited.copy()
    far = np.float32(1e-3) * free.mean()  # weight of the whole picture, for what has nothing near it
    around = cv2.GaussianBlur(free * change, (0, 0), REACH) + far * np.average(change, weights=free)
    around /= cv2.GaussianBlur(free, (0, 0), REACH) + far
    own = cv2.GaussianBlur(change, (0, 0), OWN)
    factor = np.exp(np.minimum(around - own, 0))
    full = cv2.resize(np.asarray(factor, dtype=np.float32), held.shape[::-1], interpolation=cv2.INTER_LINEAR)
    share = 1 + held * (full - 1)
    return np.asarray(np.rint(edited * share[..., None]), dtype=np.uint8)


def _reduced(plane: Plane, size: tuple[int, int]) -> Plane:
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX), dtype=np.float32)
