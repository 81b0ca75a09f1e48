"""Strength as noise levels: at which levels of the model's own schedule the steps that are run begin. Imports no torch.

A level is a share of the schedule that the model was trained with, at its native size: 1 is its top, pure noise or nearly.
So a strength means the same at every picture size and every number of steps.
"""

from __future__ import annotations

from diffgen.editing import edit_version_2
from diffgen.types import Settings

TRAIN_STEPS = 1000  # noise levels that diffusion models are trained with; flow matching has every level


def levels(settings: Settings) -> tuple[float, ...]:
    """The levels at which the steps that are run begin, falling from the strength; the last step ends at 0.

    They are evenly spaced. A distilled model knows only the levels it was distilled at, `settings.levels` of them: its
    first is the one nearest to the strength, but 1 only for the strength 1, and no more than lie below are run.
    """
    strength, steps = settings.strength, settings.steps
    if strength <= 0:
        return ()
    if settings.levels is None:
        count = min(steps, max(1, round(strength * TRAIN_STEPS)))
        return tuple(strength * (1 - i / count) for i in range(count))
    known = settings.levels
    # Of two equally near the lower.
    start = known if strength == 1 else min(range(1, max(known, 2)), key=lambda k: abs(k / known - strength))
    count = min(steps, start)
    return tuple((start - int(i * start / count)) / known for i in range(count))


def effective_strength(settings: Settings) -> float:
    """The level at which an image with these settings really begins."""
    if settings.edit_version == edit_version_2.EDIT_VERSION_2:
        return edit_version_2.effective_strength(settings)
    return round(levels(settings)[0], 4) if settings.strength > 0 else 0.0


def object_steps(settings: Settings) -> int:
    """How many of the steps run inside objects: those from the level that is nearest to their strength."""
    wanted, run = settings.object_strength or 0.0, levels(settings)
    starts = (*run, 0.0)
    return min(range(len(run) + 1), key=lambda k: (round(abs(starts[len(run) - k] - wanted), 9), k))


def effective_object_strength(settings: Settings) -> float | None:
    """The level at which objects really begin; None where they begin with the scene."""
    if settings.edit_version == edit_version_2.EDIT_VERSION_2:
        return edit_version_2.effective_object_strength(settings)
    if settings.object_strength is None or settings.strength <= 0:
        return None
    run = levels(settings)
    return round((*run, 0.0)[len(run) - object_steps(settings)], 4)
