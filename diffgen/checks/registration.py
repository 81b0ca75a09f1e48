"""How far an edit is shifted against its source, in pixels, by orientation correlation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.checks.structure import Plane, double_angle, field_power, normalised, shrink

REGISTRATION_SIDE = 640  # pixels; longer pictures are scaled down to this first
MIN_PEAK = 0.1  # below this correlation, source and edit have too little in common to measure a shift


def judged_shift(facts: Mapping[str, Any]) -> float | None:
    """The value compared with `checks.registration`, in pixels; None if the correlation is too low, or without a source."""
    if facts.get("shift_peak", 0.0) < MIN_PEAK:
        return None
    return float(facts["shift_px"])


def registration(before: Plane, after: Plane) -> tuple[float, float]:
    """(shift, peak): the shift of `after` against `before` in pixels, and the correlation there (0–1). Planes are (H, W).

    Orientation correlation (Fitch, Kadyrov, Christmas, Kittler, BMVC 2002): phase correlation of gradient directions, which
    light and weather change least. A parabola through the peak gives sub-pixel precision. Finds shifts of up to an eighth of
    the shorter side.
    """
    scale = max(before.shape) / min(max(before.shape), REGISTRATION_SIDE)
    if scale > 1:
        size = max(1, round(before.shape[1] / scale)), max(1, round(before.shape[0] / scale))
        before, after = shrink(before, size), shrink(after, size)
    window = np.outer(_window(before.shape[0]), _window(before.shape[1])).astype(np.float32)
    a, b = (normalised(double_angle(plane)) * window for plane in (before, after))
    power = np.sqrt(field_power(a) * field_power(b))
    if power == 0:
        return 0.0, 0.0
    surface = np.fft.ifft2(np.fft.fft2(b) * np.fft.fft2(a).conj()).real / power
    reach = max(1, min(before.shape) // 8)
    near = np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    dy, dx = _vertex(near[:, x], int(y)) - reach, _vertex(near[y, :], int(x)) - reach
    return float(np.hypot(dx, dy)) * scale, float(near[y, x])


def _vertex(line: NDArray[Any], i: int) -> float:
    """Position of the maximum of the parabola through line[i−1 … i+1]; i itself at the border."""
    if not 0 < i < len(line) - 1:
        return float(i)
    left, middle, right = (float(v) for v in line[i - 1 : i + 2])
    bend = left - 2 * middle + right
    return i if bend >= 0 else i + 0.5 * (left - right) / bend


def _window(n: int) -> NDArray[Any]:
    return np.hanning(n + 2)[1:-1]
