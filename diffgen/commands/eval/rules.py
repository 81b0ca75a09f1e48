"""Rule-based weather and light, for the arm that a generative model has to beat.

Plain image arithmetic in the strong form that the literature compares with: fog thickens with distance, nights are darkened,
bent by a gamma and get a sensor's noise; with unlabelled pictures of the target, their light is copied instead. No library:
those that have such rules bring a second copy of OpenCV with them, which breaks the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from diffgen.dataset.images import REC_709, Pixels

RULES_VERSION = 1  # raise it when a rule makes another picture: detectors trained on the old ones are not used then
Plane = NDArray[np.float64]


def ruled(condition: str, pixels: Pixels, seed: int, targets: Sequence[Pixels] = ()) -> Pixels | None:
    """The picture (H, W, 3) under a condition named like a preset; None for a name without a rule.

    With `targets`, pictures of the real condition, it gets the histogram of one of them, channel by channel, and noise.
    """
    rng = np.random.default_rng(seed)
    if targets:
        made = with_histogram(pixels, targets[int(rng.integers(len(targets)))]) + rng.normal(0, 4, pixels.shape)
        return made.round().clip(0, 255).astype(np.uint8)
    rule = RULES.get(condition.rpartition("-")[2])
    if rule is None:
        return None
    heavy = 1.5 if condition.startswith("heavy-") else 1.0
    return rule(pixels.astype(np.float64) / 255, rng, heavy)


def has_rule(condition: str) -> bool:
    return condition.rpartition("-")[2] in RULES


def with_histogram(pixels: Pixels, target: Pixels) -> Plane:
    """Each channel with the distribution of the target's (Gonzalez and Woods, Digital Image Processing, 3.3), 0 to 255."""
    made = np.empty(pixels.shape)
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256).cumsum() / pixels[..., channel].size
        wanted = np.bincount(target[..., channel].ravel(), minlength=256).cumsum() / target[..., channel].size
        made[..., channel] = np.interp(counts, wanted, np.arange(256))[pixels[..., channel]]
    return made


def distance(shape: tuple[int, ...]) -> Plane:
    """A guess at how far away each pixel is, (H, W), 0 to 1: that of a flat ground below a horizon at 45 % of the height."""
    height, width = shape[:2]
    below = (np.arange(height) / height - 0.45).clip(0.02)
    return np.repeat(np.clip(0.06 / below, 0, 1)[:, None], width, 1)


def _bytes(picture: Plane) -> Pixels:
    return (255 * picture).round().clip(0, 255).astype(np.uint8)


def _night(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    gamma, light = rng.uniform(1.6, 2.4) * heavy, rng.uniform(0.3, 0.5)
    dark = light * picture**gamma * np.array([0.85, 0.95, 1.1])
    grain = rng.normal(0, 1, picture.shape) * (0.008 + 0.05 * np.sqrt(dark))  # a floor, and shot noise
    return _bytes(dark + grain)


def _dusk(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    return _bytes(
        rng.uniform(0.45, 0.65) / heavy * picture**1.3 * np.array([1.08, 0.95, 0.92])
        + rng.normal(0, 0.01, picture.shape)
    )


def _fog(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    """Koschmieder's law: what is far away is replaced by the light of the air."""
    clear = np.exp(-rng.uniform(1.2, 2.5) * heavy * distance(picture.shape))[..., None]
    return _bytes(picture * clear + rng.uniform(0.7, 0.85) * (1 - clear))


def _dust(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    clear = np.exp(-rng.uniform(1.0, 2.0) * heavy * distance(picture.shape))[..., None]
    return _bytes(picture * clear + np.array([0.75, 0.6, 0.42]) * (1 - clear))


def _rain(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    grey = (picture @ REC_709)[..., None]
    wet = 0.9 * (0.6 * picture + 0.4 * grey)
    return _bytes(wet + 0.25 * _streaks(picture.shape, rng, 0.004 * heavy, length=25)[..., None])


def _snow(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    height = picture.shape[0]
    light = picture @ REC_709
    ground = np.clip(np.arange(height) / height - 0.45, 0, 0.2)[:, None] / 0.2
    lying = (ground * np.clip((light - 0.25) / 0.3, 0, 1) * 0.7 * min(heavy, 1.2))[..., None]
    pale = 0.7 * picture + 0.3 * light[..., None]
    return _bytes(
        pale * (1 - lying) + 0.93 * lying + 0.8 * _streaks(picture.shape, rng, 0.003 * heavy, length=3)[..., None]
    )


def _overcast(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    grey = (picture @ REC_709)[..., None]
    return _bytes(0.45 + (0.45 * picture + 0.55 * grey - 0.45) * rng.uniform(0.6, 0.75) / heavy)


def _glare(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    height, width = picture.shape[:2]
    x, y = rng.uniform(0.2, 0.8) * width, 0.35 * height
    far = np.hypot(np.arange(width)[None] - x, np.arange(height)[:, None] - y) / width
    veil = (0.55 * heavy * np.exp(-far / 0.35))[..., None]
    return _bytes(picture + veil * np.array([1.0, 0.92, 0.75]) * (1 - picture * 0.5))


def _dawn(picture: Plane, rng: np.random.Generator, heavy: float) -> Pixels:
    return _bytes((0.35 + 0.55 * (picture - 0.35)) * np.array([1.04, 0.97, 0.98]) / heavy)


def _streaks(shape: tuple[int, ...], rng: np.random.Generator, density: float, length: int) -> Plane:
    """What falls, (H, W), 0 to 1: bright points drawn out downwards."""
    points = (rng.random(shape[:2]) < density).astype(np.float64)
    drawn = sum(np.roll(points, i, 0) for i in range(length))
    soft = Image.fromarray(_bytes(np.clip(drawn, 0, 1))).filter(ImageFilter.GaussianBlur(0.8))
    return np.asarray(soft, np.float64) / 255


RULES: dict[str, Callable[[Plane, np.random.Generator, float], Pixels]] = {
    "night": _night, "dusk": _dusk, "fog": _fog, "dust": _dust, "rain": _rain, "snow": _snow, "overcast": _overcast,
    "glare": _glare, "dawn": _dawn,
}  # fmt: skip
