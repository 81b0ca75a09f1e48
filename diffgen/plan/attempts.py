"""The next attempt after a rejected image."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from diffgen.editing.families import effective_object_strength, effective_strength
from diffgen.types import Item, Settings, unit

FEATHER = 12  # pixels at the working size, for restored objects when the recipe sets no feather
ATTEMPT_FACTOR = 0.75  # each attempt has this share of the strength before it


def next_attempt(item: Item, attempts: int, restore: bool = False) -> Item | None:
    """The same image with less strength; None when no attempt is left, or none would give a different image.

    `attempts` is the maximum per image, the first included. Prompt and seed stay: the same snow, thinner. Attempts with
    the same effective strengths as the rejected one are skipped. With `restore`, the first retry keeps the scene's
    strength and leaves the objects unedited, with all of their detail. Tasks and text-to-image retry with another seed.
    """
    job, settings = item.job, item.job.settings
    if settings.task is not None or settings.annotator is not None:
        # A task at less strength leaves more of what it should paint over; text-to-image has no strength to lower.
        if job.attempt + 1 >= attempts:
            return None
        return Item(item.source, replace(job, seed=int(unit("again", job.seed) * 2**48), attempt=job.attempt + 1))
    can_restore = restore and settings.strength > 0 and settings.object_strength != 0 and item.source.counts
    if can_restore and job.attempt + 1 < attempts:
        restored = replace(settings, object_strength=0.0, object_detail=1.0, feather=settings.feather or FEATHER)
        return Item(item.source, replace(job, settings=restored, attempt=job.attempt + 1))
    before = effective_strength(settings), effective_object_strength(settings)
    for attempt in range(job.attempt + 1, attempts):
        settings = _weaker(settings)
        if (effective_strength(settings), effective_object_strength(settings)) != before:
            return Item(item.source, replace(job, settings=settings, attempt=attempt))
    return None


@lru_cache(maxsize=4096)
def _weaker(settings: Settings) -> Settings:
    objects = settings.object_strength
    weaker_objects = None if objects is None else round(objects * ATTEMPT_FACTOR, 4)
    return replace(settings, strength=round(settings.strength * ATTEMPT_FACTOR, 4), object_strength=weaker_objects)
