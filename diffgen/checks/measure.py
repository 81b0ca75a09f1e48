"""All facts of an image that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffgen.checks.registration import registration
from diffgen.checks.statistics import condition_statistics, distance
from diffgen.checks.structure import agreement, double_angle, luminance, object_agreement, shorter_side
from diffgen.dataset.bars import NO_BARS, Bars
from diffgen.dataset.images import Pixels
from diffgen.dataset.labels import Shape


def measure(source: Pixels, edited: Pixels, shapes: Sequence[Shape], bars: Bars = NO_BARS) -> dict[str, Any]:
    """All facts of one edit. `source` and `edited` are (H, W, 3) of one size, upright. What concerns the whole picture is
    measured between its `bars`.

    Keys: `luminance` and `contrast` (mean and standard deviation, 0–1), `shift_px` and `shift_peak` (see `registration`),
    `structure` (see `agreement`; one value per shape, in label order), `sides_px` (shorter side of each shape's box),
    `structure_image` (of the whole picture), `change` (see `distance`), `before` and `after` (`condition_statistics` in the
    order of STATISTICS).
    """
    light = luminance(source), luminance(edited)
    fields = double_angle(light[0]), double_angle(light[1])
    per_object = [object_agreement(*fields, shape) for shape in shapes]
    height, width = source.shape[:2]
    whole = agreement(*fields, (bars.left, bars.top, width - bars.right, height - bars.bottom))
    before, after = (np.ascontiguousarray(bars.inner(plane)) for plane in light)
    shift, peak = registration(before, after)
    return {
        "luminance": round(float(after.mean()), 4),
        "contrast": round(float(after.std()), 4),
        "shift_px": round(shift, 2),
        "shift_peak": round(peak, 3),
        "structure": [None if value is None else round(value, 3) for value in per_object],
        "sides_px": [shorter_side(shape, (height, width)) for shape in shapes],
        "structure_image": None if whole is None else round(whole, 3),
        "change": round(distance(bars.inner(source), bars.inner(edited)), 2),
        "before": list(condition_statistics(bars.inner(source)).values()),
        "after": list(condition_statistics(bars.inner(edited)).values()),
    }


def measure_text2img(image: Pixels, asked: int) -> dict[str, Any]:
    """The facts of a picture (H, W, 3) made from noise: `luminance`, `contrast` (see `measure`), and `asked`, the class id
    that its prompt names."""
    light = luminance(image)
    return {"asked": asked, "luminance": round(float(light.mean()), 4), "contrast": round(float(light.std()), 4)}
