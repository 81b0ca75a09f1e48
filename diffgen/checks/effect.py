"""Did the condition happen? The change of the image statistics against a typical case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffgen.checks.statistics import STATISTICS

# Condition -> statistic -> its change in a plain case: a share of the source's value, a difference where in _DIFFERENCES.
# Means over 8 day frames edited by the embedded model of their day at severity 65, rounded. Only statistics whose direction
# the condition's name promises and that moved that way in every frame then (so snow without near_white, which falls where
# bright ground gets patches); rain by colour alone, which is all that real rain has in common (27 frames: saturation a
# third down, luminance, spread and sky unchanged).
_TYPICAL: dict[str, dict[str, float]] = {
    "night": {"luminance": -0.63, "sky": -0.66},
    "dusk": {"luminance": -0.43, "sky": -0.43},
    "dawn": {"spread": -0.46, "gradient": -0.55},
    "fog": {"gradient": -0.59, "spread": -0.45, "min_channel": 0.23},
    "dust": {"gradient": -0.58, "spread": -0.51, "warmth": 0.21},
    "snow": {"saturation": -0.25, "min_channel": 0.15},
    "rain": {"saturation": -0.5},
    "overcast": {"saturation": -0.54, "spread": -0.3},
    "glare": {"spread": -0.24, "gradient": -0.39, "warmth": 0.09},
}

_DIFFERENCES = {"min_channel", "near_white", "warmth"}


def condition_effect(condition: str, source: Mapping[str, float], edited: Mapping[str, float]) -> float | None:
    """How far a picture moved the way its condition's name promises, by its `condition_statistics`: 0 or more.

    0 for a copy and for a move the other way, about 1 for a plain case, at most 2: the mean over the condition's statistics
    of their change as a share of the plain case's, each −1 to 2. A prefix does not matter (heavy-fog is fog). None for a
    condition that is not known. It says that something of the kind happened, not that it looks true: fog also scores as
    snow; and a source that is so already (night into night) cannot move.
    """
    plain = _TYPICAL.get(condition.rpartition("-")[2])
    if plain is None:
        return None
    shares = [_change(name, source[name], edited[name]) / full for name, full in plain.items()]
    return round(max(0.0, float(np.clip(shares, -1, 2).mean())), 3)


def _change(name: str, before: float, after: float) -> float:
    return after - before if name in _DIFFERENCES else (after - before) / max(before, 0.01)


def judged_effect(facts: Mapping[str, Any], condition: str) -> float | None:
    """The number that `checks.happened` is held against; None for records without it, unknown conditions, and tasks."""
    if "after" not in facts or "task" in facts:
        return None
    before, after = (dict(zip(STATISTICS, facts[key], strict=True)) for key in ("before", "after"))
    return condition_effect(condition, before, after)
