"""What a detector finds again in an edit, and what is new."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.checks.detections import (
    Detection,
    match,
    measure_detections,
    new_objects,
    on_labels,
    overlap,
    recall,
    relative_recall,
)
from diffgen.dataset.labels import Shape
from tests.checks.scenes import SCENE, SIZE


def detect(pixels: np.ndarray) -> list[Detection]:
    """Finds a thing in each cell of a 4 × 3 grid that is not flat; its class is the column."""
    height, width = pixels.shape[:2]
    found = []
    for x in range(4):
        for y in range(3):
            cell = pixels[y * height // 3 : (y + 1) * height // 3, x * width // 4 : (x + 1) * width // 4]
            if cell.std() > 3:
                found.append(Detection(x, min(1.0, float(cell.std()) / 60), (x / 4, y / 3, (x + 1) / 4, (y + 1) / 3)))
    return found


def shifted(boxes: list[Detection], dx: float) -> list[Detection]:
    return [Detection(b.class_id, b.score, (b.box[0] + dx, b.box[1], b.box[2] + dx, b.box[3])) for b in boxes]


def mirrored(boxes: list[Detection]) -> list[Detection]:
    return [Detection(b.class_id, b.score, (1 - b.box[2], b.box[1], 1 - b.box[0], b.box[3])) for b in boxes]


def test_a_copy_has_a_recall_of_one_and_nothing_new() -> None:
    reference = detect(SCENE)
    assert len(reference) > 6
    assert recall(relative_recall(reference, detect(SCENE.copy()), SIZE)) == 1.0
    assert new_objects(reference, detect(SCENE.copy()), []) == []


def test_an_emptied_picture_has_a_recall_of_zero() -> None:
    assert recall(relative_recall(detect(SCENE), detect(np.full_like(SCENE, 120)), SIZE)) == 0.0


@pytest.mark.parametrize("move", [lambda b: shifted(b, 0.1), mirrored, lambda b: shifted(b, -0.2)])
def test_boxes_that_moved_are_not_found(move: Callable[[list[Detection]], list[Detection]]) -> None:
    reference = detect(SCENE)
    assert recall(relative_recall(reference, move(reference), SIZE)) == 0.0


def test_without_boxes_there_is_no_recall() -> None:
    assert recall(relative_recall([], detect(SCENE), SIZE)) is None


A, B = (0.1, 0.1, 0.3, 0.3), (0.12, 0.1, 0.32, 0.3)  # IoU .82

# (name, reference, made, found)
MATCHES: list[tuple[str, list[Detection], list[Detection], list[bool]]] = [
    ("another class", [Detection(0, 0.9, A)], [Detection(1, 0.9, A)], [False]),
    ("near enough", [Detection(0, 0.9, A)], [Detection(0, 0.3, B)], [True]),
    ("at the threshold", [Detection(0, 0.9, (0, 0, 0.5, 0.5))], [Detection(0, 0.9, (0, 0, 0.5, 0.25))], [True]),
    ("a made box serves once", [Detection(0, 0.9, A), Detection(0, 0.8, B)], [Detection(0, 0.9, A)], [True, False]),
    (
        "two for two",
        [Detection(0, 0.9, A), Detection(0, 0.8, B)],
        [Detection(0, 0.9, B), Detection(0, 0.8, A)],
        [True, True],
    ),
    ("the surer one chooses first", [Detection(0, 0.9, A)], [Detection(0, 0.3, A), Detection(0, 0.9, B)], [True]),
    (
        "a box without area",
        [Detection(0, 0.9, (0.2, 0.2, 0.2, 0.4))],
        [Detection(0, 0.9, (0.2, 0.2, 0.2, 0.4))],
        [False],
    ),
    ("nothing", [], [], []),
]


@pytest.mark.parametrize(("reference", "made", "found"), [m[1:] for m in MATCHES], ids=[m[0] for m in MATCHES])
def test_match(reference: list[Detection], made: list[Detection], found: list[bool]) -> None:
    assert match(reference, made) == found


SIDES = st.tuples(*[st.integers(0, 15)] * 2, *[st.integers(1, 16)] * 2)
BOXES = st.lists(
    st.builds(
        lambda c, s, b: Detection(c, s, (b[0] / 16, b[1] / 16, min(16, b[0] + b[2]) / 16, min(16, b[1] + b[3]) / 16)),
        st.integers(0, 1),
        st.floats(0.25, 1),
        SIDES,
    ),
    max_size=8,
)


@given(BOXES, BOXES)
def test_promises_of_matching(reference: list[Detection], made: list[Detection]) -> None:
    found = match(reference, made)
    assert len(found) == len(reference)
    assert sum(found) <= len(made)
    assert sum(match(reference, made, 0.7)) <= len(reference)
    assert sum(match(reference, [])) == 0
    assert all(match(reference, reference))
    assert set(new_objects(reference, made, [])) <= set(made)
    assert new_objects(reference, reference, []) == []
    assert new_objects([], reference, [Shape(7, box.box) for box in reference]) == []


@given(BOXES, BOXES)
def test_promises_of_labelled_objects(found: list[Detection], labels: list[Detection]) -> None:
    shapes = [Shape(7, box.box) for box in labels]
    rows = on_labels(found, shapes)
    assert list(rows) == sorted(rows)
    assert all(overlap(shapes[row].box, box.box)[0] >= 0.5 for row, box in rows.items())
    assert len({id(box) for box in rows.values()}) == len(rows), "a detection is one object"
    again = on_labels([box for box in found if not any(box is other for other in rows.values())], shapes)
    assert not set(again) - set(rows), "no object is left without a detection that was free"
    assert set(on_labels([Detection(0, 0.5, shape.box) for shape in shapes], shapes)) == set(range(len(shapes)))


def test_the_nearest_detection_is_the_object_s() -> None:
    a, b = (0.1, 0.1, 0.3, 0.3), (0.12, 0.1, 0.32, 0.3)
    shapes = [Shape(0, b), Shape(0, a), Shape(1, (0.8, 0.8, 0.9, 0.9))]
    assert on_labels([Detection(0, 0.4, a), Detection(5, 0.9, b)], shapes) == {
        0: Detection(5, 0.9, b), 1: Detection(0, 0.4, a),
    }  # fmt: skip


def test_an_object_that_is_found_under_another_class_is_there() -> None:
    car, truck = Detection(2, 0.6, A), Detection(7, 0.6, A)
    facts = measure_detections([truck, Detection(9, 0.9, (0.8, 0.8, 0.9, 0.9))], [car], [], [Shape(0, A)], (100, 100))
    assert (facts["found_rows"], facts["found"], facts["found_matched"]) == ([0], [True], [False])


def test_recall_by_size() -> None:
    boxes = [Detection(0, 0.9, (0, 0, side / 1000, side / 500)) for side in (31, 33, 95, 97)]
    facts = relative_recall(boxes, boxes[1:3], (1000, 500))
    assert facts["found_px"] == [31.0, 33.0, 95.0, 97.0]
    assert [recall(facts, size) for size in ("small", "medium", "large")] == [0.0, 1.0, 0.0]
    assert recall(facts) == 0.5


# (name, made box, is it new beside a reference box A and a label at (.6, .6, .9, .9))
NEW: list[tuple[str, Detection, bool]] = [
    ("somewhere else", Detection(5, 0.8, (0.4, 0.1, 0.5, 0.3)), True),
    ("unsure", Detection(5, 0.49, (0.4, 0.1, 0.5, 0.3)), False),
    ("what was there", Detection(0, 0.8, B), False),
    ("what was there by another name", Detection(5, 0.8, B), False),
    ("a label the detector missed", Detection(0, 0.8, (0.62, 0.6, 0.9, 0.9)), False),
    ("a part of a label", Detection(0, 0.8, (0.7, 0.7, 0.75, 0.75)), False),
    ("half over the edge of a label", Detection(0, 0.8, (0.85, 0.7, 0.95, 0.75)), True),
    ("a thing around a label", Detection(0, 0.8, (0.35, 0.35, 1.0, 1.0)), True),
]


@pytest.mark.parametrize(("box", "new"), [n[1:] for n in NEW], ids=[n[0] for n in NEW])
def test_new_objects(box: Detection, new: bool) -> None:
    assert new_objects([Detection(0, 0.9, A)], [box], [Shape(0, (0.6, 0.6, 0.9, 0.9))]) == ([box] if new else [])
