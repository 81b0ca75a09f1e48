"""Did the edit change the picture at all, and towards its condition?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffgen.checks.statistics import STATISTICS

# Condition -> statistic -> its change in a typical case: relative to the source's value, or a difference if in _DIFFERENCES.
# Rounded means over 8 day frames, edited by the pocket model of the time at severity 65. Only statistics that the
# condition's name implies and that moved that way in every frame. Snow lacks near_white, which falls where bright ground
# gets patches. Rain has saturation alone, which is all that real rain has in common (27 frames: saturation a third lower;
# luminance, spread and sky unchanged).
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


# Grey levels. An edit this far from its source has changed, whatever the model's VAE does to pictures (the embedded model's:
# 7 at most, over 68 photographs): its round trip is not made.
NEAR = 20.0
LEAST_ROUND_TRIP = 1.5  # grey levels; a VAE that is better than this, or a source without detail, counts as this


def condition_effect(condition: str, source: Mapping[str, float], edited: Mapping[str, float]) -> float | None:
    """How far the `condition_statistics` moved in the condition's direction, 0 to 2.

    0 for a copy or a move the other way, about 1 for a typical case. It is the mean over the condition's statistics of their
    change divided by the typical change, each clipped to −1 to 2. A prefix does not matter (heavy-fog is fog). None for an
    unknown condition. A high value does not mean that the picture looks real: fog also scores as snow. A source that already
    shows the condition (night to night) cannot move.
    """
    typical = _TYPICAL.get(condition.rpartition("-")[2])
    if typical is None:
        return None
    shares = [_change(name, source[name], edited[name]) / full for name, full in typical.items()]
    return round(max(0.0, float(np.clip(shares, -1, 2).mean())), 3)


def _change(name: str, before: float, after: float) -> float:
    return after - before if name in _DIFFERENCES else (after - before) / max(before, 0.01)


def judged_effect(facts: Mapping[str, Any], condition: str) -> float | None:
    """The value compared with `checks.effect`; None for records without statistics, unknown conditions, and tasks."""
    if "after" not in facts or "task" in facts:
        return None
    before, after = (dict(zip(STATISTICS, facts[key], strict=True)) for key in ("before", "after"))
    return condition_effect(condition, before, after)


def judged_change(facts: Mapping[str, Any]) -> float | None:
    """The value compared with `checks.change`: the distance of the edit from its source over that of the round trip through
    the model's VAE. About 1 for an edit that did nothing. None for one so far away that the round trip was not made, for
    tasks, and for records of an older diffgen."""
    if "round_trip" not in facts:
        return None
    return round(float(facts["change"]) / max(float(facts["round_trip"]), LEAST_ROUND_TRIP), 2)
