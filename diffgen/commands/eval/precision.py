"""Average precision as COCO has it, from boxes that are matched once and may then be counted with any weight per picture.

The same numbers as pycocotools (a test holds them to 1e-6), but a bootstrap over pictures costs milliseconds a draw. What
needs no bootstrap, the precision by size, is pycocotools' own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

IOUS = np.linspace(0.5, 0.95, 10)
AT_HALF, EVERY = slice(0, 1), slice(None)  # of IOUS
_RECALLS = np.linspace(0, 1, 101)
MOST = 100  # detections of a class in a picture that count, those of highest score


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of one picture: `corners` (n, 4) are x0, y0, x1, y1 in pixels, `classes` (n,) ids, `scores` (n,) 0 to 1."""

    corners: Array
    classes: NDArray[np.int64]
    scores: Array

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> Boxes:
        """From rows of class id, score, x0, y0, x1, y1."""
        table = np.asarray(rows, float).reshape(-1, 6)
        return cls(table[:, 2:], table[:, 0].astype(np.int64), table[:, 1])


@dataclass(frozen=True, slots=True)
class Matched:
    """One class over a set of pictures. Detections in order of falling score: the `picture` (n,) each is in, its `scores`,
    and whether it is right at each of IOUS (10, n). `truths` (pictures,) counts the objects of each picture."""

    picture: NDArray[np.int64]
    scores: Array
    right: NDArray[np.bool_]
    truths: NDArray[np.int64]

    def precision(self, weights: Array | None = None, ious: slice = EVERY) -> Array:
        """Average precision at some of IOUS; NaN without objects. `weights` (pictures,): how often each counts."""
        right = self.right[ious]
        if weights is None:
            weights = np.ones(len(self.truths))
        objects = float(weights @ self.truths)
        if not objects:
            return np.full(len(right), np.nan)
        each = weights[self.picture]
        hits = np.cumsum(each * right, 1)
        recall = hits / objects
        exact = hits / np.maximum(np.cumsum(each), np.spacing(1))
        envelope = np.maximum.accumulate(exact[:, ::-1], 1)[:, ::-1]
        found = np.zeros(len(right))
        for i, row in enumerate(recall):
            at = np.searchsorted(row, _RECALLS, side="left")
            found[i] = envelope[i][at[at < len(row)]].sum() / len(_RECALLS)
        return found

    def at_recall(self, recall: float) -> float | None:
        """Wrong detections a picture, at IoU .5, from the score on at which so much is found; None if it never is."""
        objects = int(self.truths.sum())
        hits = np.cumsum(self.right[0])
        reached = np.flatnonzero(hits >= recall * objects - 1e-9)
        if not objects or not len(reached):
            return None
        return float((reached[0] + 1 - hits[reached[0]]) / len(self.truths))

    def recall(self, score: float) -> float:
        """The share found at IoU .5 by detections with at least this score."""
        return float(self.right[0][self.scores >= score].sum() / max(1, self.truths.sum()))


def match_class(truths: Sequence[Boxes], detections: Sequence[Boxes], class_id: int) -> Matched:
    """Matches the boxes of a class, picture by picture, as COCO does: each detection, best first, takes the free object that
    it overlaps most."""
    pictures, scores, rights = [], [], []
    for i, (true, seen) in enumerate(zip(truths, detections, strict=True)):
        objects = true.corners[true.classes == class_id]
        mine = np.flatnonzero(seen.classes == class_id)
        mine = mine[np.argsort(-seen.scores[mine], kind="stable")][:MOST]
        pictures.append(np.full(len(mine), i))
        scores.append(seen.scores[mine])
        rights.append(_match(overlaps(seen.corners[mine], objects)))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return Matched(
        np.concatenate(pictures)[order].astype(np.int64),
        np.concatenate(scores)[order],
        np.concatenate(rights, 1)[:, order],
        np.array([int((true.classes == class_id).sum()) for true in truths]),
    )


def overlaps(first: Array, second: Array) -> Array:
    """IoU of each box with each, (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return np.asarray(both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-12))


def _match(iou: Array) -> NDArray[np.bool_]:
    """(10, n): whether each detection, in order, is right at each of IOUS."""
    right = np.zeros((len(IOUS), len(iou)), bool)
    for t, least in enumerate(IOUS):
        free = np.ones(iou.shape[1], bool)
        for d, row in enumerate(iou):
            best = -1
            least_now = min(float(least), 1 - 1e-10)
            for g in np.flatnonzero(free):  # the last of equals, as pycocotools
                if row[g] >= least_now:
                    least_now, best = float(row[g]), int(g)
            if best >= 0:
                free[best] = False
                right[t, d] = True
    return right


def mean_precision(matched: Mapping[int, Matched], weights: Array | None = None, ious: slice = AT_HALF) -> float:
    """The mean over the classes that have objects, and over some of IOUS. NaN without any object."""
    values = [one.precision(weights, ious).mean() for one in matched.values()]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def coco_figures(
    truths: Sequence[Boxes], detections: Sequence[Boxes], classes: Sequence[int]
) -> dict[str, dict[str, float | None]]:
    """pycocotools' own AP50 and AP50-95, of all objects and of small, medium and large ones; None without such objects."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "categories": [{"id": int(c)} for c in classes],
            "annotations": [dict(row, id=i, iscrowd=0) for i, row in enumerate(_coco_rows(truths, classes), 1)],
        }
        truth.createIndex()
        rows = list(_coco_rows(detections, classes))
        if not rows or not truth.dataset["annotations"]:
            return {}
        found = COCOeval(truth, truth.loadRes(rows), "bbox")
        found.evaluate()
        found.accumulate()
    precision = found.eval["precision"][:, :, :, :, 2]  # at most 100 detections: (IoU, recall, class, size)

    def mean(values: Array) -> float | None:
        known = values[values > -1]
        return round(float(known.mean()), 5) if known.size else None

    sizes = found.params.areaRngLbl
    return {size: {"ap50": mean(precision[0, :, :, i]), "ap": mean(precision[..., i])} for i, size in enumerate(sizes)}


def _coco_rows(pictures: Sequence[Boxes], classes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for i, boxes in enumerate(pictures):
        columns = (column.tolist() for column in (boxes.corners, boxes.classes, boxes.scores))
        for (x0, y0, x1, y1), c, score in zip(*columns, strict=True):
            if c in classes:
                box = [x0, y0, x1 - x0, y1 - y0]
                yield {"image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "score": score}
