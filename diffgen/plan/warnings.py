"""Warnings about a plan that its model is unlikely to do well."""

from __future__ import annotations

import re

from diffgen.models.model import Model
from diffgen.models.vocabulary import Vocabulary, misunderstood
from diffgen.plan.plan import Plan
from diffgen.plan.prompts import condition_text
from diffgen.recipe.sections import EDGE_MAPS


def unknown_words(plan: Plan, words: Vocabulary | None) -> list[str]:
    """One line for each condition whose text a model with a small vocabulary (`words`) does not understand."""
    if words is None:
        return []
    texts = ((c.name, condition_text(c, settings).replace("{objects}", "")) for c, settings in plan.conditions)
    return [f"{name}: the model {why}" for name, text in texts if (why := misunderstood(text, words))]


def unsupported_guidance(plan: Plan, model: Model) -> list[str]:
    """One line for each guidance that differs from the only one a model with a small vocabulary was trained for."""
    if model.vocabulary is None:
        return []
    return [
        f"{c.name}: the model was trained for {key} {getattr(model, key):g} only, but this sets {value:g}"
        for c, settings in plan.conditions
        for key in ("guidance", "image_guidance")
        if (value := getattr(settings, key)) != getattr(model, key)
    ]


_NO_EDGES = re.compile(r"\b(night|snow\w*|blizzard)\b", re.IGNORECASE)


def unsuited_controls(plan: Plan) -> list[str]:
    """One line for each night or snow condition with edge maps, which keep the daylight's shadows and bare ground."""
    lines = []
    for condition, settings in plan.conditions:
        edges = dict.fromkeys(c.kind for c in settings.controls or () if c.kind in EDGE_MAPS and c.weight)
        if edges and _NO_EDGES.search(f"{condition.name} {condition.prompt}"):
            lines.append(
                f"{condition.name}: {' and '.join(edges)} maps hold the daylight's shadows and the bare ground in "
                "place; for night and snow use depth and segmentation"
            )
    return lines
