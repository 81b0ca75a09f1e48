"""Accept or reject an image by its recorded facts alone. Pure: a threshold may change at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffgen.checks.auto_labels import lacks_its_class
from diffgen.checks.clip import judged_clip
from diffgen.checks.detections import judged_recall
from diffgen.checks.effect import judged_brightening, judged_change, judged_effect
from diffgen.checks.registration import judged_shift
from diffgen.checks.structure import judged_structure, measured_objects
from diffgen.checks.tasks import confirmed, still_there
from diffgen.recipe.sections import Checks
from diffgen.types import Record, Verdict


def judge(record: Record, checks: Checks, condition: str = "", decision: str | None = None) -> Verdict:
    """The verdict on a record. Loosening a threshold never rejects an accepted image.

    A person's `decision` ("reject" or "keep") overrules every threshold, but a failed job stays failed. A fact that was not
    recorded (no detector, an unknown condition) is not judged.
    """
    if record.status != "made":
        return Verdict(False, "failed")
    if decision is not None:
        return Verdict(True) if decision == "keep" else Verdict(False, "review")
    facts = record.facts
    if checks.contrast is not None and facts["contrast"] < checks.contrast:
        return Verdict(False, "degenerate")
    shift = judged_shift(facts)
    if checks.registration is not None and shift is not None and shift > checks.registration:
        return Verdict(False, "registration")
    if checks.on_object_lost == "drop_label" and (measured := measured_objects(facts)):
        if len(lost_objects(facts, checks)) == len(measured):
            return Verdict(False, "structure")
    elif _below(judged_structure(facts), checks.structure):
        return Verdict(False, "structure")
    if still_there(facts):
        return Verdict(False, "still-there")
    if not confirmed(facts):
        return Verdict(False, "not-confirmed")
    if lacks_its_class(facts, checks.confidence):
        return Verdict(False, "unlabelled")
    if _below(judged_recall(facts), checks.recall):
        return Verdict(False, "recall")
    if checks.new_objects is not None and facts.get("new_objects", 0) > checks.new_objects:
        return Verdict(False, "new-objects")
    brightened = judged_brightening(facts, condition)
    if checks.brightened is not None and brightened is not None and brightened > checks.brightened:
        return Verdict(False, "brightened")
    if _below(judged_change(facts), checks.change):
        return Verdict(False, "unchanged")
    if _below(judged_effect(facts, condition), checks.effect) or _below(judged_clip(facts), checks.clip):
        return Verdict(False, "weak-effect")
    return Verdict(True)


def _below(value: float | None, threshold: float | None) -> bool:
    return value is not None and threshold is not None and value < threshold


def lost_objects(facts: Mapping[str, Any], checks: Checks) -> list[int]:
    """The label rows that `on_object_lost: drop_label` drops: measured objects below `structure`."""
    if checks.on_object_lost != "drop_label" or checks.structure is None:
        return []
    return [i for i, value in measured_objects(facts) if value < checks.structure]


def object_words(facts: Mapping[str, Any], checks: Checks) -> dict[int, str]:
    """What a person should know about labelled objects, by label row: "lost" (too little structure), "not found again" (by
    the detector, which had found it in the source), "restored". Objects without a word are unchanged."""
    words: dict[int, list[str]] = {row: ["restored"] for row in facts.get("restored", ())}
    either = zip(facts.get("found_rows", ()), facts.get("found", ()), facts.get("found_matched", ()), strict=False)
    for row in (row for row, found, matched in either if not (found or matched)):
        words.setdefault(row, []).append("not found again")
    for row, value in measured_objects(facts):
        if checks.structure is not None and value < checks.structure:
            words.setdefault(row, []).append("lost")
    return {row: ", ".join(words[row]) for row in sorted(words)}
