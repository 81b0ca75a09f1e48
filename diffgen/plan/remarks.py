"""What a user should know before images are made: pictures that a condition skips, small boxes, and `dataset.remarks`.
Shown alike by `plan`, `run`, `status`, their JSON and the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from diffgen.dataset.geometry import working_canvas
from diffgen.dataset.remarks import dataset_remarks, remark_lines
from diffgen.plan.plan import Plan
from diffgen.recipe.schema import Recipe


def plan_remarks(plan: Plan, recipe: Recipe) -> dict[str, Any]:
    """`dataset_remarks`, and `skipped` and `small_boxes`; JSON-ready."""
    return {
        **dataset_remarks(plan.dataset, plan.sources),
        "skipped": _skipped(plan, recipe),
        "small_boxes": _small_boxes(plan),
    }


def plan_remark_lines(remarks: Mapping[str, Any]) -> Iterator[str]:
    """The remarks as text lines, each starting with a word for its topic."""
    alike: dict[tuple[str, int], list[str]] = {}
    for name, looks in remarks["skipped"].items():
        for look, count in looks.items():
            alike.setdefault((look, count), []).append(name)
    for (look, count), names in alike.items():
        yield f"skipped   {count} {look} pictures get no {', '.join(names)} (to edit them: `skip_if: []` in the condition)"
    boxes = remarks["small_boxes"]
    if boxes["small"]:
        remedy = "resolution: {mode: tile} or a larger long_side keeps them"
        if boxes["tiled"]:
            remedy = (
                "they are as small in the pictures themselves; objects: {strength: 0, detail: 1} changes them least"
            )
        yield (
            f"boxes     {boxes['small']} of {boxes['boxes']} will be under {boxes['least_px']} px at the model's "
            f"working size and may be lost; {remedy}"
        )
    yield from remark_lines(remarks)


def _skipped(plan: Plan, recipe: Recipe) -> dict[str, dict[str, int]]:
    """For each condition, how many selected pictures it does not suit."""
    found: dict[str, Counter[str]] = {condition.name: Counter() for condition in recipe.conditions}
    for source, edits in plan.edits:
        for condition in recipe.conditions if source.looks else ():
            look = next((look for look in source.looks if look in condition.skip_if), None)
            if look is not None and all(edit.name != condition.name for edit, _ in edits):
                found[condition.name][look] += 1
    return {name: dict(counts) for name, counts in found.items() if counts}


def _small_boxes(plan: Plan) -> dict[str, Any]:
    """Boxes whose shorter side, at the working size, is below what the model's autoencoder can reproduce."""
    total = small = 0
    for source, edits in plan.edits:
        if edits:
            canvas = working_canvas(source.width, source.height, edits[0][1])
            scale = max(canvas.inner) / max(source.width, source.height)
            total += len(source.smallest)
            small += sum(side * scale < plan.least_object for side in source.smallest)
    tiled = any(settings.mode == "tile" for _, settings in plan.conditions)
    return {"least_px": plan.least_object, "small": small, "boxes": total, "tiled": tiled}
