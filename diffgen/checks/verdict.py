"""Accept or reject by recorded facts alone. Pure: a threshold may change at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from diffgen.checks.auto_labels import lacks_its_class
from diffgen.checks.clip import judged_clip
from diffgen.checks.detections import judged_recall
from diffgen.checks.effect import judged_effect
from diffgen.checks.registration import judged_shift
from diffgen.checks.structure import judged_structure, measured_objects
from diffgen.checks.tasks import confirmed, still_there
from diffgen.types import Record, Verdict


class Thresholds(Protocol):
    """What `judge` asks of a recipe's checks; None turns a check off."""

    @property
    def structure(self) -> float | None: ...
    @property
    def registration(self) -> float | None: ...
    @property
    def contrast(self) -> float | None: ...
    @property
    def happened(self) -> float | None: ...
    @property
    def recall(self) -> float | None: ...
    @property
    def new_objects(self) -> int | None: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def on_object_lost(self) -> str: ...
    @property
    def confidence(self) -> float: ...


def judge(record: Record, checks: Thresholds, condition: str = "", decision: str | None = None) -> Verdict:
    """Accept or reject by recorded facts alone. Loosening a threshold never rejects what was accepted.

    A person's `decision` ("reject" or "keep") overrules every threshold; what failed to be made stays failed.

    A fact that was not recorded (no detector, a condition that nothing is known about) is not judged.
    """
    if record.status != "made":
        return Verdict(False, "failed")
    if decision is not None:
        return Verdict(True) if decision == "keep" else Verdict(False, "review")
    facts = record.facts
    if checks.contrast is not None and facts["contrast"] < checks.contrast:
        return Verdict(False, "degenerate")
    if (
        checks.registration is not None
        and "task" not in facts  # what is kept is the source's own pixels, what is painted has nothing to lie on
        and (shift := judged_shift(facts)) is not None
        and shift > checks.registration
    ):
        return Verdict(False, "registration")
    structure = judged_structure(facts)
    if checks.on_object_lost == "drop_label" and (measured := measured_objects(facts)):
        if len(lost_objects(facts, checks)) == len(measured):
            return Verdict(False, "structure")
    elif checks.structure is not None and structure is not None and structure < checks.structure:
        return Verdict(False, "structure")
    if still_there(facts):
        return Verdict(False, "still-there")
    if not confirmed(facts):
        return Verdict(False, "not-confirmed")
    if lacks_its_class(facts, checks.confidence):
        return Verdict(False, "unlabelled")
    found = judged_recall(facts)
    if checks.recall is not None and found is not None and found < checks.recall:
        return Verdict(False, "recall")
    if checks.new_objects is not None and facts.get("new_objects", 0) > checks.new_objects:
        return Verdict(False, "new-objects")
    moved = judged_effect(facts, condition)
    if checks.happened is not None and moved is not None and moved < checks.happened:
        return Verdict(False, "unchanged")
    nearer = judged_clip(facts)
    if checks.clip is not None and nearer is not None and nearer < checks.clip:
        return Verdict(False, "unchanged")
    return Verdict(True)


def lost_objects(facts: Mapping[str, Any], checks: Thresholds) -> list[int]:
    """Which label rows go with `on_object_lost: drop_label`: objects large enough to measure, below `structure`."""
    if checks.on_object_lost != "drop_label" or checks.structure is None:
        return []
    return [i for i, value in measured_objects(facts) if value < checks.structure]
