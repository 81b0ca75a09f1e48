"""What a plan asks of a model that the model is not likely to do well."""

from __future__ import annotations

import re

from diffgen.models.model import Model
from diffgen.models.vocabulary import Vocabulary, misunderstood
from diffgen.plan.plan import Plan
from diffgen.plan.prompts import condition_text
from diffgen.recipe.sections import EDGE_MAPS


def unknown_words(plan: Plan, words: Vocabulary | None) -> list[str]:
    """One line for each condition whose text asks a model of few words for more than it was taught."""
    if words is None:
        return []
    heard = (
        (c.name, misunderstood(condition_text(c, settings).replace("{objects}", ""), words))
        for c, settings in plan.conditions
    )
    return [f"{name}: the model {why}" for name, why in heard if why]


def unsupported_guidance(plan: Plan, model: Model) -> list[str]:
    """One line for each condition that guides a model of few words, whose training knew one guidance only, by another."""
    if model.vocabulary is None:
        return []
    asked = (
        (c.name, key, own, value)
        for c, settings in plan.conditions
        for key, own, value in (
            ("guidance", model.guidance, settings.guidance),
            ("image_guidance", model.image_guidance, settings.image_guidance),
        )
        if value != own
    )
    return [
        f"{name}: the model was trained for {key} {own:g} only, and this asks for {value:g}"
        for name, key, own, value in asked
    ]


_NO_EDGES = re.compile(r"\b(night|snow\w*|blizzard)\b", re.IGNORECASE)


def unsuited_controls(plan: Plan) -> list[str]:
    """One line for each condition that edges hold to the daylight it should leave: its shadows, its bare ground."""
    lines = []
    for condition, settings in plan.conditions:
        edges = {g.kind: None for g in settings.controls or () if g.kind in EDGE_MAPS and g.weight}
        if edges and _NO_EDGES.search(f"{condition.name} {condition.prompt}"):
            lines.append(
                f"{condition.name}: {' and '.join(edges)} maps hold the daylight's shadows and the bare ground in "
                "place; for night and snow use depth and segmentation"
            )
    return lines
