"""What is tried after a rejected image."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from diffgen.editing.families import effective_object_strength, effective_strength
from diffgen.types import Item, Settings, unit

FEATHER = 12  # pixels, where a restored object needs one and the recipe names none
ATTEMPT_FACTOR = 0.75  # of the strength from one attempt to the next


def next_attempt(item: Item, attempts: int, restore: bool = False) -> Item | None:
    """The image of a rejected item with less strength; None when no attempt is left that would be another image.

    Prompt and seed stay: the same snow, thinner. An attempt whose effective strengths are the last one's is skipped. With
    `restore` the first of them keeps the scene's strength, and has the source's objects: not edited, detail in full.
    What a task paints, and what is made from noise, is made of another seed instead.
    """
    job, settings = item.job, item.job.settings
    if settings.task is not None or settings.annotator is not None:
        # Less strength would only leave more of what was there, and from noise there is no less: other noise instead.
        if job.attempt + 1 >= attempts:
            return None
        return Item(item.source, replace(job, seed=int(unit("again", job.seed) * 2**48), attempt=job.attempt + 1))
    first = restore and settings.strength > 0 and settings.object_strength != 0 and item.source.counts
    if first and job.attempt + 1 < attempts:
        held = replace(settings, object_strength=0.0, object_detail=1.0, feather=settings.feather or FEATHER)
        return Item(item.source, replace(job, settings=held, attempt=job.attempt + 1))
    before = effective_strength(settings), effective_object_strength(settings)
    for attempt in range(job.attempt + 1, attempts):
        settings = _weaker(settings)
        if (effective_strength(settings), effective_object_strength(settings)) != before:
            return Item(item.source, replace(job, settings=settings, attempt=attempt))
    return None


@lru_cache(maxsize=4096)
def _weaker(settings: Settings) -> Settings:
    held = settings.object_strength
    return replace(
        settings,
        strength=round(settings.strength * ATTEMPT_FACTOR, 4),
        object_strength=None if held is None else round(held * ATTEMPT_FACTOR, 4),
    )
