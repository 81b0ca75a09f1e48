"""Are an object's edges still where they were? Structure agreement by normalised gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.dataset.images import REC_709, Pixels
from diffgen.dataset.labels import Shape
from diffgen.dataset.masks import outline_mask

Plane = NDArray[np.float32]  # (H, W)
Field = NDArray[np.complex64]  # (H, W)

PART = 1 << 18  # values that are worked on at once: less fits a cache better, more lets go of Python's lock for longer
REACH = 3  # rows beyond a part that its double angle depends on
FLAT = 5e-4  # mean gradient of the luminance per pixel: an eighth of one step of an 8-bit picture
MIN_OBJECT_SIDE = (
    8  # pixels; smaller objects have too few gradients to be judged (their agreement is recorded all the same)
)


def measured_objects(facts: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(label row, structure) of the objects that are large enough and have enough edges, except those a task removed."""
    pairs = enumerate(zip(facts.get("structure", ()), facts.get("sides_px", ()), strict=True))
    removed = facts.get("removed", ())
    return [
        (i, value) for i, (value, side) in pairs if value is not None and side >= MIN_OBJECT_SIDE and i not in removed
    ]


def judged_structure(facts: Mapping[str, Any]) -> float | None:
    """The value compared with `checks.structure`: the lower quartile over the `measured_objects`.

    Not the minimum, because one object under snow does not spoil a picture. Not the mean, because many good objects must not
    hide a lost quarter. Without measured objects it is the value of the whole picture, or None for a task, which changes the
    rest of the picture on purpose.
    """
    values = sorted(value for _, value in measured_objects(facts))
    if values:
        return float(values[(len(values) - 1) // 4])
    return None if "task" in facts else facts.get("structure_image")


def luminance(pixels: Pixels) -> Plane:
    """(H, W) in 0–1: Rec. 709 luma of the sRGB values."""
    return np.asarray(pixels.astype(np.float32) @ (REC_709 / 255), dtype=np.float32)


def shrink(plane: Plane, size: tuple[int, int]) -> Plane:
    """A plane scaled down to `size` (width, height) by averaging."""
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX), dtype=np.float32)


def double_angle(plane: Plane) -> Field:
    """The gradient in double-angle form, (H, W): z² / |z| for the gradient z, smoothed by a 5-tap binomial.

    With the angle doubled, an edge equals the same edge with light and dark swapped, which night does to windows and lamps
    (Granlund and Knutsson, Signal Processing for Computer Vision, 1995).
    """
    field: Field = np.zeros(plane.shape, dtype=np.complex64)
    for rows in _parts(plane) if min(plane.shape) > 1 else ():
        first = max(0, rows.start - REACH)
        part = plane[first : rows.stop + REACH]
        for _ in range(2):
            part = _smoothed(_smoothed(part, 0), 1)
        y, x = _slope(part, 0), _slope(part, 1)
        squares = x * x, y * y
        share = np.sqrt(squares[0] + squares[1])
        np.reciprocal(np.maximum(share, np.float32(1e-12), out=share), out=share)
        own = slice(rows.start - first, rows.stop - first)
        field.real[rows] = ((squares[0] - squares[1]) * share)[own]
        field.imag[rows] = (2 * x * y * share)[own]
    return field


def _parts(values: NDArray[Any]) -> list[slice]:
    """The rows of an array in parts that fit a core's cache: whole pictures would go to memory and back at each step."""
    step = max(8, PART // max(1, values[:1].size))
    return [slice(i, min(i + step, len(values))) for i in range(0, len(values), step)]


def object_agreement(before: Field, after: Field, shape: Shape) -> float | None:
    """`agreement` within one shape."""
    box = pixel_box(shape, before.shape)
    return agreement(before, after, box, outline_mask(shape, (before.shape[1], before.shape[0]), box))


def agreement(
    before: Field, after: Field, box: tuple[int, int, int, int], inside: NDArray[np.bool_] | None = None
) -> float | None:
    """How well the edges inside `box` (x0, y0, x1, y1 in pixels) agree, −1 to 1; 1: same structure, about 0: unrelated,
    below 0: crossing edges.

    Only pixels in `inside` (a mask of the box's size) count. None for an empty box, or one without edges in the source (an
    overexposed car).

    The normalised correlation of two double-angle fields. Each is first divided by its magnitude plus the mean magnitude in
    the box, which removes contrast and brightness. After the normalised gradient fields of Haber and Modersitzki (Intensity
    gradient based registration, 2006).
    """
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return None
    cuts = [field[y0:y1, x0:x1] for field in (before, after)]
    if inside is not None:
        cuts = [cut[inside] for cut in cuts]
    if not cuts[0].size:
        return None
    means = [mean_size(cut) for cut in cuts]
    if means[0] < FLAT:
        return None
    both = first = second = 0.0
    for rows in _parts(cuts[0]):
        a, b = (normalised(cut[rows], mean) for cut, mean in zip(cuts, means, strict=True))
        both, first, second = both + float(np.vdot(b, a).real), first + field_power(a), second + field_power(b)
    power = math.sqrt(first * second)
    return both / power if power > 0 else 0.0


def normalised(field: Field, mean: float) -> Field:
    """Divided by its magnitude plus `mean`, that of the whole field."""
    return np.ascontiguousarray(field * (1 / (_size(field) + np.float32(mean + 1e-9))))


def mean_size(field: Field) -> float:
    """The mean magnitude."""
    return float(sum(float(_size(field[rows]).sum(dtype=np.float64)) for rows in _parts(field)) / field.size)


def _size(field: Field) -> Plane:
    """The magnitude. Several times faster than `np.abs`, which guards against overflow that cannot happen here."""
    return np.asarray(np.sqrt(field.real**2 + field.imag**2), dtype=np.float32)


def field_power(field: Field) -> float:
    return float(np.vdot(field, field).real)


def _smoothed(plane: Plane, axis: int) -> Plane:
    """By [1, 2, 1] / 4 along an axis, the edge repeated."""
    p = plane.swapaxes(0, axis)
    if len(p) < 2:
        return plane
    made = np.empty_like(p)
    np.add(p[:-2], p[2:], out=made[1:-1])
    made[1:-1] *= np.float32(0.25)
    made[1:-1] += np.float32(0.5) * p[1:-1]
    for edge, beside in ((0, 1), (-1, -2)):
        made[edge] = np.float32(0.75) * p[edge] + np.float32(0.25) * p[beside]
    return made.swapaxes(0, axis)


def _slope(plane: Plane, axis: int) -> Plane:
    """Central differences along an axis of two pixels or more, one-sided at the ends, as in `np.gradient`."""
    p = plane.swapaxes(0, axis)
    made = np.empty_like(p)
    np.subtract(p[2:], p[:-2], out=made[1:-1])
    made[1:-1] *= np.float32(0.5)
    for edge, first, second in ((0, 1, 0), (-1, -1, -2)):
        made[edge] = p[first] - p[second]
    return made.swapaxes(0, axis)


def pixel_box(shape: Shape, size: tuple[int, ...], grow: float = 0.0) -> tuple[int, int, int, int]:
    """The shape's box, x0, y0, x1, y1, in pixels of a picture of `size` (height, width); `grow` pixels more on each side."""
    height, width = size
    x0, y0, x1, y1 = shape.box
    left, top = max(0, int(np.floor(x0 * width - grow))), max(0, int(np.floor(y0 * height - grow)))
    return left, top, min(width, int(np.ceil(x1 * width + grow))), min(height, int(np.ceil(y1 * height + grow)))


def shorter_side(shape: Shape, size: tuple[int, ...]) -> float:
    """Of the shape's box, in pixels, in a picture of `size` (height, width)."""
    x0, y0, x1, y1 = shape.box
    return round(min((x1 - x0) * size[1], (y1 - y0) * size[0]), 1)
