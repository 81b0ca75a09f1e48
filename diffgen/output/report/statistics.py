"""The numbers of the report: images per condition and class, score histograms, labels before and after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from diffgen.checks.clip import judged_clip
from diffgen.checks.detections import COCO_SIZES, judged_recall
from diffgen.checks.effect import judged_brightening, judged_change, judged_effect
from diffgen.checks.registration import judged_shift
from diffgen.checks.structure import judged_structure
from diffgen.checks.tasks import labelled_classes
from diffgen.dataset.labels import Shape
from diffgen.output.outcome import Entry, Outcome
from diffgen.recipe.sections import Checks
from diffgen.types import Source, reading_facts

BINS = 24


@dataclass(frozen=True, slots=True)
class Score:
    """A score that a threshold is compared with: the range of its histogram, and whether higher is better."""

    name: str
    about: str
    low: float
    high: float
    higher_is_better: bool = True


SCORES = (
    Score("structure", "agreement of the objects' edges with the source (lower quartile)", 0.0, 1.0),
    Score("registration", "shift against the source in pixels", 0.0, 6.0, higher_is_better=False),
    Score("change", "distance from the source over that of the autoencoder's round trip, where it is small", 0.0, 10.0),
    Score("effect", "how far the picture changed towards the condition; 1 is a typical case", 0.0, 2.0),
    Score(
        "recall", "share of the labelled objects that the detector finds in the source and again in the edit", 0.0, 1.0
    ),
    Score("new objects", "confident detections where the source has nothing", 0.0, 6.0, higher_is_better=False),
    Score("clip", "how much closer to the prompt the edit is than the source, by CLIP", -0.1, 0.2),
    Score("contrast", "standard deviation of the luminance", 0.0, 0.4),
    Score("brightened", "luminance added to a night whose edges did not stay", 0.0, 0.4, higher_is_better=False),
)

Scores = tuple[float | None, ...]  # one for each of SCORES


def scores_of(entry: Entry) -> Scores:
    """The scores of an entry's image; None for each that was not measured, as for an image that was not made."""
    if entry.record is None or not entry.made:
        return (None,) * len(SCORES)
    facts, condition = entry.record.facts, entry.item.job.settings.condition
    with reading_facts(entry.record):
        effect = judged_change(facts), judged_effect(facts, condition)
        detected = judged_recall(facts), facts.get("new_objects")
        light = facts.get("contrast"), judged_brightening(facts, condition)
        values = judged_structure(facts), judged_shift(facts), *effect, *detected, judged_clip(facts), *light
        return tuple(None if value is None else round(value, 3) for value in values)


def thresholds_of(checks: Checks) -> Scores:
    """What each of SCORES is compared with; None where it is not judged."""
    effect, detected = (checks.change, checks.effect), (checks.recall, checks.new_objects)
    return checks.structure, checks.registration, *effect, *detected, checks.clip, checks.contrast, checks.brightened


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts (accepted, rejected) in BINS bins from the score's `low` to `high`; the outermost bins hold outliers."""

    score: Score
    bars: tuple[tuple[int, int], ...]
    high: float
    threshold: float | None
    text: str

    @property
    def rects(self) -> list[tuple[str, int, float, float]]:
        """(CSS class, x, y, height) of each bar in a 120 × 30 drawing, rejected on top of accepted."""
        scale = 29 / max(sum(bar) for bar in self.bars)
        return [
            (verdict, i * 120 // BINS, round(30 - scale * (below + count), 2), round(scale * count, 2))
            for i, (accepted, rejected) in enumerate(self.bars)
            for verdict, below, count in (("accepted", 0, accepted), ("rejected", accepted, rejected))
            if count
        ]

    @property
    def mark(self) -> float | None:
        """Where the threshold is along the axis, 0 to 1; None without one."""
        if self.threshold is None:
            return None
        return min(1.0, max(0.0, (self.threshold - self.score.low) / (self.high - self.score.low)))


def histogram(score: Score, accepted: list[float], rejected: list[float], threshold: float | None) -> Histogram:
    """The histogram of at least one value."""
    high = max(score.high, 2 * threshold if threshold is not None and not score.higher_is_better else 0.0)
    bars = [
        np.histogram(np.clip(values, score.low, high), BINS, (score.low, high))[0] for values in (accepted, rejected)
    ]
    numbers = np.array(accepted + rejected)
    text = f"{len(numbers)} values from {numbers.min():g} to {numbers.max():g}, median {np.median(numbers):g}"
    text += f", mean {numbers.mean():.2f}" if score.name == "new objects" else ""
    if threshold is not None:
        text += f", threshold: at {'least' if score.higher_is_better else 'most'} {threshold:g}"
    return Histogram(score, tuple((int(a), int(r)) for a, r in zip(*bars, strict=True)), high, threshold, text)


Values = tuple[list[float], list[float]]  # of accepted images, of rejected images


@dataclass(slots=True)
class Row:
    """Images of one condition, or with objects of one class.

    `attempts` counts accepted images by attempt, from 0; `conditions` has each condition's [accepted, planned] images.
    """

    name: str
    planned: int = 0
    made: int = 0
    accepted: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    conditions: dict[str, list[int]] = field(default_factory=dict)
    values: tuple[Values, ...] = field(default_factory=lambda: tuple(([], []) for _ in SCORES))
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def draw(self, *thresholds: float | None) -> None:
        """Make the histograms of the scores that have values; the thresholds are in the order of SCORES."""
        for score, values, threshold in zip(SCORES, self.values, thresholds, strict=False):
            if any(values):
                self.histograms[score.name] = histogram(score, *values, threshold)

    def count(self, entry: Entry) -> None:
        self.planned += 1
        self.made += entry.made
        part = self.conditions.setdefault(entry.item.job.settings.condition, [0, 0])
        part[0] += entry.accepted
        part[1] += 1
        if entry.accepted:
            self.accepted += 1
            self.attempts[entry.item.job.attempt] += 1

    @property
    def by_attempt(self) -> str:
        return " / ".join(str(self.attempts[i]) for i in range(max(self.attempts, default=-1) + 1)) or "0"


def label_text(source: Source) -> str:
    """The rows of a source's label file, shortened; "" if there is no file, or it cannot be read as labels."""
    try:
        text = (source.read_label() or b"").decode("utf-8-sig")
        return "\n".join(short_row(line) for line in text.splitlines() if line.strip())
    except (OSError, ValueError):
        return ""


def short_row(row: str) -> str:
    """A label row with at most four decimals. Raises ValueError for one that is not numbers."""
    return " ".join(f"{float(number):.4f}".rstrip("0").rstrip(".") for number in row.split())


def by_condition(outcome: Outcome, scores: Sequence[Scores]) -> list[Row]:
    """A row for each condition of the recipe, and below it one for each of its strengths if it has several; with a histogram
    of each score. `scores` belong to the entries."""
    recipe, strengths = outcome.recipe, outcome.plan.strengths()
    rows: dict[tuple[str, float | None], Row] = {}
    for condition in recipe.conditions:
        rows[condition.name, None] = Row(condition.name)
        for strength in strengths.get(condition.name, ()):
            rows[condition.name, strength] = Row(f"{condition.name} at {strength:g}")
    for entry, measured in zip(outcome.entries, scores, strict=True):
        name = entry.item.job.settings.condition
        strength = outcome.plan.planned_strength(entry.item)
        for row in (rows[name, None], rows.get((name, strength))):
            if row is not None:
                row.count(entry)
                for values, value in zip(row.values, measured, strict=True):
                    if value is not None:
                        values[not entry.accepted].append(value)
    for condition in recipe.conditions:
        for (name, _), row in rows.items():
            if name == condition.name:
                row.draw(*thresholds_of(recipe.checks_for(condition)))
    return list(rows.values())


def by_class(outcome: Outcome) -> list[Row]:
    """A row for each class: the images with labelled objects of it (text2img: asked for it), and their structure."""
    rows: dict[int, Row] = {}
    for entry in outcome.entries:
        source = entry.item.source
        asked = {class_id for class_id, _ in source.counts} if source.text is not None else set()
        for class_id in labelled_classes(source.classes, entry.item.job.settings) | asked:
            rows.setdefault(class_id, Row(outcome.dataset.names[class_id])).count(entry)
        if entry.record is not None and entry.made:
            facts = entry.record.facts
            for i, (class_id, value) in enumerate(zip(source.classes, facts.get("structure", ()), strict=False)):
                if value is not None and i not in facts.get("removed", ()):
                    rows[class_id].values[0][not entry.accepted].append(value)
    for row in rows.values():
        row.draw(outcome.recipe.checks.structure)
    return [rows[class_id] for class_id in sorted(rows)]


def label_counts(outcome: Outcome) -> list[tuple[str, list[tuple[int, int]]]]:
    """For each class that has objects: its name and counts (input dataset, exported dataset) over all splits.

    There is one pair for each of COCO_SIZES, by the box in source pixels, and one for all sizes.
    """
    before: Counter[tuple[int, str]] = Counter()
    after: Counter[tuple[int, str]] = Counter()
    for source in outcome.plan.sources:
        sizes = _sizes(source)
        before.update(sizes)
        if outcome.exports_source(source):
            after.update(sizes)
    for entry in outcome.entries:
        if entry.accepted:
            source = entry.item.source
            after.update(size for i, size in enumerate(_sizes(source)) if i not in entry.dropped)
            new = outcome.dataset.schema.parse("\n".join(entry.added).encode())
            after.update((shape.class_id, size_word(_side(shape, source))) for shape in new)
    rows = []
    for class_id, name in enumerate(outcome.dataset.names):
        pairs = [(before[class_id, size], after[class_id, size]) for size in COCO_SIZES]
        if any(map(any, pairs)):
            rows.append((name, [*pairs, (sum(b for b, _ in pairs), sum(a for _, a in pairs))]))
    return rows


def _sizes(source: Source) -> list[tuple[int, str]]:
    """(class id, size) of each label row, the size as one of COCO_SIZES."""
    return [(class_id, size_word(side)) for class_id, side in zip(source.classes, source.sides, strict=True)]


def _side(shape: Shape, source: Source) -> float:
    """The square root of the box's area in source pixels."""
    x0, y0, x1, y1 = shape.box
    return math.sqrt(max(0.0, x1 - x0) * max(0.0, y1 - y0) * source.width * source.height)


def size_word(side: float) -> str:
    """Which of COCO_SIZES an object has; `side` is the square root of its box's area in pixels."""
    return next(size for size, (least, below) in COCO_SIZES.items() if least <= side < below)
