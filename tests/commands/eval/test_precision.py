"""Average precision: the same numbers as pycocotools, with any weight per picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.commands.eval.precision import EVERY, IOUS, Boxes, coco_figures, match_class, mean_precision

CLASSES = (0, 1, 2)


def scene(rng: np.random.Generator, pictures: int) -> tuple[list[Boxes], list[Boxes]]:
    """Truths, and detections of them that are off, doubled, of the wrong class, or of nothing."""
    truths, seen = [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 7))
        corners = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(6, 160, (count, 2))], 1)
        classes = rng.integers(0, len(CLASSES), count)
        truths.append(Boxes(boxes, classes, np.ones(count)))
        again = np.concatenate([boxes, boxes]) + rng.normal(0, 8, (2 * count, 4))
        again[:, 2:] = np.maximum(again[:, 2:], again[:, :2] + 1)
        wild = rng.uniform(0, 300, (3, 2))
        again = np.concatenate([again, np.concatenate([wild, wild + 40], 1)])
        named = np.concatenate([classes, rng.integers(0, len(CLASSES), count + 3)])
        scores = rng.integers(1, 20, len(named)) / 20  # many ties
        seen.append(Boxes(again, named, scores))
    return truths, seen


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_it_is_that_of_pycocotools(seed: int, pictures: int) -> None:
    truths, seen = scene(np.random.default_rng(seed), pictures)
    figures = coco_figures(truths, seen, CLASSES)
    matched = {c: match_class(truths, seen, c) for c in CLASSES}
    if not sum(len(true.classes) for true in truths):
        assert figures == {}
        assert np.isnan(mean_precision(matched))
        return
    assert mean_precision(matched) == pytest.approx(figures["all"]["ap50"], abs=1e-5)
    assert mean_precision(matched, ious=EVERY) == pytest.approx(figures["all"]["ap"], abs=1e-5)


def test_to_the_sixth_place() -> None:
    from pycocotools import cocoeval

    kept = []
    original = cocoeval.COCOeval.accumulate
    try:
        cocoeval.COCOeval.accumulate = lambda self, p=None: (original(self, p), kept.append(self.eval["precision"]))
        truths, seen = scene(np.random.default_rng(3), 40)
        coco_figures(truths, seen, CLASSES)
    finally:
        cocoeval.COCOeval.accumulate = original
    for c in CLASSES:
        theirs = kept[0][:, :, c, 0, 2].mean(1)
        assert np.abs(match_class(truths, seen, c).precision() - theirs).max() < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_picture_of_weight_two_counts_as_two_pictures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, seen = scene(rng, 6)
    weights = rng.integers(0, 4, 6)
    often = [i for i, weight in enumerate(weights) for _ in range(weight)]
    weighted = match_class(truths, seen, 1).precision(weights.astype(float))
    if not sum(int((truths[i].classes == 1).sum()) for i in often):
        assert np.isnan(weighted).all()
        return
    repeated = match_class([truths[i] for i in often], [seen[i] for i in often], 1).precision()
    # Copies of a picture have equal scores, whose order decides nothing but the steps between them.
    assert weighted == pytest.approx(repeated, abs=0.08)


def test_exact_boxes_are_perfect_and_none_are_nothing() -> None:
    truths, _ = scene(np.random.default_rng(1), 5)
    none = [Boxes.of([]) for _ in truths]
    for c in CLASSES:
        assert match_class(truths, truths, c).precision() == pytest.approx(np.ones(len(IOUS)))
        assert match_class(truths, none, c).precision() == pytest.approx(np.zeros(len(IOUS)))


def test_wrong_detections_at_a_recall() -> None:
    truth = [Boxes.of([[0, 1, 0, 0, 10, 10], [0, 1, 50, 0, 60, 10]])] * 2
    seen = [Boxes.of([[0, 0.9, 0, 0, 10, 10], [0, 0.8, 90, 90, 99, 99], [0, 0.7, 50, 0, 60, 10]]), Boxes.of([])]
    matched = match_class(truth, seen, 0)
    assert matched.recall(0.85) == 0.25
    assert matched.at_recall(0.25) == 0.0
    assert matched.at_recall(0.5) == 0.5
    assert matched.at_recall(0.75) is None
