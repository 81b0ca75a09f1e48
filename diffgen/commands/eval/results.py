"""What the trainings of an evaluation come to: figures by arm, contrasts and verdicts, the share of the oracle's gap."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.checks.detectors.names import same_names
from diffgen.commands.eval.arms import CHECKED, ORACLE, REAL, RULES, UNCHECKED, TestSet
from diffgen.commands.eval.precision import AT_HALF, EVERY, Boxes, Matched, coco_figures, match_class, mean_precision
from diffgen.commands.eval.significance import Resamples, bca, holm, sign_flip, verdict
from diffgen.commands.eval.trainings import Bench, Training
from diffgen.dataset.labels import LabelSchema
from diffgen.output.schedule import PRETRAIN_FINETUNE

# Decided beforehand: the first is the question, and is tested alone. The others are corrected for their number.
PRIMARY = (CHECKED, REAL)
SECONDARY = (
    (CHECKED, RULES),
    (CHECKED, UNCHECKED),
    (RULES, REAL),
    (UNCHECKED, REAL),
    (ORACLE, REAL),
    (PRETRAIN_FINETUNE, REAL),
    (PRETRAIN_FINETUNE, CHECKED),
)
SIZES = ("small", "medium", "large")  # as COCO: a box under 32 px² of area, under 96², and larger
CONFIDENT = 0.25  # the score at which wrong detections are counted for the real arm


@dataclass(frozen=True)
class Tested:
    """The detectors of some arms over one test set. `truths` are by picture; `classes` are the ids that are measured."""

    test: TestSet
    truths: list[Boxes]
    classes: tuple[int, ...]
    arms: Mapping[str, list[dict[int, Matched]]]  # by seed, by class
    others: Mapping[str, list[dict[str, Any]]]  # by seed: pycocotools' figures by size, and Ultralytics' own

    def precision(self, arm: str, ious: slice = AT_HALF) -> list[float]:
        """Of each seed."""
        return [mean_precision(matched, ious=ious) for matched in self.arms[arm]]

    def difference(self, first: str, second: str, seeds: NDArray[np.int64], row: int) -> float:
        """Mean over the drawn seeds of AP50 of `first` less that of `second`; pictures weighted by a row of `resamples`."""
        scores = [np.mean([self._weighted(arm, int(seed), row) for seed in seeds]) for arm in (first, second)]
        return float(scores[0] - scores[1])

    def _weighted(self, arm: str, seed: int, row: int) -> float:
        """AP50, remembered: all contrasts draw the same weights."""
        key = (arm, seed, row)
        if key not in self._known:
            self._known[key] = mean_precision(self.arms[arm][seed], self.resamples.weights[row])
        return self._known[key]

    @cached_property
    def resamples(self) -> Resamples:
        return Resamples(len(self.truths))

    @cached_property
    def _known(self) -> dict[tuple[str, int, int], float]:
        return {}


def tested(
    bench: Bench, trainings: Sequence[Training], test: TestSet, schema: LabelSchema, classes: Sequence[int]
) -> Tested:
    """Match what the detectors found with the test set's labels, class by class."""
    truths = [
        truths_of(source.width, source.height, slot.label, schema)
        for source, slot in zip(test.sources, test.slots, strict=True)
    ]
    arms: dict[str, list[dict[int, Matched]]] = {}
    others: dict[str, list[dict[str, Any]]] = {}
    for training in trainings:
        looked = bench.found(training, test.name)
        names = looked["names"]
        seen = detections_of(looked, schema.names, not training.data)
        shared = same_names(schema.names, names)
        known = [c for c in classes if training.data or c in shared]
        matched = {c: match_class(truths, seen, c) for c in known}
        figures: dict[str, Any] = {"sizes": coco_figures(truths, seen, known), "ultralytics": looked.get("ultralytics")}
        arms.setdefault(training.arm, []).append(matched)
        others.setdefault(training.arm, []).append(figures)
    return Tested(test, truths, tuple(classes), arms, others)


def detections_of(found: Mapping[str, Any], names: Sequence[str], foreign: bool) -> list[Boxes]:
    """By picture. Those of `foreign` weights get the dataset's class ids, by name."""
    ours = {theirs: mine for mine, theirs in same_names(names, found["names"]).items()} if foreign else None
    rows = (found["detections"][key] for key in sorted(found["detections"]))
    if ours is None:
        return [Boxes.of(row) for row in rows]
    return [Boxes.of([[ours[int(b[0])], *b[1:]] for b in row if int(b[0]) in ours]) for row in rows]


def truths_of(width: int, height: int, label: bytes, schema: LabelSchema) -> Boxes:
    """The objects of a picture whose rows are boxes, also where the dataset's have keypoints; see `arms.relabelled`."""
    shapes = LabelSchema(schema.names, None).parse(label)
    scale = np.array([width, height, width, height], float)
    corners = np.array([shape.box for shape in shapes], float).reshape(-1, 4) * scale
    return Boxes(corners, np.array([shape.class_id for shape in shapes], np.int64), np.ones(len(shapes)))


def summary_of(found: Tested, *, asked: bool, final: bool) -> dict[str, Any]:
    """Means and spreads by arm, and the contrasts, JSON-ready. `asked`: this set is asked the question; `final`: all seeds
    are done, so that there may be a verdict."""
    arms = {name: _arm(found, name) for name in found.arms}
    objects = _objects(found)
    return {
        "pictures": len(found.truths),
        "objects": objects,
        "arms": arms,
        **contrasts(found, asked=asked, final=final),
    }


def _objects(found: Tested) -> int:
    return sum(int(np.isin(truth.classes, found.classes).sum()) for truth in found.truths)


def _arm(found: Tested, name: str) -> dict[str, Any]:
    ap50, ap = found.precision(name), found.precision(name, EVERY)
    wrong = _wrong_at_recall(found, name)
    return {
        "seeds": len(ap50),
        "ap50": _mean(ap50),
        "ap50_sd": round(float(np.std(ap50, ddof=1)), 5) if len(ap50) > 1 else None,
        "ap": _mean(ap),
        "each": [None if np.isnan(value) else round(value, 5) for value in ap50],
        "classes": {
            str(c): _mean([mean_precision({c: m[c]}) for m in found.arms[name] if c in m]) for c in found.classes
        },
        "sizes": {
            size: _mean([row["sizes"].get(size, {}).get("ap50") for row in found.others[name]]) for size in SIZES
        },
        "ultralytics_ap50": _mean([(row["ultralytics"] or {}).get("ap50") for row in found.others[name]]),
        "wrong_a_picture": wrong,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not np.isnan(value)]
    return round(float(np.mean(known)), 5) if known else None


def _wrong_at_recall(found: Tested, name: str) -> float | None:
    """Wrong detections a picture where the arm finds as much of a class as the real arm does at CONFIDENT; sum over classes,
    mean over seeds. None where it never finds so much."""
    if REAL not in found.arms or set(found.arms[name][0]) != set(found.classes):
        return None
    totals = []
    for seed, matched in enumerate(found.arms[name]):
        real = found.arms[REAL][min(seed, len(found.arms[REAL]) - 1)]
        each = [one.at_recall(real[c].recall(CONFIDENT)) for c, one in matched.items() if one.truths.sum()]
        if any(value is None for value in each):
            return None
        totals.append(sum(value for value in each if value is not None))
    return _mean(totals)


def compared(arms: Collection[str], secondary: Sequence[tuple[str, str]] = SECONDARY) -> list[tuple[str, str]]:
    """The pairs of arms that are compared, the primary one first."""
    ratios = [(arm, REAL) for arm in arms if arm.startswith(f"{CHECKED} ")]
    return [pair for pair in (PRIMARY, *secondary, *ratios) if set(pair) <= set(arms)]


def contrasts(
    found: Tested, *, asked: bool, final: bool, secondary: Sequence[tuple[str, str]] = SECONDARY
) -> dict[str, Any]:
    """The primary contrast and the secondary ones that there are arms for, and the share of the oracle's gap closed.

    All but the primary one of the set that is asked are corrected for their number. No verdict before the last seed:
    looking after each would find something sooner or later.
    """
    rows = {pair: _contrast(found, *pair) for pair in compared(found.arms, secondary)}
    alone = {PRIMARY} if asked else set()
    corrected = holm({"|".join(pair): row["p"] for pair, row in rows.items() if pair not in alone})
    for pair, row in rows.items():
        p = row["p"] if pair in alone else corrected["|".join(pair)]
        said = verdict(p, (row["interval"][0], row["interval"][1])) if final else "so far"
        row |= {"p_corrected": round(p, 5), "verdict": said}
    result: dict[str, Any] = {"contrasts": [{"first": a, "second": b, **row} for (a, b), row in rows.items()]}
    gap = rows.get((ORACLE, REAL))
    if gap is not None and PRIMARY in rows and gap["verdict"] == "shown":  # else it would divide by chance
        result["gap_closed"] = _gap(found)
    return result


def _contrast(found: Tested, first: str, second: str) -> dict[str, Any]:
    count = min(len(found.arms[first]), len(found.arms[second]))
    pairs = zip(found.precision(first)[:count], found.precision(second)[:count], strict=True)
    differences = [a - b for a, b in pairs]
    interval = bca(lambda seeds, row: found.difference(first, second, seeds, row), count, found.resamples)
    return {
        "difference": round(float(np.mean(differences)), 5),
        "each": [round(value, 5) for value in differences],
        "interval": [round(value, 5) for value in interval],
        "p": round(sign_flip(differences), 5),
    }


def _gap(found: Tested) -> dict[str, Any]:
    """(checked − real) / (oracle − real)."""

    def share(seeds: NDArray[np.int64], row: int) -> float:
        gap = found.difference(ORACLE, REAL, seeds, row)
        gained = found.difference(CHECKED, REAL, seeds, row)
        return gained / gap if gap > 0 else float(np.copysign(1e3, gained))  # a draw without a gap is extreme

    count = min(len(found.arms[name]) for name in (CHECKED, REAL, ORACLE))
    interval = bca(share, count, found.resamples)
    return {"share": round(share(np.arange(count), 0), 4), "interval": [round(value, 4) for value in interval]}
