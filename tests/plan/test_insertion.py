"""Where an object may be inserted: by the dataset's own sizes and heights, on free ground, and always the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from diffgen.dataset.labels import Shape
from diffgen.plan.insertion import ObjectSize, Place, SizePrior, find_place, object_size
from diffgen.types import unit

SIZE = (1280, 720)
LOW_AND_WIDE = ObjectSize(height=0.1, middle=0.8, aspect=2.0)
TALL = ObjectSize(height=0.4, middle=0.6, aspect=0.4)


def law(*templates: ObjectSize) -> SizePrior:
    return SizePrior((unit("t", i), template) for i, template in enumerate(templates))


def place(
    seed: int,
    rule: SizePrior,
    shapes: Sequence[Shape] = (),
    size: tuple[int, int] = SIZE,
    least: float = 0,
    margin: float = 0,
) -> Place | None:
    return find_place(rule, shapes, size, least, margin, partial(unit, seed))


def test_size_and_height_are_those_of_an_object_and_the_side_is_free() -> None:
    found = [place(seed, law(LOW_AND_WIDE)) for seed in range(50)]
    for box in found:
        assert box is not None
        x0, y0, x1, y1 = box
        assert (y0, y1) == pytest.approx((0.75, 0.85))
        assert (x1 - x0) * SIZE[0] / ((y1 - y0) * SIZE[1]) == pytest.approx(2.0, rel=1e-3)
        assert 0 <= x0 < x1 <= 1
    assert min(box[0] for box in found if box) < 0.1
    assert max(box[2] for box in found if box) > 0.9


def test_the_same_seed_gives_the_same_place() -> None:
    rule = law(LOW_AND_WIDE, TALL)
    assert [place(seed, rule) for seed in range(20)] == [place(seed, rule) for seed in range(20)]


def test_the_shape_stays_in_pictures_of_another_aspect() -> None:
    x0, y0, x1, y1 = place(1, law(TALL), size=(500, 1000)) or (0, 0, 0, 0)
    assert (x1 - x0) * 500 / ((y1 - y0) * 1000) == pytest.approx(0.4, rel=1e-3)


def test_it_keeps_away_from_every_labelled_object() -> None:
    shapes = [Shape(0, (0.1, 0.3, 0.4, 0.9)), Shape(1, (0.6, 0.7, 0.7, 0.9))]
    found = [place(seed, law(TALL, LOW_AND_WIDE), shapes, margin=30) for seed in range(60)]
    boxes = [box for box in found if box is not None]
    assert len(boxes) > 40
    for x0, y0, x1, y1 in boxes:
        for shape in shapes:
            a0, b0, a1, b1 = shape.box
            apart_x = max(a0 - x1, x0 - a1) * SIZE[0]
            apart_y = max(b0 - y1, y0 - b1) * SIZE[1]
            assert max(apart_x, apart_y) > 29.9


def test_no_room_is_no_place() -> None:
    assert place(1, law(TALL), [Shape(0, (0, 0, 1, 1))]) is None
    assert place(1, law(LOW_AND_WIDE), least=73) is None, "smaller than the model can paint"
    assert place(1, law(ObjectSize(0.5, 0.5, 5.0))) is None, "wider than the picture"


def test_objects_over_the_border_are_moved_inside() -> None:
    _, y0, _, y1 = place(1, law(ObjectSize(0.2, 0.95, 1.0))) or (0, 0, 0, 0)
    assert (y0, y1) == pytest.approx((0.8, 1.0))


def test_an_object_more_in_the_dataset_moves_few_places() -> None:
    templates = [ObjectSize(0.1 + i / 1000, 0.5, 1.0) for i in range(100)]
    before, after = law(*templates), law(*templates, TALL)
    moved = sum(place(seed, before) != place(seed, after) for seed in range(500))
    assert 0 < moved < 50


def test_templates() -> None:
    assert object_size(Shape(0, (0.1, 0.2, 0.3, 0.6)), (200, 100)) == ObjectSize(
        pytest.approx(0.4), pytest.approx(0.4), pytest.approx(1.0)
    )
    assert object_size(Shape(0, (0.1, 0.2, 0.1, 0.6)), (200, 100)) is None
