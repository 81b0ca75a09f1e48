"""What a detector finds again in the edit of what it found in the source, and what is new."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from diffgen.dataset.labels import Shape


@dataclass(frozen=True, slots=True)
class Detection:
    """One detection. `box` is x0, y0, x1, y1 in shares (0 to 1) of the picture's width and height; `score` is 0 to 1."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]


COCO_SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, math.inf)}  # px, square root of the area

# A detector's confidence near its threshold comes and goes with a JPEG of quality 95 (.95 of 237 boxes found again). So, as
# for Canny's edges (1986), one threshold to be an object and a lower one to be still there. At half the confidence a quality
# of 95 leaves .98, of 75 .97, and of objects that were painted over 1 of 90 is "found" (scripts/bench/recall.py).
SURE = 0.25  # from this confidence on, what is found in a source is an object
AGAIN = 0.125  # from this one on, it is found again

F = TypeVar("F", bound=Detection)


def sure(boxes: Sequence[F]) -> list[F]:
    """The boxes of a score of SURE or more."""
    return [box for box in boxes if box.score >= SURE]


def match(reference: Sequence[Detection], made: Sequence[Detection], iou: float = 0.5) -> list[bool]:
    """For each reference box: is it found again? By a made box of its class that overlaps it by `iou` (0 to 1) or more.

    Greedy as in COCO's evaluation: made boxes from the highest score down, each takes the free reference box that it
    overlaps most, and serves once.
    """
    found = [False] * len(reference)
    for box in sorted(made, key=lambda box: -box.score):
        free = [i for i, other in enumerate(reference) if not found[i] and other.class_id == box.class_id]
        best = max(free, key=lambda i: overlap(reference[i].box, box.box)[0], default=None)
        if best is not None and overlap(reference[best].box, box.box)[0] >= iou:
            found[best] = True
    return found


def relative_recall(
    reference: Sequence[Detection], made: Sequence[Detection], size: tuple[int, int], iou: float = 0.5
) -> dict[str, Any]:
    """What a detector finds again of what it found in the source, object by object; `size` is width, height in px.

    Keys: `found` (as `match`) and `found_px` (side of each reference box: the square root of its area, px). Relative to
    the detector itself and not to the labels: what it misses in the source says nothing about the edit. `reference` should
    be `sure`, `made` down to AGAIN.
    """
    sides = [math.sqrt(_area(box.box) * size[0] * size[1]) for box in reference]
    return {"found": match(reference, made, iou), "found_px": [round(side, 1) for side in sides]}


def recall(facts: Mapping[str, Any], size: str | None = None) -> float | None:
    """The share found (0 to 1) by the facts of `relative_recall`, of all or of one of COCO_SIZES; None without boxes."""
    least, below = COCO_SIZES[size] if size else (0.0, math.inf)
    found = [hit for hit, side in zip(facts["found"], facts["found_px"], strict=True) if least <= side < below]
    return sum(found) / len(found) if found else None


def new_objects(
    reference: Sequence[Detection], made: Sequence[F], labels: Sequence[Shape], confident: float = 0.5
) -> list[F]:
    """Boxes of the edited picture with a score of `confident` or more where there was nothing: hallucinations.

    Nothing: IoU below .3 with every reference box and label, and no more than .7 of the new box inside any of them, of
    whatever class (a truck now called a bus is a box not found again, not a new one).
    """
    known = [*(box.box for box in reference), *(shape.box for shape in labels)]
    return [box for box in made if box.score >= confident and not any(covers(other, box.box) for other in known)]


def _area(box: tuple[float, float, float, float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> tuple[float, float]:
    """(IoU, share of b inside a)."""
    both = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    own = _area(b)
    return (both / (_area(a) + own - both), both / own) if both > 0 else (0.0, 0.0)


def covers(known: tuple[float, float, float, float], box: tuple[float, float, float, float]) -> bool:
    """Whether `box` may be the thing at `known`, or a part of it."""
    iou, inside = overlap(known, box)
    return iou >= 0.3 or inside > 0.7


def measure_detections(
    source: Sequence[Detection],
    edited: Sequence[Detection],
    matched: Sequence[Detection],
    shapes: Sequence[Shape],
    size: tuple[int, int],
) -> dict[str, Any]:
    """What a detector finds in the source, in the edit, and in the edit brought to the source's brightness.

    Keys: `found`, `found_matched` and `found_px` (one entry per box of the source: found again, its side in pixels),
    `new_objects` (how many confident boxes of the edit lie where nothing was).
    """
    plain = relative_recall(source, edited, size)
    return {
        **plain,
        "found_matched": relative_recall(source, matched, size)["found"],
        "new_objects": len(new_objects(source, edited, shapes)),
    }


def judged_recall(facts: Mapping[str, Any], size: str | None = None) -> float | None:
    """The number that `checks.recall` is held against: the share of the detector's objects found in either look.

    A detector trained by day misses true objects at night, which are the ones worth having; the copy brought to the
    source's brightness shows that they are still there. None without a detector, or where it found nothing; `size` is one
    of `facts.COCO_SIZES`.
    """
    if "found" not in facts:
        return None
    either = [a or b for a, b in zip(facts["found"], facts["found_matched"], strict=True)]
    return recall({"found": either, "found_px": facts["found_px"]}, size)
