"""Held objects stand in the scene's light, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from diffgen.checks.structure import luminance
from diffgen.editing.levers.harmonise import harmonise
from tests.fakes import photo

SIZE = (320, 200)
SOURCE = photo(3, SIZE)


def held(feather: int = 8) -> np.ndarray:
    """A box in the middle, falling over `feather` pixels."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    away = np.maximum(np.abs(x - 160) - 50, np.abs(y - 100) - 30)
    return np.clip(1 - away / feather, 0, 1).astype(np.float32)


def edit(scene: float, inside: float, offset: float = 0.0) -> np.ndarray:
    share = (scene + (inside - scene) * held())[..., None]
    return (SOURCE * share + offset * (1 - held())[..., None]).clip(0, 255).round().astype(np.uint8)


def light(made: np.ndarray, where: np.ndarray) -> float:
    return float(luminance(made)[where].mean() / luminance(SOURCE)[where].mean())


@pytest.mark.parametrize("scene", [0.15, 0.3, 0.6])
def test_a_held_object_is_as_dark_as_what_is_around_it(scene: float) -> None:
    made = harmonise(SOURCE, edit(scene, 0.8), held())
    assert light(made, held() == 1) == pytest.approx(scene, rel=0.25)
    far = held() == 0
    assert np.array_equal(made[far], edit(scene, 0.8)[far])


def test_its_own_light_and_dark_stay() -> None:
    made, where = harmonise(SOURCE, edit(0.3, 0.8), held()), held() == 1
    assert np.corrcoef(luminance(made)[where], luminance(SOURCE)[where])[0, 1] > 0.97


@pytest.mark.parametrize(
    ("scene", "inside", "offset"), [(0.5, 0.5, 0.0), (0.5, 0.3, 0.0), (0.5, 0.9, 150.0), (1.0, 1.0, 0.0)]
)
def test_nothing_gets_brighter_and_what_is_no_brighter_than_the_scene_stays(
    scene: float, inside: float, offset: float
) -> None:
    before = edit(scene, inside, offset)
    made = harmonise(SOURCE, before, held())
    assert (made <= before).all()
    if offset or inside <= scene:
        assert light(made, held() == 1) == pytest.approx(light(before, held() == 1), rel=0.05)


def test_without_surroundings_nothing_is_known_of_the_light() -> None:
    before = edit(0.3, 0.8)
    assert np.array_equal(harmonise(SOURCE, before, np.ones_like(held())), before)


def test_nothing_held_is_nothing_changed() -> None:
    before = edit(0.3, 0.8)
    assert np.array_equal(harmonise(SOURCE, before, np.zeros_like(held())), before)
