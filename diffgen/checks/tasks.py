"""What a task removes, inserts and leaves, as facts, and whether it came true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from diffgen.checks.detections import Detection, covers, overlap, sure
from diffgen.dataset.geometry import Canvas
from diffgen.dataset.labels import Shape, box_row
from diffgen.dataset.masks import Mask, filled
from diffgen.types import Job, Settings

SAME_PLACE = 0.5  # IoU from which a detection is the object that was painted in, or should have been painted out
LEAST_PAINTED = 0.75  # of an object to be removed; what other objects hide of it stays, and so would the object

F = TypeVar("F", bound=Detection)


def removed_rows(classes: Sequence[int], settings: Settings) -> list[int]:
    """The label rows, from 0, whose objects the task paints out, by the class id of each row."""
    if settings.task != "remove":
        return []
    return [row for row, class_id in enumerate(classes) if settings.classes is None or class_id in settings.classes]


def labelled_classes(classes: Sequence[int], settings: Settings) -> set[int]:
    """The classes that are labelled after the edit, by the class id of each row before it."""
    gone = set(removed_rows(classes, settings))
    inserted = settings.classes or () if settings.task == "insert" else ()
    return {class_id for row, class_id in enumerate(classes) if row not in gone} | set(inserted)


def _removed(shapes: Sequence[Shape], job: Job) -> list[int]:
    return removed_rows([shape.class_id for shape in shapes], job.settings)


def painted_shapes(shapes: Sequence[Shape], job: Job) -> list[Shape]:
    """The objects that a task paints out, or in."""
    if job.place is not None and job.settings.classes:
        return [Shape(job.settings.classes[0], job.place)]
    return [shapes[i] for i in _removed(shapes, job)]


def kept_shapes(shapes: Sequence[Shape], job: Job) -> list[Shape]:
    gone = set(_removed(shapes, job))
    return [shape for i, shape in enumerate(shapes) if i not in gone]


def measure_task(shapes: Sequence[Shape], job: Job, mask: Mask, canvas: Canvas) -> dict[str, Any]:
    """What was done, as facts: `task`; of `remove` the rows `removed` and the share of each that was `painted` (`mask` is
    that of the canvas's size); of `insert` what was `added`: class id and box."""
    facts: dict[str, Any] = {"task": job.settings.task}
    if job.place is not None and job.settings.classes:
        return {**facts, "added": {"class": job.settings.classes[0], "box": list(job.place)}}
    if rows := _removed(shapes, job):
        own = [filled([shapes[i]], canvas) for i in rows]
        shares = [float((mask[inside] > 0).mean()) if inside.any() else 1.0 for inside in own]
        facts |= {"removed": rows, "painted": [round(share, 3) for share in shares]}
    return facts


def expected(found: Sequence[F], shapes: Sequence[Shape], job: Job) -> list[F]:
    """Of what a detector found in the source, what it should find again: not what was painted over."""
    if job.settings.task == "background":
        return [box for box in found if any(covers(shape.box, box.box) for shape in shapes)]
    over = painted_shapes(shapes, job)
    return [box for box in found if not any(covers(shape.box, box.box) for shape in over)]


def labelled(shapes: Sequence[Shape], job: Job) -> list[Shape]:
    """The objects that are labelled after the edit."""
    return kept_shapes(shapes, job) + (painted_shapes(shapes, job) if job.settings.task == "insert" else [])


def measure_task_detections(
    shapes: Sequence[Shape], job: Job, edited: Sequence[Detection], known: Mapping[int, int]
) -> dict[str, Any]:
    """What a detector says of the task. `known` is class id of the dataset -> of the detector, where it has it by name.

    Keys: of `remove` `still`, for each removed row the best IoU of a detection of its class, unsure ones too (None: a class
    that the detector does not know); of `insert` `confirmed`, the sure detection of the class nearest to the place: `iou`,
    `score`, `box`; or None.
    """
    if job.settings.task == "remove":
        still = []
        for shape in painted_shapes(shapes, job):
            best = _nearest(shape, edited, known)
            still.append(None if shape.class_id not in known else round(best[0], 3) if best else 0.0)
        return {"still": still}
    if job.settings.task != "insert":
        return {}
    best = _nearest(painted_shapes(shapes, job)[0], sure(edited), known)
    if best is None:
        return {"confirmed": None}
    iou, box = best
    corners = [round(value, 6) for value in box.box]
    return {"confirmed": {"iou": round(iou, 3), "score": round(box.score, 3), "box": corners}}


def _nearest(shape: Shape, edited: Sequence[Detection], known: Mapping[int, int]) -> tuple[float, Detection] | None:
    same = [(overlap(shape.box, box.box)[0], box) for box in edited if box.class_id == known.get(shape.class_id)]
    return max(same, key=lambda pair: pair[0], default=None)


def still_there(facts: Mapping[str, Any]) -> bool:
    """Whether an object that was to be removed is in the picture, as far as the facts tell."""
    seen = (iou for iou in facts.get("still", ()) if iou is not None)
    return any(share < LEAST_PAINTED for share in facts.get("painted", ())) or any(iou >= SAME_PLACE for iou in seen)


def confirmed(facts: Mapping[str, Any]) -> bool:
    """Whether a detector saw what was inserted where it should be; True where nothing was."""
    found = facts.get("confirmed")
    return "added" not in facts or (found is not None and bool(found["iou"] >= SAME_PLACE))


def added_row(facts: Mapping[str, Any], outlined: bool) -> str | None:
    """The label row of what was painted in: the detector's box, which is nearer to the object than the place it was asked
    for. None where nothing was."""
    if "added" not in facts:
        return None
    added = facts["added"]
    return box_row(added["class"], tuple((facts.get("confirmed") or added)["box"]), outlined)
