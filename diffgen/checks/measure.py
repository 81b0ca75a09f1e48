"""All facts of an image that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffgen.checks.registration import Spectrum, shift, spectrum
from diffgen.checks.statistics import Small, distance, small, statistics_of
from diffgen.checks.structure import Field, agreement, double_angle, luminance, object_agreement, shorter_side
from diffgen.dataset.bars import NO_BARS, Bars
from diffgen.dataset.images import Pixels
from diffgen.dataset.labels import Shape


@dataclass(frozen=True, slots=True)
class View:
    """The measurements of one picture; a source is measured once for all of its edits. All are taken between its
    uniform bars, except `field`, which covers the whole picture."""

    field: Field
    spectrum: Spectrum
    small: Small
    statistics: tuple[float, ...]
    mean: float  # of the luminance, 0 to 1
    deviation: float


def view(pixels: Pixels, bars: Bars = NO_BARS) -> View:
    """What is measured of a picture (H, W, 3), upright."""
    light = luminance(pixels)
    inner, little = np.ascontiguousarray(bars.inner(light)), small(bars.inner(pixels))
    statistics = tuple(statistics_of(little).values())
    return View(double_angle(light), spectrum(inner), little, statistics, float(inner.mean()), float(inner.std()))


def measure(source: View, edited: View, shapes: Sequence[Shape], bars: Bars = NO_BARS) -> dict[str, Any]:
    """All facts of one edit. `source` and `edited` are of one size, with the same `bars`.

    Keys: `luminance` and `contrast` (mean and standard deviation, 0–1), `shift_px` and `shift_peak` (see `registration`),
    `structure` (see `agreement`; one value per shape, in label order), `sides_px` (shorter side of each shape's box),
    `structure_image` (of the whole picture), `change` (see `distance`), `before` and `after` (`statistics_of`, in the order
    of STATISTICS).
    """
    fields = source.field, edited.field
    height, width = source.field.shape
    per_object = [object_agreement(*fields, shape) for shape in shapes]
    whole = agreement(*fields, (bars.left, bars.top, width - bars.right, height - bars.bottom))
    moved, peak = shift(source.spectrum, edited.spectrum)
    return {
        "luminance": round(edited.mean, 4),
        "contrast": round(edited.deviation, 4),
        "shift_px": round(moved, 2),
        "shift_peak": round(peak, 3),
        "structure": [None if value is None else round(value, 3) for value in per_object],
        "sides_px": [shorter_side(shape, (height, width)) for shape in shapes],
        "structure_image": None if whole is None else round(whole, 3),
        "change": round(distance(source.small, edited.small), 2),
        "before": list(source.statistics),
        "after": list(edited.statistics),
    }


def measure_text2img(image: Pixels, asked: int) -> dict[str, Any]:
    """The facts of a picture (H, W, 3) made from noise: `luminance`, `contrast` (see `measure`), and `asked`, the class id
    that its prompt names."""
    light = luminance(image)
    return {"asked": asked, "luminance": round(float(light.mean()), 4), "contrast": round(float(light.std()), 4)}
