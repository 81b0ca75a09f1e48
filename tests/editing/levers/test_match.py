"""A picture takes on another's colour and tone, as much as asked for, and nothing moves."""

from __future__ import annotations

import numpy as np
import pytest

from diffgen.checks.registration import registration
from diffgen.checks.structure import luminance
from diffgen.editing.levers.match import STEEPEST, matched
from tests.fakes import photo

DAY = photo(4, (320, 200))
NIGHT = (photo(8, (200, 120)) * np.array([0.2, 0.25, 0.4])).astype(np.uint8)
METHODS = ("histogram", "reinhard", "fourier")


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """How far two pictures' colours are apart: means and deviations of their channels."""
    return float(
        sum(abs(a[..., c].mean() - b[..., c].mean()) + abs(a[..., c].std() - b[..., c].std()) for c in range(3))
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_more_the_nearer(method: str) -> None:
    steps = [apart(matched(DAY, NIGHT, method, amount), NIGHT) for amount in (0.0, 0.25, 0.5, 1.0)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < (0.3 if method != "fourier" else 0.75) * steps[0]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_moves_and_nothing_is_random(method: str) -> None:
    made = matched(DAY, NIGHT, method, 0.7)
    assert registration(luminance(DAY), luminance(made))[0] < 0.3
    assert np.array_equal(made, matched(DAY, NIGHT, method, 0.7))
    assert made.shape == DAY.shape
    assert np.array_equal(matched(DAY, NIGHT, method, 0.0), DAY)


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_matched_with_itself_stays(method: str) -> None:
    assert np.abs(matched(DAY, DAY, method, 1.0).astype(int) - DAY).max() <= 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 300), (257, 16)])
def test_any_size_and_flat_pictures(method: str, size: tuple[int, int]) -> None:
    flat = np.full((5, 7, 3), 90, np.uint8)
    for first, second in ((photo(1, size), NIGHT), (DAY, photo(1, size)), (flat, NIGHT), (DAY, flat)):
        assert matched(first, second, method, 1.0).shape == first.shape


def test_a_flat_fog_gets_no_noise() -> None:
    fog = np.clip(180 + np.random.default_rng(0).normal(0, 1, (100, 160, 3)), 0, 255).astype(np.uint8)
    made = matched(fog, NIGHT, "histogram", 1.0)
    assert (made.std((0, 1)) <= STEEPEST * fog.std((0, 1)) + 1).all()
