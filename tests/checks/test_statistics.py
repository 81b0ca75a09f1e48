"""Statistics of an image: brought to its source's light, and whether a condition came about."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from diffgen.checks.effect import condition_effect
from diffgen.checks.statistics import MAX_GAIN, condition_statistics, luminance_matched
from diffgen.checks.structure import luminance
from tests.checks.scenes import SCENE, SIZE
from tests.fakes import photo

CONDITIONS = ("night", "dusk", "dawn", "fog", "dust", "snow", "rain", "overcast", "glare")


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference in luminance, in levels of 0 to 255."""
    return float(np.abs(luminance(a) - luminance(b)).mean() * 255)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_picture_matched_to_itself_stays(seed: int) -> None:
    pixels = photo(seed, SIZE)
    assert np.abs(luminance_matched(pixels, pixels).astype(int) - pixels).max() <= 1


NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
LIGHTS: list[tuple[str, Callable[[np.ndarray], np.ndarray], float]] = [
    ("night", lambda a: a * 0.4, 1.5),
    ("deep dusk", lambda a: 255 * (a / 255) ** 1.8 * 0.6, 9),  # darkens the dark more than MAX_GAIN gives back
    ("bright", lambda a: 255 - (255 - a) * 0.6, 6),
    ("fog", lambda a: a * 0.5 + 110, 6),
]


@pytest.mark.parametrize(("change", "levels"), [v[1:] for v in LIGHTS], ids=[v[0] for v in LIGHTS])
@pytest.mark.parametrize("pixels", [SCENE, NOISE], ids=["photo", "noise"])
def test_another_light_comes_back(
    pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray], levels: float
) -> None:
    edited = change(pixels.astype(float)).round().clip(0, 255).astype(np.uint8)
    assert difference(pixels, edited) > 20
    assert difference(pixels, luminance_matched(pixels, edited)) < levels


def test_matching_bounds_how_much_noise_grows() -> None:
    """A nearly black picture of pure noise: the source's contrast is fifty times its own."""
    black = np.random.default_rng(1).normal(6, 1, (120, 160, 1)).round().clip(0, 255).astype(np.uint8).repeat(3, -1)
    matched = luminance_matched(SCENE, black)
    assert matched.std() <= MAX_GAIN * black.std() + 0.5
    assert matched.max() <= MAX_GAIN * black.max() + 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 2)], ids=str)
def test_the_smallest_pictures(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert luminance_matched(SCENE, pixels).shape == pixels.shape
    statistics = condition_statistics(pixels)
    assert all(math.isfinite(value) for value in statistics.values())
    assert all(condition_effect(name, statistics, statistics) == 0 for name in CONDITIONS)
    black = condition_statistics(np.zeros_like(pixels))
    assert all(
        condition_effect(name, black, statistics) >= 0 and condition_effect(name, statistics, black) <= 2
        for name in CONDITIONS
    )


def test_known_statistics() -> None:
    orange = np.broadcast_to(np.array([255, 102, 0], np.uint8), (30, 40, 3))
    statistics = condition_statistics(orange)
    assert statistics["luminance"] == pytest.approx(0.2126 + 0.4 * 0.7152, abs=1e-3)
    assert statistics["sky"] == statistics["luminance"]
    assert (statistics["saturation"], statistics["warmth"], statistics["min_channel"]) == (1.0, 1.0, 0.0)
    assert statistics["spread"] == statistics["gradient"] == statistics["near_white"] == 0.0
    halves = np.zeros((40, 40, 3), np.uint8)
    halves[20:] = 255
    assert condition_statistics(halves)["near_white"] == pytest.approx(1.0, abs=0.01)
    assert condition_statistics(halves[::-1])["near_white"] == pytest.approx(0.0, abs=0.01)


def test_statistics_do_not_depend_on_the_pictures_size() -> None:
    pixels = photo(11, (1280, 960))
    half = np.asarray(Image.fromarray(pixels).resize((640, 480), Image.Resampling.BOX))
    assert condition_statistics(half) == pytest.approx(condition_statistics(pixels), abs=0.005)


def test_a_copy_has_not_happened_and_an_unknown_condition_cannot() -> None:
    statistics = condition_statistics(SCENE)
    assert [condition_effect(name, statistics, statistics) for name in CONDITIONS] == [0.0] * len(CONDITIONS)
    assert condition_effect("heavy-fog", statistics, statistics) == 0.0
    assert condition_effect("very-heavy-snow", statistics, statistics) == 0.0
    assert condition_effect("autumn", statistics, statistics) is None
    assert condition_effect("", statistics, statistics) is None


WARM = np.stack([SCENE[..., 0], SCENE[..., 1] * 0.8, SCENE[..., 2] * 0.5], -1)
GREY = WARM.mean(-1, keepdims=True)

# Condition -> the picture at a severity of 0 to 1.
SYNTHETIC: dict[str, Callable[[float], np.ndarray]] = {
    "night": lambda s: WARM * (1 - 0.8 * s),
    "dusk": lambda s: WARM * (1 - 0.5 * s),
    "dawn": lambda s: WARM * (1 - 0.6 * s) + 0.6 * s * WARM.mean(),
    "fog": lambda s: WARM * (1 - 0.7 * s) + 0.7 * s * 215,
    "dust": lambda s: WARM * (1 - 0.7 * s) + 0.7 * s * np.array([200, 140, 60]),
    "snow": lambda s: np.where(np.arange(SIZE[1])[:, None, None] > 130, WARM + (235 - WARM) * s, WARM + (GREY - WARM) * s),
    "rain": lambda s: (WARM + (GREY - WARM) * 0.8 * s) * (1 - 0.4 * s) + 0.4 * s * 110,
    "overcast": lambda s: (WARM + (GREY - WARM) * 0.8 * s) * (1 - 0.3 * s) + 0.3 * s * 130,
    "glare": lambda s: WARM * (1 - 0.4 * s) + 0.4 * s * np.array([255, 220, 160]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONS)
def test_more_severity_happens_more(name: str) -> None:
    pictures = [SYNTHETIC[name](s).round().clip(0, 255).astype(np.uint8) for s in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    before, *after = [condition_statistics(pixels) for pixels in pictures]
    scores = [condition_effect(name, before, statistics) for statistics in after]
    assert all(one < two for one, two in zip([0.0, *scores], scores, strict=False)), scores
    assert 0.7 < scores[-1] <= 2
    assert condition_effect(name, after[-1], before) == 0.0  # the other way


def test_no_weather_is_night_and_night_is_no_snow() -> None:
    made = {n: condition_statistics(make(0.8).round().clip(0, 255).astype(np.uint8)) for n, make in SYNTHETIC.items()}
    before = condition_statistics(WARM.astype(np.uint8))
    assert condition_effect("night", before, made["fog"]) == condition_effect("night", before, made["snow"]) == 0.0
    assert condition_effect("snow", before, made["night"]) == 0.0
