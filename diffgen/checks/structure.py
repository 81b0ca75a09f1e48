"""Are an object's edges still where they were? Structure agreement by normalised gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.images import REC_709, Pixels
from diffgen.dataset.labels import Shape
from diffgen.dataset.masks import outline_mask

Plane = NDArray[np.float32]  # (H, W)
Field = NDArray[np.complex64]  # (H, W)

PART = 1 << 18  # values that are worked on at once: less fits a cache better, more lets go of Python's lock for longer
BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16
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
    import cv2

    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def double_angle(plane: Plane) -> Field:
    """The gradient in double-angle form, (H, W): its magnitude, at twice its angle; smoothed by a 5-tap binomial.

    With the angle doubled, an edge equals the same edge with light and dark swapped, which night does to windows and lamps
    (Granlund and Knutsson, Signal Processing for Computer Vision, 1995).
    """
    import cv2

    border = cv2.BORDER_REPLICATE
    smooth = cv2.sepFilter2D(plane, -1, BINOMIAL, BINOMIAL, borderType=border)
    x, y = (cv2.Sobel(smooth, -1, *way, ksize=1, scale=0.5, borderType=border) for way in ((1, 0), (0, 1)))
    size, angle = cv2.cartToPolar(x, y)
    both = cv2.merge(cv2.polarToCart(size, np.add(angle, angle)))
    return np.asarray(both).view(np.complex64)[..., 0]


def _parts(values: NDArray[Any]) -> list[slice]:
    """The rows of an array in parts that fit a core's cache; whole pictures would be written to memory and read back
    each step."""
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


def pixel_box(shape: Shape, size: tuple[int, ...], grow: float = 0.0) -> tuple[int, int, int, int]:
    """The shape's box, x0, y0, x1, y1, in pixels of a picture of `size` (height, width); `grow` pixels more on each side."""
    height, width = size
    x0, y0, x1, y1 = shape.box
    left, top = max(0, int(np.floor(x0 * width - grow))), max(0, int(np.floor(y0 * height - grow)))
    return left, top, min(width, int(np.ceil(x1 * width + grow))), min(height, int(np.ceil(y1 * height + grow)))


def shorter_side(shape: Shape, size: tuple[int, ...]) -> float:
    """The shorter side of the shape's box, in pixels of a picture of `size` (height, width)."""
    x0, y0, x1, y1 = shape.box
    return round(min((x1 - x0) * size[1], (y1 - y0) * size[0]), 1)
