"""Are an object's edges still where they were? Structure agreement by normalised gradients."""

from __future__ import annotations

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
    smooth = _binomial(_binomial(plane))
    gy, gx = np.gradient(smooth) if min(plane.shape) > 1 else (np.zeros_like(plane), np.zeros_like(plane))
    z: Field = np.asarray(gx + 1j * gy, dtype=np.complex64)
    return np.asarray(z * z * (1 / np.maximum(_size(z), np.float32(1e-12))), dtype=np.complex64)


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
    if not cuts[0].size or _size(cuts[0]).mean() < FLAT:
        return None
    a, b = (normalised(cut) for cut in cuts)
    power = np.sqrt(field_power(a) * field_power(b))
    return float(np.vdot(b, a).real / power) if power > 0 else 0.0


def normalised(field: Field) -> Field:
    size = _size(field)
    return np.ascontiguousarray(field * (1 / (size + size.mean() + np.float32(1e-9))))


def _size(field: Field) -> Plane:
    """The magnitude. Several times faster than `np.abs`, which guards against overflow that cannot happen here."""
    return np.asarray(np.sqrt(field.real**2 + field.imag**2), dtype=np.float32)


def field_power(field: Field) -> float:
    return float(np.vdot(field, field).real)


def _binomial(plane: Plane) -> Plane:
    for axis in (0, 1):
        padded = np.pad(plane, [(1, 1) if i == axis else (0, 0) for i in (0, 1)], mode="edge")
        lower, upper = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        plane = 0.5 * plane + 0.25 * (lower + upper)
    return plane


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
