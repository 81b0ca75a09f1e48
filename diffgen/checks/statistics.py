"""How a picture looks, in eight numbers, and a copy of an edit brought to its source's brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.dataset.images import Pixels

# Of `luminance_matched`: one step of an 8-bit picture becomes three, and so does its noise. Chosen by what yolo11n finds
# again at night, severity 65 (135 objects): .57 unmatched, .63 .64 .62 .62 at a gain of 2 3 4 6; .68 in either at 3.
MOST_GAIN = 3.0

LONG_SIDE = 480  # pixels; statistics are of a picture of this long side, so that they compare between sizes
_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, on sRGB values

STATISTICS = ("luminance", "spread", "saturation", "min_channel", "gradient", "near_white", "sky", "warmth")


def luminance_matched(source: Pixels, edited: Pixels) -> Pixels:
    """`edited` with the luminance distribution of `source`, for a detector trained by day to look at a night.

    Monotone histogram matching (Gonzalez and Woods, Digital Image Processing, 3.3) of the Rec. 709 luma, the colours
    scaled along and clipped. Neither brightness nor contrast grows by more than MOST_GAIN anywhere: the slope of the
    curve is cut as CLAHE cuts it (Zuiderveld 1994), kept right at the median; beyond, noise looks like things. For a second
    look beside the picture itself, not instead: in rain and snow it hides more than it shows. The sizes may differ.
    """
    wanted, own = (pixels.astype(np.float32) @ _WEIGHTS for pixels in (source, edited))
    shares = np.linspace(0, 1, 257)
    there, back = (np.quantile(_thinned(plane), shares) for plane in (own, wanted))
    levels, first, count = np.unique(there, return_index=True, return_counts=True)
    targets = np.add.reduceat(back, first) / count  # a level that many pixels share goes to the mean of their targets
    grid = np.arange(257, dtype=np.float64)
    curve = np.interp(grid, levels, targets)
    curve = np.concatenate([curve[:1], curve[0] + np.cumsum(np.minimum(np.diff(curve), MOST_GAIN))])
    middle = float(there[128])
    curve += np.interp(middle, levels, targets) - np.interp(middle, grid, curve)
    gain = np.clip(np.interp(own, grid, curve) / np.maximum(own, 1), 0, MOST_GAIN)
    return np.asarray((edited * gain[..., None]).round().clip(0, 255), dtype=np.uint8)


def condition_statistics(pixels: Pixels) -> dict[str, float]:
    """How a picture looks, in eight numbers; all 0 to 1 but `warmth` (−1 to 1), at LONG_SIDE.

    `luminance` and `spread` (mean and deviation of the Rec. 709 luma), `saturation` (mean of HSV's), `min_channel` (mean of
    the least channel: haze lifts it, the dark channel of He, Sun and Tang, 2009), `gradient` (mean change of the luma per
    pixel), `near_white` (share of the lower half whose least channel exceeds .7), `sky` (mean luma of the upper third),
    `warmth` (mean of red less blue).
    """
    scale = LONG_SIDE / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), dtype=np.float32) / 255
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    light = small @ _WEIGHTS
    # Plane by plane: numpy reduces an axis of three many times slower.
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
    }


def _thinned(plane: NDArray[Any]) -> NDArray[Any]:
    """About 2¹⁷ of its values, evenly spread; enough for quantiles, and several times faster."""
    return plane.ravel()[:: max(1, plane.size >> 17)]
