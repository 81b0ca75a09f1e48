"""More facts about an edited image: what a detector still finds in it, and whether the condition came about.

Pure, as `checks`: arrays, boxes and numbers in, numbers out. A fact of one picture depends on that picture and its source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.geometry import Pixels
from diffgen.labels import Shape

COCO_SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, math.inf)}  # px, square root of the area
# Of `luminance_matched`: one step of an 8-bit picture becomes three, and so does its noise. Chosen by what yolo11n finds
# again at night, severity 65 (135 objects): .57 unmatched, .63 .64 .62 .62 at a gain of 2 3 4 6; .68 in either at 3.
MOST_GAIN = 3.0
# A detector's confidence near its threshold comes and goes with a JPEG of quality 95 (.95 of 237 boxes found again). So, as
# for Canny's edges (1986), one threshold to be an object and a lower one to be still there. At half the confidence a quality
# of 95 leaves .98, of 75 .97, and of objects that were painted over 1 of 90 is "found" (scripts/check_recall.py).
SURE = 0.25  # from this confidence on, what is found in a source is an object
AGAIN = 0.125  # from this one on, it is found again
LONG_SIDE = 480  # pixels; statistics are of a picture of this long side, so that they compare between sizes
_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, on sRGB values

# Condition -> statistic -> its change in a plain case: a share of the source's value, a difference where in _DIFFERENCES.
# Means over 8 day frames edited by the embedded model of their day at severity 65, rounded. Only statistics whose direction
# the condition's name promises and that moved that way in every frame then (so snow without near_white, which falls where
# bright ground gets patches); rain by colour alone, which is all that real rain has in common (27 frames: saturation a
# third down, luminance, spread and sky unchanged).
_PLAIN: dict[str, dict[str, float]] = {
    "night": {"luminance": -0.63, "sky": -0.66},
    "dusk": {"luminance": -0.43, "sky": -0.43},
    "dawn": {"spread": -0.46, "gradient": -0.55},
    "fog": {"gradient": -0.59, "spread": -0.45, "min_channel": 0.23},
    "dust": {"gradient": -0.58, "spread": -0.51, "warmth": 0.21},
    "snow": {"saturation": -0.25, "min_channel": 0.15},
    "rain": {"saturation": -0.5},
    "overcast": {"saturation": -0.54, "spread": -0.3},
    "glare": {"spread": -0.24, "gradient": -0.39, "warmth": 0.09},
}
STATISTICS = ("luminance", "spread", "saturation", "min_channel", "gradient", "near_white", "sky", "warmth")
_DIFFERENCES = {"min_channel", "near_white", "warmth"}


class Found(Protocol):
    """What is asked of a detection (`detect.Box` is one); `box` is x0, y0, x1, y1 in shares of the picture."""

    @property
    def class_id(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def box(self) -> tuple[float, float, float, float]: ...


F = TypeVar("F", bound=Found)


def sure(boxes: Sequence[F]) -> list[F]:
    """The boxes of a score of SURE or more."""
    return [box for box in boxes if box.score >= SURE]


def match(reference: Sequence[Found], made: Sequence[Found], iou: float = 0.5) -> list[bool]:
    """For each reference box: is it found again? By a made box of its class that overlaps it by `iou` (0 to 1) or more.

    Greedy as in COCO's evaluation: made boxes from the highest score down, each takes the free reference box that it
    overlaps most, and serves once.
    """
    found = [False] * len(reference)
    for box in sorted(made, key=lambda box: -box.score):
        free = [i for i, other in enumerate(reference) if not found[i] and other.class_id == box.class_id]
        best = max(free, key=lambda i: overlap(reference[i].box, box.box)[0], default=None)
        if best is not None and overlap(reference[best].box, box.box)[0] >= iou:
            found[best] = True
    return found


def relative_recall(
    reference: Sequence[Found], made: Sequence[Found], size: tuple[int, int], iou: float = 0.5
) -> dict[str, Any]:
    """What a detector finds again of what it found in the source, object by object; `size` is width, height in px.

    Keys: `found` (as `match`) and `found_px` (side of each reference box: the square root of its area, px). Relative to
    the detector itself and not to the labels: what it misses in the source says nothing about the edit. `reference` should
    be `sure`, `made` down to AGAIN.
    """
    sides = [math.sqrt(_area(box.box) * size[0] * size[1]) for box in reference]
    return {"found": match(reference, made, iou), "found_px": [round(side, 1) for side in sides]}


def recall(facts: Mapping[str, Any], size: str | None = None) -> float | None:
    """The share found (0 to 1) by the facts of `relative_recall`, of all or of one of COCO_SIZES; None without boxes."""
    least, below = COCO_SIZES[size] if size else (0.0, math.inf)
    found = [hit for hit, side in zip(facts["found"], facts["found_px"], strict=True) if least <= side < below]
    return sum(found) / len(found) if found else None


def new_objects(
    reference: Sequence[Found], made: Sequence[F], labels: Sequence[Shape], confident: float = 0.5
) -> list[F]:
    """Boxes of the edited picture with a score of `confident` or more where there was nothing: hallucinations.

    Nothing: IoU below .3 with every reference box and label, and no more than .7 of the new box inside any of them, of
    whatever class (a truck now called a bus is a box not found again, not a new one).
    """
    known = [*(box.box for box in reference), *(shape.box for shape in labels)]
    return [box for box in made if box.score >= confident and not any(covers(other, box.box) for other in known)]


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


def happened(condition: str, source: Mapping[str, float], edited: Mapping[str, float]) -> float | None:
    """How far a picture moved the way its condition's name promises, by its `condition_statistics`: 0 or more.

    0 for a copy and for a move the other way, about 1 for a plain case, at most 2: the mean over the condition's statistics
    of their change as a share of the plain case's, each −1 to 2. A prefix does not matter (heavy-fog is fog). None for a
    condition that is not known. It says that something of the kind happened, not that it looks true: fog also scores as
    snow; and a source that is so already (night into night) cannot move.
    """
    plain = _PLAIN.get(condition.rpartition("-")[2])
    if plain is None:
        return None
    shares = [_change(name, source[name], edited[name]) / full for name, full in plain.items()]
    return round(max(0.0, float(np.clip(shares, -1, 2).mean())), 3)


def _change(name: str, before: float, after: float) -> float:
    return after - before if name in _DIFFERENCES else (after - before) / max(before, 0.01)


def _thinned(plane: NDArray[Any]) -> NDArray[Any]:
    """About 2¹⁷ of its values, evenly spread; enough for quantiles, and several times faster."""
    return plane.ravel()[:: max(1, plane.size >> 17)]


def _area(box: tuple[float, float, float, float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> tuple[float, float]:
    """(IoU, share of b inside a)."""
    both = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    own = _area(b)
    return (both / (_area(a) + own - both), both / own) if both > 0 else (0.0, 0.0)


def covers(known: tuple[float, float, float, float], box: tuple[float, float, float, float]) -> bool:
    """Whether `box` may be the thing at `known`, or a part of it."""
    iou, inside = overlap(known, box)
    return iou >= 0.3 or inside > 0.7
