"""Comparing a detector's output on the source and on the edit: recall and new objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from diffgen.dataset.labels import Shape


@dataclass(frozen=True, slots=True)
class Detection:
    """One detection. `box` is x0, y0, x1, y1 as fractions of the picture's width and height; `score` is 0 to 1."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]


COCO_SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, math.inf)}  # px, square root of the area

# Detections near a threshold flicker: saving as JPEG of quality 95 alone loses 5 % of 237 boxes. As in Canny's hysteresis
# (1986), there are two thresholds: one to count as an object in the source, a lower one to count as found again. At half the
# confidence, quality 95 keeps .98 and quality 75 keeps .97; of 90 objects that were painted over, one is "found"
# (scripts/bench/recall.py).
CONFIDENT = 0.25  # minimum score of an object in the source
FOUND_AGAIN = 0.125  # minimum score of its counterpart in the edit

F = TypeVar("F", bound=Detection)


def confident(boxes: Sequence[F]) -> list[F]:
    """The boxes with a score of at least CONFIDENT."""
    return [box for box in boxes if box.score >= CONFIDENT]


def match(
    reference: Sequence[Detection], detections: Sequence[Detection], iou: float = 0.5, same_class: bool = True
) -> list[bool]:
    """For each reference box, whether a detection (of its class) overlaps it by at least `iou` (0 to 1).

    Greedy as in COCO's evaluation: in order of falling score, each detection takes the unmatched reference box that it
    overlaps most. A detection matches at most one box.
    """
    found = [False] * len(reference)
    for box in sorted(detections, key=lambda box: -box.score):
        free = [
            i
            for i, other in enumerate(reference)
            if not found[i] and (other.class_id == box.class_id or not same_class)
        ]
        best = max(free, key=lambda i: overlap(reference[i].box, box.box)[0], default=None)
        if best is not None and overlap(reference[best].box, box.box)[0] >= iou:
            found[best] = True
    return found


def relative_recall(
    reference: Sequence[Detection], detections: Sequence[Detection], size: tuple[int, int], iou: float = 0.5
) -> dict[str, Any]:
    """Which of the detector's objects in the source it finds again in another picture. `size` is width, height in px.

    Keys: `found` (see `match`) and `found_px` (per reference box the square root of its area, px). The reference is the
    detector's own output, not the labels: what it misses in the source says nothing about the edit. Pass the `confident`
    boxes of the source and all detections down to FOUND_AGAIN.
    """
    sides = [math.sqrt(_area(box.box) * size[0] * size[1]) for box in reference]
    return {"found": match(reference, detections, iou), "found_px": [round(side, 1) for side in sides]}


def recall(facts: Mapping[str, Any], size: str | None = None) -> float | None:
    """The share found (0 to 1) from the facts of `relative_recall`, for one of COCO_SIZES or all. None without boxes."""
    least, below = COCO_SIZES[size] if size else (0.0, math.inf)
    found = [hit for hit, side in zip(facts["found"], facts["found_px"], strict=True) if least <= side < below]
    return sum(found) / len(found) if found else None


def new_objects(
    reference: Sequence[Detection], detections: Sequence[F], labels: Sequence[Shape], confidence: float = 0.5
) -> list[F]:
    """Detections in the edit with a score of at least `confidence` where the source had nothing: hallucinations.

    A detection is new if no reference box and no label `covers` it. Classes do not count: a truck that is now called a bus
    is a box not found again, not a new one.
    """
    known = [*(box.box for box in reference), *(shape.box for shape in labels)]
    return [d for d in detections if d.score >= confidence and not any(covers(other, d.box) for other in known)]


def _area(box: tuple[float, float, float, float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> tuple[float, float]:
    """(IoU, share of b inside a), 0 to 1 each."""
    both = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    area = _area(b)
    return (both / (_area(a) + area - both), both / area) if both > 0 else (0.0, 0.0)


def covers(known: tuple[float, float, float, float], box: tuple[float, float, float, float]) -> bool:
    """Whether `box` may show the object at `known` or a part of it: IoU of at least .3, or more than .7 of it inside."""
    iou, inside = overlap(known, box)
    return iou >= 0.3 or inside > 0.7


def on_labels(detections: Sequence[F], shapes: Sequence[Shape], iou: float = 0.5) -> dict[int, F]:
    """The detection of each labelled object, by label row, without those that have none. Each object takes the free
    detection that it overlaps most, if by at least `iou`; those that overlap most choose first. Classes do not count: the
    label says what the object is."""
    pairs = [
        (overlap(shape.box, box.box)[0], row, i) for row, shape in enumerate(shapes) for i, box in enumerate(detections)
    ]
    rows: dict[int, int] = {}
    for value, row, i in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        if value >= iou and row not in rows and i not in rows.values():
            rows[row] = i
    return {row: detections[rows[row]] for row in sorted(rows)}


def measure_detections(
    source: Sequence[Detection],
    edited: Sequence[Detection],
    matched: Sequence[Detection],
    shapes: Sequence[Shape],
    size: tuple[int, int],
) -> dict[str, Any]:
    """The facts of a detector's boxes in the source, in the edit, and in `matched`, the edit at the source's brightness.

    Of the labelled objects that it finds in the source: `found_rows` (their places in `shapes`), `found` and `found_matched`
    (whether the edit or its matched copy has it, under whatever class), `found_px` (side of its box, px). And `new_objects`
    (how many): where the source has neither label nor detection.
    """
    labelled = on_labels(source, shapes)
    reference = list(labelled.values())
    sides = [math.sqrt(_area(box.box) * size[0] * size[1]) for box in reference]
    return {
        "found_rows": list(labelled),
        "found": match(reference, edited, same_class=False),
        "found_matched": match(reference, matched, same_class=False),
        "found_px": [round(side, 1) for side in sides],
        "new_objects": len(new_objects(source, edited, shapes)),
    }


def judged_recall(facts: Mapping[str, Any], size: str | None = None) -> float | None:
    """The value compared with `checks.recall`: of the labelled objects that the detector finds in the source, the share
    (0 to 1) that it also finds in the edit or in its matched copy.

    A detector trained by day misses real objects at night, and those are the valuable ones. The copy at the source's
    brightness shows that they are still there. None without a detector, or if it found no labelled object in the source.
    `size` is one of COCO_SIZES.
    """
    if "found" not in facts:
        return None
    either = [a or b for a, b in zip(facts["found"], facts["found_matched"], strict=True)]
    return recall({"found": either, "found_px": facts["found_px"]}, size)
