"""How a picture looks, in nine numbers; and a copy of an edit at the brightness of its source."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.images import REC_709, Pixels

# For `luminance_matched`: one step of an 8-bit picture becomes at most three, and so does its noise. Chosen by the recall of
# yolo11n at night, severity 65 (135 objects): .57 unmatched; .63, .64, .62, .62 at a gain of 2, 3, 4, 6; .68 for either at
# 3.
MAX_GAIN = 3.0
STEPS = 64  # of a grey level, in the table of gains

LONG_SIDE = 480  # pixels; statistics are taken at this long side, so that pictures of different sizes compare

Small = NDArray[np.float32]  # (H, W, 3) in 0–255, the long side LONG_SIDE

STATISTICS = (
    "luminance",
    "spread",
    "saturation",
    "min_channel",
    "gradient",
    "near_white",
    "sky",
    "warmth",
    "highlight",
)


def luminance_matched(source: Pixels, edited: Pixels) -> Pixels:
    """`edited` (H, W, 3) with the luminance distribution of `source`, so that a detector trained by day can look at a night.

    Monotone histogram matching (Gonzalez and Woods, Digital Image Processing, 3.3) of the Rec. 709 luma; the colours are
    scaled with it and clipped. Brightness and contrast grow by at most MAX_GAIN anywhere, because amplified noise looks like
    objects: the slope of the curve is limited as in CLAHE (Zuiderveld 1994), and the curve stays exact at the median. Use it
    beside the edit, not instead: in rain and snow it hides more than it shows. The sizes may differ.
    """
    wanted, luma = (pixels.astype(np.float32) @ REC_709 for pixels in (source, edited))
    quantiles, targets = (_quantiles(plane) for plane in (luma, wanted))
    levels, first, count = np.unique(quantiles, return_index=True, return_counts=True)
    targets = (
        np.add.reduceat(targets, first) / count
    )  # a level that many pixels share goes to the mean of their targets
    grid = np.arange(257, dtype=np.float64)
    curve = np.interp(grid, levels, targets)
    curve = np.concatenate([curve[:1], curve[0] + np.cumsum(np.minimum(np.diff(curve), MAX_GAIN))])
    median = float(quantiles[128])
    curve += np.interp(median, levels, targets) - np.interp(median, grid, curve)
    fine = np.arange(256 * STEPS + 1) / STEPS
    gains = np.clip(np.interp(fine, grid, curve) / np.maximum(fine, 1), 0, MAX_GAIN).astype(np.float32)
    gain = gains[(luma * STEPS + 0.5).astype(np.uint16)]
    matched = np.empty_like(edited)
    for channel in range(3):  # a channel at a time, as numpy is slow along an axis of length 3
        np.minimum(edited[..., channel] * gain + np.float32(0.5), 255, out=matched[..., channel], casting="unsafe")
    return matched


def condition_statistics(pixels: Pixels) -> dict[str, float]:
    """The `statistics_of` a picture (H, W, 3)."""
    return statistics_of(small(pixels))


def statistics_of(picture: Small) -> dict[str, float]:
    """How a `small` picture looks, in nine numbers, 0 to 1 each (`warmth` −1 to 1).

    `luminance` and `spread` (mean and standard deviation of the Rec. 709 luma), `saturation` (mean, as in HSV),
    `min_channel` (mean of the lowest channel, which haze raises: the dark channel of He, Sun and Tang, 2009), `gradient`
    (mean change of the luma per pixel), `near_white` (share of the lower half whose lowest channel exceeds .7), `sky` (mean
    luma of the upper third), `warmth` (mean of red minus blue), `highlight` (luma that one pixel in twenty exceeds).
    """
    picture = np.asarray(picture / 255, dtype=np.float32)
    size = picture.shape[1], picture.shape[0]
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    light = picture @ REC_709
    # Plane by plane, because numpy reduces an axis of length 3 many times slower.
    high, low = (of(of(red, green), blue) for of in (np.maximum, np.minimum))
    slope = np.hypot(np.diff(light[:-1], axis=1), np.diff(light[:, :-1], axis=0))
    return {
        "luminance": round(float(light.mean()), 4),
        "spread": round(float(light.std()), 4),
        "saturation": round(float(((high - low) / np.maximum(high, 1e-3)).mean()), 4),
        "min_channel": round(float(low.mean()), 4),
        "gradient": round(float(slope.mean()), 4) if slope.size else 0.0,
        "near_white": round(float((low > 0.7)[size[1] // 2 :].mean()), 4),
        "sky": round(float(light[: max(1, size[1] // 3)].mean()), 4),
        "warmth": round(float((red - blue).mean()), 4),
        "highlight": round(float(np.quantile(light, 0.95)), 4),
    }


def distance(first: Small, second: Small) -> float:
    """Mean absolute difference of two `small` pictures of one size, in grey levels, 0 to 255."""
    return float(np.abs(first - second).mean())


def small(pixels: Pixels) -> Small:
    """A picture (H, W, 3) at LONG_SIDE, in 0–255."""
    import cv2

    scale = LONG_SIDE / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _quantiles(plane: NDArray[Any]) -> NDArray[Any]:
    """257 of them, of about 2¹⁵ of the values, evenly spaced: enough, and much faster. The ends are those of all values."""
    few = plane.ravel()[:: max(1, plane.size >> 15)]
    return np.concatenate([[plane.min()], np.quantile(few, np.linspace(0, 1, 257)[1:-1]), [plane.max()]])
