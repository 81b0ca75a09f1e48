"""Lost objects come back in the light of the edit, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from diffgen.checks.structure import double_angle, luminance
from diffgen.dataset.labels import Shape
from diffgen.editing.levers.restore import lost_objects, with_objects
from tests.fakes import photo

SIZE = (320, 200)
SOURCE = photo(3, SIZE)
BEFORE = double_angle(luminance(SOURCE))
LEFT, RIGHT = Shape(0, (0.1, 0.3, 0.3, 0.7)), Shape(0, (0.6, 0.3, 0.8, 0.7))
TRIANGLE = Shape(0, (0.1, 0.3, 0.3, 0.7), outline=((0.2, 0.3), (0.3, 0.7), (0.1, 0.7)))
INSIDE = np.s_[60:140, 32:96]  # of LEFT


def painted_over(contrast: float, veil: float) -> np.ndarray:
    """A scene in another light, in which the left object is gone."""
    made = SOURCE * contrast + veil
    made[INSIDE] = made[INSIDE].mean()
    return made.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("contrast", "veil"), [(0.25, 0), (0.4, 110), (1, 0), (0.7, 40)])
def test_it_comes_back_in_the_light_around_it(contrast: float, veil: float) -> None:
    edited = painted_over(contrast, veil)
    assert lost_objects(BEFORE, edited, [LEFT, RIGHT], 0.5) == (0,)
    made = with_objects(SOURCE, edited, [LEFT, RIGHT], (0,), 4)
    assert lost_objects(BEFORE, made, [LEFT, RIGHT], 0.8) == ()
    wanted = SOURCE[INSIDE] * contrast + veil
    assert np.abs(made[INSIDE] - wanted).mean() < 12


@pytest.mark.parametrize("shape", [LEFT, TRIANGLE])
def test_nothing_else_changes(shape: Shape) -> None:
    edited = painted_over(0.3, 0)
    made = with_objects(SOURCE, edited, [shape, RIGHT], (0,), 4)
    far = np.ones(edited.shape[:2], bool)
    far[55:146, 27:102] = False
    assert np.array_equal(made[far], edited[far])
    if shape is TRIANGLE:
        assert np.array_equal(made[61:70, 33:45], edited[61:70, 33:45]), "the box's corner is not the object's"
    assert with_objects(SOURCE, edited, [shape], (), 4) is edited


def test_its_edge_is_soft() -> None:
    edited = np.zeros_like(SOURCE)
    made = luminance(with_objects(np.full_like(SOURCE, 200), edited, [LEFT], (0,), 6))
    assert np.abs(np.diff(made[100, 20:40])).max() < 0.5 * made.max()


@pytest.mark.parametrize(
    "box", [(-0.01, -0.01, 0.2, 1.01), (0, 0, 1, 1), (0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.502, 0.502)]
)
def test_any_box_will_do(box: tuple[float, float, float, float]) -> None:
    edited = painted_over(0.3, 0)
    made = with_objects(SOURCE, edited, [Shape(0, box)], (0,), 3)
    assert made.shape == edited.shape
    assert made.dtype == np.uint8


def test_a_flat_object_is_not_lost() -> None:
    grey = np.full_like(SOURCE, 120)
    assert lost_objects(double_angle(luminance(grey)), SOURCE, [LEFT], 1.0) == ()
