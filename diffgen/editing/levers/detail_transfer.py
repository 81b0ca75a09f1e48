"""Detail transfer: restores the source's fine structure in an edit, under the edit's light. Pure: arrays in and out.

A latent model's autoencoder loses detail finer than its 8-pixel cells. Both pictures are split into octave bands (Burt and
Adelson, The Laplacian pyramid as a compact image code, 1983). The finest bands of the edit are replaced with the scaled
bands of the source; all coarser ones, which are light and weather, stay the edit's. Three rules say how much is replaced:

- Gain: the least-squares slope of edit over source in a window, as in the guided filter (He, Sun and Tang, 2010), for
  luminance and each colour difference separately. It is measured just above the replaced bands, where the autoencoder keeps
  structure. Night and fog are locally `edit = slope × source + offset`. The brightness ratio is the slope only if the offset
  is 0 (night); in fog, brightness rises while contrast falls, and only the slope shows that. The gain is the minimum of
  slope, brightness ratio and 1: no detail is stronger than the air, the light or the source allows. Where light and dark
  have swapped, the slope is negative and the gain is 0.
- Match, per band: where the two bands are opposed, the edit's band stays.
- Salience, per band: where the edit's band is much stronger, it shows something new (a flake, a streak, a lamp) and stays.
  Match and salience are those of Burt and Kolczynski, Enhanced image capture through fusion, 1993.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.images import Pixels

Planes = NDArray[np.float32]  # (H, W) or (H, W, 3: luminance, red and blue difference), in grey levels 0–255

# Changes of luminance, red and blue difference to changes of red, green, blue (ITU-R BT.601, as OpenCV's YCrCb).
TO_RGB = np.array([[1, 1.403, 0], [1, -0.714, -0.344], [1, 0, 1.773]], dtype=np.float32)

SMALLEST = 10  # pixels; minimum height and width
COARSE_SIDE = 160  # pixels; bands are replaced until the long side would be about this: 3 bands at 1280, 2 at 640
NEAR, FAR = 5, 31  # pixels of the coarse picture; windows of the slope, and of its fallback where the near one is flat
WINDOW = 7  # pixels of the band; side of the squares in which match and salience are measured
NOISE = 4.0  # squared grey levels; a variance below this means little
STRONGER = 1.5  # an edited band this many times as strong as the scaled source band is replaced by half


def transfer(source: Pixels, edited: Pixels, amount: NDArray[np.float32] | float) -> Pixels:
    """`edited` with the fine structure of `source`. Both are (H, W, 3) of one size, at least 10 × 10, and aligned.

    `amount` is 0–1, per pixel (H, W) or for the whole picture: 0 gives `edited` bit for bit, 1 the source's fine bands as
    far as the rules above allow. A mask reaches about 2 ** (bands + 2) pixels over its edge, less in finer bands, so that no
    band has a seam. Raises ValueError on a wrong shape, dtype or range.
    """
    import cv2

    _check(source, edited, amount)
    if not np.any(amount):
        return edited.copy()
    levels = _levels(edited.shape)
    before, source_bands = _split(source, levels)
    after, edited_bands = _split(edited, levels)
    weights = [np.asarray(amount, dtype=np.float32)]
    while len(weights) < levels:
        weights.append(np.asarray(cv2.pyrDown(weights[-1]) if weights[-1].ndim else weights[-1]))
    coarse_gain = _gain(before, after)
    change = np.zeros_like(after)
    for ours, theirs, weight in zip(reversed(source_bands), reversed(edited_bands), reversed(weights), strict=True):
        size = ours.shape[1], ours.shape[0]
        ours = ours * cv2.resize(coarse_gain, size, interpolation=cv2.INTER_LINEAR)
        share = weight * _share(ours[..., 0], theirs[..., 0])
        change = np.asarray(cv2.pyrUp(change, dstsize=size))
        change += (ours - theirs) * share[..., None]
    return np.asarray(np.rint(edited + cv2.transform(change, TO_RGB)).clip(0, 255), dtype=np.uint8)


def _check(source: Pixels, edited: Pixels, amount: NDArray[np.float32] | float) -> None:
    for name, pixels in (("source", source), ("edited", edited)):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < SMALLEST:
            raise ValueError(
                f"{name} must be (H, W, 3) uint8, {SMALLEST} pixels or more a side, got {pixels.shape} {pixels.dtype}"
            )
    if source.shape != edited.shape:
        raise ValueError(f"source and edited must have one size, got {source.shape} and {edited.shape}")
    if isinstance(amount, np.ndarray) and (amount.dtype != np.float32 or amount.shape != edited.shape[:2]):
        raise ValueError(f"amount must be float32 of shape {edited.shape[:2]}, got {amount.shape} {amount.dtype}")
    if not (np.min(amount) >= 0 and np.max(amount) <= 1):  # also for NaN
        raise ValueError("amount must be 0 to 1 everywhere")


def _levels(shape: tuple[int, ...]) -> int:
    """How many bands are replaced, at least one. What remains has a long side of about COARSE_SIDE, or a short one of 4."""
    height, width = shape[:2]
    return max(1, min(round(math.log2(max(height, width) / COARSE_SIDE)), int(math.log2(min(height, width) / 4))))


def _split(pixels: Pixels, levels: int) -> tuple[Planes, list[Planes]]:
    """(coarse rest, bands from fine to coarse). Each band has half the size of the one before, rounded up."""
    import cv2

    bands: list[Planes] = []
    plane: Planes = np.asarray(cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2YCrCb), dtype=np.float32)
    for _ in range(levels):
        smaller = np.asarray(cv2.pyrDown(plane), dtype=np.float32)
        bands.append(plane - cv2.pyrUp(smaller, dstsize=(plane.shape[1], plane.shape[0])))
        plane = smaller
    return plane, bands


def _gain(before: Planes, after: Planes) -> Planes:
    """The gain of the source's detail under the edit's light, 0–1 per pixel and channel of the coarse pictures."""
    ours, theirs = before - _mean(before, NEAR), after - _mean(after, NEAR)
    covariance, variance = ours * theirs, ours * ours
    fallback = (_mean(covariance, FAR) + np.float32(1e-3)) / (_mean(variance, FAR) + np.float32(1e-3))
    slope = (_mean(covariance, NEAR) + NOISE * fallback) / (_mean(variance, NEAR) + NOISE)
    brightness = (after[..., :1] + 1) / (before[..., :1] + 1)
    return np.asarray(np.minimum(slope, brightness).clip(0, 1), dtype=np.float32)


def _share(ours: Planes, theirs: Planes) -> Planes:
    """The share of the edit's band that is replaced, 0–1 per pixel (H, W), by match and salience of the luminance."""
    energy_a, energy_b = _mean(ours * ours, WINDOW).clip(0), _mean(theirs * theirs, WINDOW).clip(0)
    match = _mean(ours * theirs, WINDOW) / (np.sqrt(energy_a * energy_b) + NOISE)
    agree = (1 + 2 * match).clip(
        0, 1
    )  # 0 from a match of -0.5 down; unrelated bands count as lost detail and are replaced
    ratio = energy_b / (STRONGER**2 * energy_a + np.float32(1e-3))
    return np.asarray(agree / (1 + ratio * ratio), dtype=np.float32)


def _mean(planes: Planes, side: int) -> Planes:
    import cv2

    return np.asarray(cv2.blur(planes, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)
