"""Labels that a detector gives to a picture made from noise: what it found, as facts, and the rows that follow. Pure.

A worker records what was found from a low confidence on; which of it becomes a label row is decided when the dataset is
written, so that the threshold can be changed without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from diffgen.checks.detections import Detection, overlap
from diffgen.dataset.labels import Shape, box_row

MOST_FOUND = 100  # recorded of one picture, the surest
SAME_OBJECT = 0.5  # IoU from which two detections of one class are one object

F = TypeVar("F", bound=Detection)


def measure_text2img_detections(found: Sequence[Detection], known: Mapping[int, int]) -> dict[str, Any]:
    """The fact `detections`: of each box its class id of the dataset, score, and x0, y0, x1, y1, the surest first.

    `known` is class id of the dataset -> of the detector; what the detector finds besides is no class of the dataset.
    """
    ours = {theirs: class_id for class_id, theirs in known.items()}
    boxes = sorted((box for box in found if box.class_id in ours), key=lambda box: -box.score)[:MOST_FOUND]
    return {
        "detections": [
            [ours[box.class_id], round(box.score, 4), *(round(value, 6) for value in box.box)] for box in boxes
        ]
    }


def without_doubles(found: Sequence[F], iou: float = SAME_OBJECT) -> list[F]:
    """The surest of detections of one class that overlap by `iou` or more (greedy non-maximum suppression)."""
    kept: list[F] = []
    for box in sorted(found, key=lambda box: -box.score):
        if all(other.class_id != box.class_id or overlap(other.box, box.box)[0] < iou for other in kept):
            kept.append(box)
    return kept


def is_text2img(facts: Mapping[str, Any]) -> bool:
    """Whether these are facts of a picture made from noise."""
    return "asked" in facts


def labelled_detections(facts: Mapping[str, Any], confidence: float) -> tuple[list[Shape], list[float]]:
    """The objects that are labelled from `confidence` (0 to 1) on, the surest first, and the confidence of each."""
    sure = [row for row in facts.get("detections", ()) if row[1] >= confidence]
    return [Shape(row[0], (row[2], row[3], row[4], row[5])) for row in sure], [float(row[1]) for row in sure]


def label_rows(facts: Mapping[str, Any], confidence: float) -> tuple[str, ...]:
    """YOLO rows of the same objects."""
    return tuple(box_row(shape.class_id, shape.box, False) for shape in labelled_detections(facts, confidence)[0])


def lacks_its_class(facts: Mapping[str, Any], confidence: float) -> bool:
    """Whether a picture was asked for an object of a class that no label row is of."""
    return is_text2img(facts) and facts["asked"] not in {
        shape.class_id for shape in labelled_detections(facts, confidence)[0]
    }
