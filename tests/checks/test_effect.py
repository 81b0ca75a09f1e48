"""Facts of pictures that two judges answered about, and what the checks make of them.

(luminance, saturation, min_channel, highlight) of source and edit, the structure of the whole picture.
"""

from __future__ import annotations

from typing import Any

import pytest

from diffgen.checks.effect import condition_effect, judged_brightening, judged_effect
from diffgen.checks.statistics import STATISTICS
from diffgen.checks.verdict import judge
from diffgen.recipe.sections import Checks
from diffgen.types import Record

DAY = {
    "luminance": 0.4, "spread": 0.24, "saturation": 0.2, "min_channel": 0.35, "gradient": 0.035, "near_white": 0.1,
    "sky": 0.55, "warmth": 0.0, "highlight": 0.86,
}  # fmt: skip


def facts(structure: float, source: dict[str, float], edited: dict[str, float], **more: Any) -> dict[str, Any]:
    rows = {"before": {**DAY, **source}, "after": {**DAY, **source, **edited}}
    listed = {key: [row[name] for name in STATISTICS] for key, row in rows.items()}
    return {
        "contrast": 0.2, "change": 30.0, "shift_px": 0.0, "shift_peak": 0.9, "structure": [], "sides_px": [],
        "structure_image": structure, **listed, **more,
    }  # fmt: skip


def reason(condition: str, measured: dict[str, Any], **checks: Any) -> str | None:
    return judge(Record("x", "made", measured), Checks(**checks), condition).reason


def test_snow_over_a_street_that_can_get_no_greyer_is_snow() -> None:
    grey = {"saturation": 0.03, "min_channel": 0.6}
    assert reason("heavy-snow", facts(0.53, grey, {"saturation": 0.1, "min_channel": 0.5})) is None
    assert reason("rain", facts(0.7, {"saturation": 0.0}, {"saturation": 0.02})) is None
    assert reason("fog", facts(0.53, grey, {"saturation": 0.1, "min_channel": 0.5})) == "weak-effect", (
        "nothing falls in it"
    )
    assert reason("snow", facts(0.97, grey, {"saturation": 0.1, "min_channel": 0.5})) == "weak-effect", "no flake"


@pytest.mark.parametrize(("highlight", "expected"), [(0.97, None), (0.84, None), (0.68, "weak-effect")])
def test_glare_takes_nothing_from_the_brightest(highlight: float, expected: str | None) -> None:
    edited = {"spread": 0.2, "gradient": 0.02, "warmth": 0.08, "highlight": highlight}
    assert reason("glare", facts(0.9, {}, edited)) == expected


NIGHT = {"luminance": 0.07, "sky": 0.05, "spread": 0.1, "highlight": 0.3}


@pytest.mark.parametrize(
    ("structure", "source", "luminance", "condition", "expected"),
    [
        (0.25, NIGHT, 0.32, "heavy-rain", "brightened"),
        (0.25, NIGHT, 0.32, "wet-street", "brightened"),
        (0.25, NIGHT, 0.15, "heavy-rain", None),
        (0.6, NIGHT, 0.32, "heavy-rain", None),
        (0.25, {"luminance": 0.2}, 0.5, "heavy-rain", None),
        (0.44, NIGHT, 0.33, "wind-of-dust", None),
    ],
    ids=["smoke", "of my own", "a little light", "its edges stay", "by day", "dust"],
)
def test_smoke_over_a_night(
    structure: float, source: dict[str, float], luminance: float, condition: str, expected: str | None
) -> None:
    measured = facts(structure, source, {"luminance": luminance, "saturation": 0.05})
    assert reason(condition, measured, effect=None) == expected
    assert reason(condition, measured, effect=None, brightened=None) is None


def test_records_of_diffgen_0_1_are_judged_as_they_were() -> None:
    """They have eight statistics and no `change`."""
    grey = {"saturation": 0.03, "min_channel": 0.6}
    new = facts(0.53, grey, {"saturation": 0.1, "min_channel": 0.5})
    old = {key: value[:8] if key in ("before", "after") else value for key, value in new.items() if key != "change"}
    assert judged_effect(old, "snow") == 0.0 < (judged_effect(new, "snow") or 0)
    veil = facts(0.9, {}, {"spread": 0.2, "gradient": 0.02, "warmth": 0.08, "highlight": 0.6})
    assert judged_effect(veil, "glare") == 0.0
    old = {key: value[:8] if key in ("before", "after") else value for key, value in veil.items() if key != "change"}
    assert judged_effect(old, "glare") == condition_effect(
        "glare", DAY, {**DAY, "spread": 0.2, "gradient": 0.02, "warmth": 0.08}
    )
    night = facts(0.25, NIGHT, {"luminance": 0.4})
    assert judged_brightening(night, "fog") == 0.33
    del night["change"]
    assert judged_brightening(night, "fog") is None
