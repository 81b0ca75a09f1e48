"""Labels that a detector gives to images made from nothing, and when they are rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.checks.auto_labels import measure_text2img_detections, non_max_suppression
from diffgen.checks.detections import Detection
from diffgen.checks.verdict import judge
from diffgen.recipe.sections import Checks
from diffgen.types import Job, Record
from tests.fakes_text2img import CAR, KNOWN, PERSON, SURE, Painter, make, write


def test_only_the_datasets_classes_are_recorded_the_surest_first() -> None:
    facts = measure_text2img_detections([PERSON, Detection(5, 0.99, CAR.box), CAR], KNOWN)
    assert facts == {"detections": [[0, 0.5, 0.1, 0.2, 0.5, 0.6], [1, 0.2, 0.6, 0.1, 0.7, 0.4]]}


def test_of_two_boxes_on_one_object_the_surer_stays() -> None:
    near, other = Detection(2, 0.4, (0.1, 0.2, 0.5, 0.55)), Detection(0, 0.3, CAR.box)
    assert non_max_suppression([near, other, SURE, CAR]) == [SURE, CAR, other]


@pytest.mark.parametrize(
    ("detections", "confidence", "reason"),
    [
        ([[0, 0.5, 0, 0, 1, 1]], 0.5, None),
        ([[0, 0.5, 0, 0, 1, 1]], 0.51, "unlabelled"),
        ([[1, 0.9, 0, 0, 1, 1]], 0.05, "unlabelled"),  # a person, where a car was asked for
        ([], 0.05, "unlabelled"),
    ],
)
def test_a_picture_without_what_was_asked_for_is_rejected(
    detections: Any, confidence: float, reason: str | None
) -> None:
    facts = {"asked": 0, "luminance": 0.5, "contrast": 0.2, "strength": 1.0, "detections": detections}
    assert judge(Record("a", "made", facts), Checks(confidence=confidence), "night").reason == reason


def test_a_flat_picture_is_degenerate(tmp_path: Path) -> None:
    class Grey(Painter):
        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return np.full(image.shape, 100)

    assert make(write(tmp_path), Grey())[0].rejected == {"degenerate": 12}
