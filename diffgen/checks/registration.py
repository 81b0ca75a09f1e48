"""How far an edit is shifted against its source, in pixels, by orientation correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.checks.structure import Plane, double_angle, field_power, mean_size, normalised, shrink

REGISTRATION_SIDE = 640  # pixels; longer pictures are scaled down to this first
MIN_PEAK = 0.1  # below this correlation, source and edit have too little in common to measure a shift


def judged_shift(facts: Mapping[str, Any]) -> float | None:
    """The value compared with `checks.registration`, in pixels; None if the correlation is too low, or without a source.
    None for a task, too: it keeps the source's own pixels, and what it paints has no counterpart in the source."""
    if "task" in facts or facts.get("shift_peak", 0.0) < MIN_PEAK:
        return None
    return float(facts["shift_px"])


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A picture as `shift` compares it: the spectrum of its gradient directions at REGISTRATION_SIDE, their power, and how
    many pixels of the picture one of these is."""

    values: NDArray[Any]  # (H, W), complex
    power: float
    scale: float


def spectrum(plane: Plane) -> Spectrum:
    """The spectrum of a luminance plane, (H, W)."""
    scale = max(plane.shape) / min(max(plane.shape), REGISTRATION_SIDE)
    if scale > 1:
        plane = shrink(plane, (max(1, round(plane.shape[1] / scale)), max(1, round(plane.shape[0] / scale))))
    field = double_angle(plane)
    field = normalised(field, mean_size(field)) * np.outer(*(_window(n) for n in plane.shape)).astype(np.float32)
    return Spectrum(np.fft.fft2(field), field_power(field), scale)


def shift(before: Spectrum, after: Spectrum) -> tuple[float, float]:
    """(shift, peak): the shift of `after` against `before` in pixels, and the correlation there (0–1). Of one size.

    Orientation correlation (Fitch, Kadyrov, Christmas, Kittler, BMVC 2002): phase correlation of gradient directions, which
    light and weather change least. A parabola through the peak gives sub-pixel precision. Finds shifts of up to an eighth of
    the shorter side.
    """
    power = math.sqrt(before.power * after.power)
    if power == 0:
        return 0.0, 0.0
    surface = np.fft.ifft2(after.values * before.values.conj()).real / power
    reach = max(1, min(surface.shape) // 8)
    near = np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    dy, dx = _vertex(near[:, x], int(y)) - reach, _vertex(near[y, :], int(x)) - reach
    return float(np.hypot(dx, dy)) * before.scale, float(near[y, x])


def registration(before: Plane, after: Plane) -> tuple[float, float]:
    """The `shift` of two luminance planes, (H, W)."""
    return shift(spectrum(before), spectrum(after))


def _vertex(line: NDArray[Any], i: int) -> float:
    """Position of the maximum of the parabola through line[i−1 … i+1]; i itself at the border."""
    if not 0 < i < len(line) - 1:
        return float(i)
    left, middle, right = (float(v) for v in line[i - 1 : i + 2])
    bend = left - 2 * middle + right
    return i if bend >= 0 else i + 0.5 * (left - right) / bend


def _window(n: int) -> NDArray[Any]:
    return np.hanning(n + 2)[1:-1]
