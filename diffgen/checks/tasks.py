"""What a task removes, inserts and keeps, as facts; and whether it succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from diffgen.checks.detections import Detection, confident, covers, overlap
from diffgen.dataset.geometry import Canvas
from diffgen.dataset.labels import Shape, box_row
from diffgen.dataset.masks import Mask, filled
from diffgen.types import Job, Settings

SAME_PLACE = 0.5  # IoU from which a detection is the inserted object, or the one that should be gone
MIN_PAINTED = 0.75  # of an object to remove; with less, because other objects overlap it, much of the object stays

F = TypeVar("F", bound=Detection)


def removed_rows(classes: Sequence[int], settings: Settings) -> list[int]:
    """The label rows, from 0, whose objects the task removes. `classes` is the class id of each row."""
    if settings.task != "remove":
        return []
    return [row for row, class_id in enumerate(classes) if settings.classes is None or class_id in settings.classes]


def labelled_classes(classes: Sequence[int], settings: Settings) -> set[int]:
    """The classes that are labelled after the edit. `classes` is the class id of each row before it."""
    removed = removed_rows(classes, settings)
    inserted = settings.classes or () if settings.task == "insert" else ()
    return {class_id for row, class_id in enumerate(classes) if row not in removed} | set(inserted)


def _removed(shapes: Sequence[Shape], job: Job) -> list[int]:
    return removed_rows([shape.class_id for shape in shapes], job.settings)


def painted_shapes(shapes: Sequence[Shape], job: Job) -> list[Shape]:
    """The objects that a task removes or inserts."""
    if job.place is not None and job.settings.classes:
        return [Shape(job.settings.classes[0], job.place)]
    return [shapes[i] for i in _removed(shapes, job)]


def kept_shapes(shapes: Sequence[Shape], job: Job) -> list[Shape]:
    """The objects of the source that the task leaves."""
    removed = _removed(shapes, job)
    return [shape for i, shape in enumerate(shapes) if i not in removed]


def measure_task(shapes: Sequence[Shape], job: Job, mask: Mask, canvas: Canvas) -> dict[str, Any]:
    """The facts of a task.

    `task` always. For `remove`: the rows `removed`, and `painted`, the share of each object that `mask` (of the canvas's
    size) covers. For `insert`: `added`, class id and box.
    """
    facts: dict[str, Any] = {"task": job.settings.task}
    if job.place is not None and job.settings.classes:
        return {**facts, "added": {"class": job.settings.classes[0], "box": list(job.place)}}
    if rows := _removed(shapes, job):
        objects = [filled([shapes[i]], canvas) for i in rows]
        shares = [float((mask[inside] > 0).mean()) if inside.any() else 1.0 for inside in objects]
        facts |= {"removed": rows, "painted": [round(share, 3) for share in shares]}
    return facts


def expected(detections: Sequence[F], shapes: Sequence[Shape], job: Job) -> list[F]:
    """The detections of the source that should be found again: those that the task does not paint over."""
    if job.settings.task == "background":
        return [d for d in detections if any(covers(shape.box, d.box) for shape in shapes)]
    painted = painted_shapes(shapes, job)
    return [d for d in detections if not any(covers(shape.box, d.box) for shape in painted)]


def labelled(shapes: Sequence[Shape], job: Job) -> list[Shape]:
    """The objects that are labelled after the edit."""
    return kept_shapes(shapes, job) + (painted_shapes(shapes, job) if job.settings.task == "insert" else [])


def measure_task_detections(
    shapes: Sequence[Shape], job: Job, edited: Sequence[Detection], known: Mapping[int, int]
) -> dict[str, Any]:
    """The detector's facts about a task. `known` maps the dataset's class ids to the detector's.

    For `remove`: `still`, per removed row the best IoU of a detection of its class at any score (None: the detector does not
    know the class). For `insert`: `confirmed`, the `iou`, `score` and `box` of the confident detection of the class that
    overlaps the place most; None if there is none.
    """
    if job.settings.task == "remove":
        still = []
        for shape in painted_shapes(shapes, job):
            best = _nearest(shape, edited, known)
            still.append(None if shape.class_id not in known else round(best[0], 3) if best else 0.0)
        return {"still": still}
    if job.settings.task != "insert":
        return {}
    best = _nearest(painted_shapes(shapes, job)[0], confident(edited), known)
    if best is None:
        return {"confirmed": None}
    iou, box = best
    corners = [round(value, 6) for value in box.box]
    return {"confirmed": {"iou": round(iou, 3), "score": round(box.score, 3), "box": corners}}


def _nearest(shape: Shape, edited: Sequence[Detection], known: Mapping[int, int]) -> tuple[float, Detection] | None:
    """(IoU, detection) of the shape's class with the highest IoU."""
    same = [(overlap(shape.box, box.box)[0], box) for box in edited if box.class_id == known.get(shape.class_id)]
    return max(same, key=lambda pair: pair[0], default=None)


def still_there(facts: Mapping[str, Any]) -> bool:
    """Whether an object that should be removed is still in the picture, by the recorded facts."""
    ious = (iou for iou in facts.get("still", ()) if iou is not None)
    return any(share < MIN_PAINTED for share in facts.get("painted", ())) or any(iou >= SAME_PLACE for iou in ious)


def confirmed(facts: Mapping[str, Any]) -> bool:
    """Whether the detector saw the inserted object in its place; True if nothing was inserted."""
    detection = facts.get("confirmed")
    return "added" not in facts or (detection is not None and bool(detection["iou"] >= SAME_PLACE))


def added_row(facts: Mapping[str, Any], outlined: bool) -> str | None:
    """The label row of the inserted object, None without one. Prefers the detector's box, which fits the object better than
    the requested place."""
    if "added" not in facts:
        return None
    added = facts["added"]
    return box_row(added["class"], tuple((facts.get("confirmed") or added)["box"]), outlined)
