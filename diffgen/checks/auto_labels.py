"""Labels for pictures made from noise, from a detector's output. Pure.

A worker records all detections from a low confidence on. Which of them become label rows is decided when the dataset is
written, so the threshold can change without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from diffgen.checks.detections import Detection, overlap
from diffgen.dataset.labels import Shape, box_row

MAX_DETECTIONS = 100  # recorded per picture, those of highest score
SAME_OBJECT = 0.5  # IoU from which two detections of one class are one object

F = TypeVar("F", bound=Detection)


def measure_text2img_detections(detections: Sequence[Detection], known: Mapping[int, int]) -> dict[str, Any]:
    """The fact `detections`: per box the dataset's class id, score, x0, y0, x1, y1; highest score first.

    `known` maps the dataset's class ids to the detector's. Detections of other classes are dropped.
    """
    dataset_id = {theirs: ours for ours, theirs in known.items()}
    kept = sorted((d for d in detections if d.class_id in dataset_id), key=lambda d: -d.score)[:MAX_DETECTIONS]
    return {
        "detections": [[dataset_id[d.class_id], round(d.score, 4), *(round(value, 6) for value in d.box)] for d in kept]
    }


def non_max_suppression(detections: Sequence[F], iou: float = SAME_OBJECT) -> list[F]:
    """The highest-scoring of detections of one class that overlap by `iou` or more (greedy). Highest score first."""
    kept: list[F] = []
    for box in sorted(detections, key=lambda box: -box.score):
        if all(other.class_id != box.class_id or overlap(other.box, box.box)[0] < iou for other in kept):
            kept.append(box)
    return kept


def is_text2img(facts: Mapping[str, Any]) -> bool:
    """Whether these are facts of a picture made from noise."""
    return "asked" in facts


def labelled_detections(facts: Mapping[str, Any], confidence: float) -> tuple[list[Shape], list[float]]:
    """(shapes, scores) of the detections with a score of at least `confidence` (0 to 1), highest score first."""
    rows = [row for row in facts.get("detections", ()) if row[1] >= confidence]
    return [Shape(row[0], (row[2], row[3], row[4], row[5])) for row in rows], [float(row[1]) for row in rows]


def label_rows(facts: Mapping[str, Any], confidence: float) -> tuple[str, ...]:
    """YOLO rows of the `labelled_detections`."""
    return tuple(box_row(shape.class_id, shape.box, False) for shape in labelled_detections(facts, confidence)[0])


def lacks_its_class(facts: Mapping[str, Any], confidence: float) -> bool:
    """Whether no label row of a picture made from noise has the class that its prompt names."""
    shapes, _ = labelled_detections(facts, confidence)
    return is_text2img(facts) and all(shape.class_id != facts["asked"] for shape in shapes)
