"""A judged plan in numbers for the report: per condition, per class, scores as histograms, labels before and after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffgen.checks.clip import judged_clip
from diffgen.checks.detections import COCO_SIZES, judged_recall
from diffgen.checks.effect import judged_effect
from diffgen.checks.registration import judged_shift
from diffgen.checks.structure import judged_structure
from diffgen.checks.tasks import labelled
from diffgen.dataset.labels import LabelError, Shape, parse_labels
from diffgen.output.outcome import Judged
from diffgen.plan.plan import Plan
from diffgen.recipe.schema import Recipe
from diffgen.types import Source

BINS = 24


@dataclass(frozen=True, slots=True)
class Score:
    """A number that a threshold is held against: its range on paper, and whether more of it is better."""

    name: str
    about: str
    low: float
    high: float
    more: bool = True


SCORES = (
    Score("structure", "agreement of the objects' edges with the source (lower quartile)", 0.0, 1.0),
    Score("registration", "shift against the source in pixels", 0.0, 6.0, more=False),
    Score("happened", "how far the picture moved the condition's way; 1 is a plain case", 0.0, 2.0),
    Score("recall", "share of what the detector finds in the source that it finds again", 0.0, 1.0),
    Score("clip", "how much nearer to the prompt the edit came, by CLIP", -0.1, 0.2),
)

Scores = tuple[float | None, ...]  # one for each of SCORES


def scores_of(entry: Judged) -> Scores:
    """None where there is none (not made, not measured, no detector)."""
    if entry.record is None or entry.record.status != "made":
        return (None,) * len(SCORES)
    facts, condition = entry.record.facts, entry.item.job.settings.condition
    shift, happened = judged_shift(facts), judged_effect(facts, condition)
    values = judged_structure(facts), shift, happened, judged_recall(facts), judged_clip(facts)
    return tuple(None if value is None else round(value, 3) for value in values)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts (accepted, rejected) in BINS bins from `low` to `high`; what lies beyond is in the outermost."""

    score: Score
    bars: tuple[tuple[int, int], ...]
    high: float
    threshold: float | None
    text: str

    @property
    def rects(self) -> list[tuple[str, int, float, float]]:
        """(what, x, y, height) of each bar in a drawing of 120 × 30, rejected on top of accepted."""
        scale = 29 / max(sum(bar) for bar in self.bars)
        found = []
        for i, (accepted, rejected) in enumerate(self.bars):
            for what, below, count in (("accepted", 0, accepted), ("rejected", accepted, rejected)):
                if count:
                    found.append(
                        (what, i * 120 // BINS, round(30 - scale * (below + count), 2), round(scale * count, 2))
                    )
        return found

    @property
    def mark(self) -> float | None:
        """Where the threshold stands: 0 to 1."""
        if self.threshold is None:
            return None
        return min(1.0, max(0.0, (self.threshold - self.score.low) / (self.high - self.score.low)))


def histogram(score: Score, accepted: list[float], rejected: list[float], threshold: float | None) -> Histogram:
    """Of one value or more."""
    high = max(score.high, 2 * threshold if threshold is not None and not score.more else 0.0)
    bars = [
        np.histogram(np.clip(values, score.low, high), BINS, (score.low, high))[0] for values in (accepted, rejected)
    ]
    numbers = np.array(accepted + rejected)
    text = f"{len(numbers)} values from {numbers.min():g} to {numbers.max():g}, median {np.median(numbers):g}"
    if threshold is not None:
        text += f", {'at least' if score.more else 'at most'} {threshold:g} is asked"
    return Histogram(score, tuple((int(a), int(r)) for a, r in zip(*bars, strict=True)), high, threshold, text)


Values = tuple[list[float], list[float]]  # of accepted images, and of rejected ones


@dataclass(slots=True)
class Row:
    """Images of one condition, or with objects of one class. `attempts` counts the accepted by attempt, from 0."""

    name: str
    planned: int = 0
    made: int = 0
    accepted: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    values: tuple[Values, ...] = field(default_factory=lambda: tuple(([], []) for _ in SCORES))
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def draw(self, *thresholds: float | None) -> None:
        """Histograms of the scores that have values, with their thresholds in the order of SCORES."""
        for score, values, threshold in zip(SCORES, self.values, thresholds, strict=False):
            if any(values):
                self.histograms[score.name] = histogram(score, *values, threshold)

    def count(self, entry: Judged) -> None:
        self.planned += 1
        self.made += entry.record is not None and entry.record.status == "made"
        if entry.accepted:
            self.accepted += 1
            self.attempts[entry.item.job.attempt] += 1

    @property
    def by_attempt(self) -> str:
        return " / ".join(str(self.attempts[i]) for i in range(max(self.attempts, default=-1) + 1)) or "0"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A source's label file, read once: its text with numbers of four digits, and its shapes."""

    text: str
    shapes: tuple[Shape, ...]


def read_labels(plan: Plan) -> dict[str, Labelled]:
    """By source key; nothing of a file that is away or that Ultralytics would not read."""
    found = {}
    for source in plan.sources:
        try:
            raw = source.read_label() or b""
            shapes = parse_labels(raw, len(plan.dataset.names), plan.dataset.keypoints)
        except (OSError, LabelError):
            continue
        rows = (line.split() for line in raw.decode("utf-8-sig").strip().splitlines() if line.strip())
        found[source.key] = Labelled("\n".join(map(short_row, rows)), shapes)
    return found


def short_row(numbers: Iterable[str]) -> str:
    """A label row with four digits at most after the point."""
    return " ".join(map(_short, numbers))


def _short(number: str) -> str:
    return f"{float(number):.4f}".rstrip("0").rstrip(".")


def by_condition(judged: Sequence[Judged], scores: Sequence[Scores], recipe: Recipe) -> list[Row]:
    """A row for each condition of the recipe, with a histogram of each score; `scores` are those of `judged`."""
    rows = {condition.name: Row(condition.name) for condition in recipe.conditions}
    for entry, measured in zip(judged, scores, strict=True):
        row = rows[entry.item.job.settings.condition]
        row.count(entry)
        for values, value in zip(row.values, measured, strict=True):
            if value is not None:
                values[not entry.accepted].append(value)
    for condition in recipe.conditions:
        checks = recipe.checks_for(condition)
        rows[condition.name].draw(checks.structure, checks.registration, checks.happened, checks.recall, checks.clip)
    return list(rows.values())


def by_class(
    judged: Sequence[Judged], names: Sequence[str], labels: Mapping[str, Labelled], structure: float | None
) -> list[Row]:
    """A row for each class that a planned image holds, or was asked for: images with it, and the structure of each of its
    objects.

    What a task removes is not in the image, what it inserts is.
    """
    rows: dict[int, Row] = {}
    for entry in judged:
        shapes = labels[entry.item.source.key].shapes if entry.item.source.key in labels else ()
        asked = {class_id for class_id, _ in entry.item.source.counts if entry.item.source.text is not None}
        for class_id in {shape.class_id for shape in labelled(shapes, entry.item.job)} | asked:
            rows.setdefault(class_id, Row(names[class_id])).count(entry)
        if entry.record is not None and entry.record.status == "made":
            facts, rejected = entry.record.facts, not entry.accepted
            for i, (shape, value) in enumerate(zip(shapes, facts.get("structure", ()), strict=False)):
                if value is not None and i not in facts.get("removed", ()):
                    rows[shape.class_id].values[0][rejected].append(value)
    for row in rows.values():
        row.draw(structure)
    return [rows[class_id] for class_id in sorted(rows)]


def label_counts(
    plan: Plan, recipe: Recipe, judged: Sequence[Judged], labels: Mapping[str, Labelled]
) -> list[tuple[str, list[tuple[int, int]]]]:
    """Objects of each class (before, after): in the dataset that came in and the one that goes out, all splits.

    A pair for each of COCO_SIZES, by the box in source pixels, and one for all; only classes that have objects.
    """
    before: Counter[tuple[int, str]] = Counter()
    after: Counter[tuple[int, str]] = Counter()
    kinds = {
        source.key: [(shape.class_id, size_word(shape, source)) for shape in labels[source.key].shapes]
        for source in plan.sources
        if source.key in labels and source.width
    }
    for source in plan.sources:
        found = kinds.get(source.key, [])
        before.update(found)
        if recipe.include_sources != "none" or source.split not in recipe.select.splits:
            after.update(found)
    for entry in judged:
        if entry.accepted:
            found = kinds.get(entry.item.source.key, [])
            after.update(kind for i, kind in enumerate(found) if i not in entry.dropped)
            new = parse_labels("\n".join(entry.added).encode(), len(plan.dataset.names))
            after.update((shape.class_id, size_word(shape, entry.item.source)) for shape in new)
    rows = []
    for class_id, name in enumerate(plan.dataset.names):
        pairs = [(before[class_id, size], after[class_id, size]) for size in COCO_SIZES]
        if any(map(any, pairs)):
            rows.append((name, [*pairs, (sum(b for b, _ in pairs), sum(a for _, a in pairs))]))
    return rows


def size_word(shape: Shape, source: Source) -> str:
    """Which of COCO_SIZES an object is of, by the square root of its box's area in pixels."""
    x0, y0, x1, y1 = shape.box
    side = math.sqrt(max(0.0, x1 - x0) * max(0.0, y1 - y0) * source.width * source.height)
    return next(word for word, (least, below) in COCO_SIZES.items() if least <= side < below)
