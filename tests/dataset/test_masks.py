"""Masks of labelled objects."""

from __future__ import annotations

import numpy as np
import pytest

from diffgen.dataset.geometry import canvas_of
from diffgen.dataset.labels import Shape
from diffgen.dataset.masks import identity_canvas, object_mask

BOX = Shape(0, (0.25, 0.25, 0.75, 0.5))
TRIANGLE = Shape(1, (0.1, 0.1, 0.9, 0.9), ((0.1, 0.1), (0.9, 0.1), (0.1, 0.9)))


def test_one_inside_and_falling_to_nothing() -> None:
    mask = object_mask([BOX], identity_canvas(200, 100), 10)
    assert mask.shape == (100, 200)
    assert mask.dtype == np.float32
    assert (mask[25:50, 50:150] == 1).all()
    row = mask[40, :51]
    assert (np.diff(row) >= 0).all()
    assert row[38] == 0
    assert row[45] == pytest.approx(0.5, abs=0.11)


def test_an_outline_is_not_its_box() -> None:
    mask = object_mask([TRIANGLE], identity_canvas(100, 100), 2)
    assert mask[30, 30] == 1
    assert mask[80, 80] == 0


def test_small_objects_are_held_in_full() -> None:
    tiny = Shape(0, (0.5, 0.5, 0.502, 0.503))
    assert object_mask([tiny], identity_canvas(1280, 720), 24).max() == 1


def test_it_lies_where_the_fit_puts_the_picture() -> None:
    plan = canvas_of(1000, 500, 256, 64)
    mask = object_mask([BOX], plan, 0)
    ys, xs = np.nonzero(mask)
    assert (xs.min(), xs.max()) == pytest.approx((plan.left + 64, plan.left + 192), abs=1)
    assert (ys.min(), ys.max()) == pytest.approx((plan.top + 32, plan.top + 64), abs=1)


def test_nothing_labelled_nothing_held() -> None:
    assert not object_mask([], identity_canvas(64, 48), 8).any()


@pytest.mark.parametrize("shape", [Shape(0, (-0.01, -0.01, 1.01, 1.01)), Shape(0, (0.5, 0.5, 0.5, 0.5))])
def test_shapes_at_and_over_the_edge(shape: Shape) -> None:
    mask = object_mask([shape], identity_canvas(64, 48), 8)
    assert mask.min() >= 0
    assert mask.max() == 1
