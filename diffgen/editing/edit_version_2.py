"""The strengths of images made by diffgen 0.1, so that run folders of edit version 2 can be judged and exported as they are.

There, strength was the share of a schedule of whole steps, and every number of steps had its own levels.
"""

from __future__ import annotations

from diffgen.types import Settings

EDIT_VERSION_2 = 2
# Steps of short names that have others now.
STEPS = {"sd-turbo": 2, "sdxl-turbo": 2, "sd3.5-large-turbo": 3, "flux1-schnell": 3, "z-image-turbo": 6}


def effective_strength(settings: Settings) -> float:
    if settings.strength <= 0:
        return 0.0
    return settings.steps / _total(settings)


def effective_object_strength(settings: Settings) -> float | None:
    if settings.object_strength is None or settings.strength <= 0:
        return None
    total = _total(settings)
    return min(settings.steps, round(total * settings.object_strength)) / total


def _total(settings: Settings) -> int:
    """The number of steps in the whole schedule; the last `settings.steps` of them were run."""
    steps, strength = settings.steps, settings.strength
    most = 50 if settings.scheduler in ("lcm", "LCMScheduler") else 999
    near = min(max(steps / strength, steps), max(most, steps))
    return min(
        (int(near) + 1, int(near)), key=lambda n: (abs(steps / n - strength), steps / n) if n <= most else (2, 0)
    )
