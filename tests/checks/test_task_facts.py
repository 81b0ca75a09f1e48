"""The verdicts over tasks."""

from __future__ import annotations

from typing import Any

import pytest

from diffgen.checks.clip import judged_clip
from diffgen.checks.effect import judged_effect
from diffgen.checks.structure import judged_structure
from diffgen.checks.verdict import judge
from diffgen.recipe.sections import Checks
from diffgen.types import Record


def record(**facts: Any) -> Record:
    plain = {
        "contrast": 0.2, "shift_px": 40.0, "shift_peak": 0.9, "structure": [0.9, -0.5], "sides_px": [30.0, 30.0],
        "structure_image": -0.2, "before": [0.0] * 8, "after": [0.0] * 8, "clip": [0.3, 0.1],
    }  # fmt: skip
    return Record("id", "made", {**plain, **facts})


def test_a_task_is_judged_by_what_it_keeps() -> None:
    removed = record(task="remove", removed=[1], painted=[1.0])
    assert judge(removed, Checks(), "night").accepted, "no shift, no lost object, no night, no words"
    assert judge(record(task="remove", removed=[0], painted=[1.0]), Checks()).reason == "structure"
    assert judged_structure(record(task="remove", removed=[0, 1], painted=[1, 1]).facts) is None
    assert judged_effect(removed.facts, "night") is None
    assert judged_clip(removed.facts) is None
    assert judged_clip(record(task="background").facts) == -0.2
    assert judge(record(task="remove", removed=[1], painted=[1.0], contrast=0.0), Checks()).reason == "degenerate"
    assert judge(record(structure=[0.9, 0.9]), Checks()).reason == "registration", "other edits are judged as before"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"task": "remove", "removed": [1], "painted": [0.7]}, "still-there"),
        ({"task": "remove", "removed": [1], "painted": [1.0], "still": [0.5]}, "still-there"),
        ({"task": "remove", "removed": [1], "painted": [1.0], "still": [0.49]}, None),
        ({"task": "remove", "removed": [1], "painted": [1.0], "still": [None]}, None),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}, "confirmed": None}, "not-confirmed"),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}, "confirmed": {"iou": 0.49}}, "not-confirmed"),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}}, "not-confirmed"),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}, "confirmed": {"iou": 0.5}}, None),
    ],
)
def test_verdicts_of_tasks(facts: dict[str, Any], reason: str | None) -> None:
    assert judge(record(**{"structure": [0.9, 0.9], **facts}), Checks()).reason == reason
