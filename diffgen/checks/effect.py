"""Did the edit change the picture at all, and towards its condition?

The limits were tuned on two judges' answers about 227 edits, and tried on others (`scripts/bench/acceptance.py`,
docs/fidelity.md).
"""

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
_DIFFERENCES = {"min_channel", "near_white", "warmth", "highlight"}

# What falls shows as edges that the source does not have, also over a grey street that can get no greyer. Typical: the mean
# of 1 − structure over 34 edits with snow or rain in them.
_FALLING, _NEW_EDGES = {"snow", "rain"}, 0.35
# A low sun takes nothing from the brightest parts: where they get darker, it is a veil.
_GLARE_HIGHLIGHT = -0.05

NIGHT = 0.15  # luminance under which a source is a night: four of five nights in the driving set, and no day
HELD = 0.5  # structure of the whole picture from which on its edges count as kept

# Grey levels. An edit this far from its source has changed, whatever the model's VAE does to pictures (the embedded model's:
# 7 at most, over 68 photographs): its round trip is not made.
NEAR = 20.0
LEAST_ROUND_TRIP = 1.5  # grey levels; a VAE that is better than this, or a source without detail, counts as this


def condition_effect(
    condition: str, source: Mapping[str, float], edited: Mapping[str, float], structure: float | None = None
) -> float | None:
    """How far the `condition_statistics` moved in the condition's direction, 0 to 2.

    0 for a copy or a move the other way, about 1 for a typical case. It is the mean over the condition's statistics of their
    change divided by the typical change, each clipped to −1 to 2; for snow and rain, if that is more, how many new edges
    there are by the `structure` of the whole picture. A prefix does not matter (heavy-fog is fog). None for an unknown
    condition. A high value does not mean that the picture looks real: fog also scores as snow.
    """
    name = condition.rpartition("-")[2]
    typical = _TYPICAL.get(name)
    if typical is None:
        return None
    shares = [_change(statistic, source[statistic], edited[statistic]) / full for statistic, full in typical.items()]
    effect = max(0.0, float(np.clip(shares, -1, 2).mean()))
    if name in _FALLING and structure is not None:
        effect = max(effect, min(2.0, (1 - structure) / _NEW_EDGES))
    if name == "glare" and edited.get("highlight", 1.0) - source.get("highlight", 0.0) < _GLARE_HIGHLIGHT:
        effect = 0.0
    return round(effect, 3)


def _change(name: str, before: float, after: float) -> float:
    return after - before if name in _DIFFERENCES else (after - before) / max(before, 0.01)


def _statistics(facts: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]] | None:
    """Statistics of the source and of the edit; None for tasks, and for records without them. Older records have fewer."""
    if "after" not in facts or "task" in facts:
        return None
    before, after = (dict(zip(STATISTICS, facts[key], strict=False)) for key in ("before", "after"))
    return before, after


def _structure(facts: Mapping[str, Any]) -> float | None:
    """Structure of the whole picture. None for records of diffgen 0.1, so that their folders are exported as before."""
    return facts.get("structure_image") if "change" in facts else None


def judged_effect(facts: Mapping[str, Any], condition: str) -> float | None:
    """The value compared with `checks.effect`; None for records without statistics, unknown conditions, and tasks."""
    statistics = _statistics(facts)
    return None if statistics is None else condition_effect(condition, *statistics, _structure(facts))


def judged_change(facts: Mapping[str, Any]) -> float | None:
    """The value compared with `checks.change`: the distance of the edit from its source over that of the round trip through
    the model's VAE. About 1 for an edit that did nothing. None for one so far away that the round trip was not made, for
    tasks, and for records of an older diffgen."""
    if "round_trip" not in facts:
        return None
    return round(float(facts["change"]) / max(float(facts["round_trip"]), LEAST_ROUND_TRIP), 2)


def judged_brightening(facts: Mapping[str, Any], condition: str) -> float | None:
    """The value compared with `checks.brightened`: the luminance (0 to 1) added to a night whose edges changed.
    None for a daytime source, if the edges stayed, for records without statistics, and for tasks. Also None for dust: people
    accepted brightened dust at night as dust."""
    statistics, structure = _statistics(facts), _structure(facts)
    if statistics is None or structure is None or condition.rpartition("-")[2] == "dust":
        return None
    if statistics[0]["luminance"] >= NIGHT or structure >= HELD:
        return None
    return round(statistics[1]["luminance"] - statistics[0]["luminance"], 3)
