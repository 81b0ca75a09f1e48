"""Brings lost objects back: where an edit has painted over a labelled object, the source's pixels return, in its light.

What the edit did to the light around the object is taken for what it would have done to the object, as an affine change of
each channel, `edit = contrast × source + veil`: at night the contrast falls, in fog dark things also become pale (the air
light of Koschmieder's law), in snow and rain neither changes much. Pure: arrays in and out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffgen.checks.structure import Field, Plane, double_angle, luminance, object_agreement, pixel_box
from diffgen.dataset.images import Pixels
from diffgen.dataset.labels import Shape
from diffgen.dataset.masks import Mask, identity_canvas, object_mask

SIDE = 320  # px; the long side at which light is measured
AROUND = 1.0  # sides of its box; how far around an object light is measured
LEAST_AROUND = 8  # px of the small picture
LOW, HIGH = 5, 75  # percentiles that stand for the dark and the light: lamps and clouds are above the second
LEAST_CONTRAST = 0.1  # of an object, compared with its source's
MIN_FREE = 40  # px of the small picture; with less around an object, the light of the whole picture counts


def lost_objects(before: Field, edited: Pixels, shapes: Sequence[Shape], least: float) -> tuple[int, ...]:
    """The rows of the shapes whose structure (see `agreement`) is below `least`. Flat ones cannot be lost. `before` is the
    source's `double_angle`."""
    after = double_angle(luminance(edited))
    found = (object_agreement(before, after, shape) for shape in shapes)
    return tuple(row for row, value in enumerate(found) if value is not None and value < least)


def with_objects(
    source: Pixels, edited: Pixels, shapes: Sequence[Shape], rows: Sequence[int], feather: float
) -> Pixels:
    """`edited` with the objects of these rows as in `source`, in the light around them.

    Pictures are (H, W, 3) of one size; `feather` is in pixels. Farther than that from these objects nothing changes.
    """
    if not rows:
        return edited
    import cv2

    height, width = edited.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    before, after = (
        np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8) for picture in (source, edited)
    )
    free = object_mask(shapes, identity_canvas(*size), 1.0) == 0
    made = edited.astype(np.float32)
    for row in rows:
        x0, y0, x1, y1 = pixel_box(shapes[row], (height, width), grow=feather + 1)
        if x1 <= x0 or y1 <= y0:
            continue
        contrast, veil = _light(before, after, shapes[row], free)
        inside = _mask_of(shapes[row], (width, height), (x0, y0, x1, y1), feather)[..., None]
        relit = contrast * source[y0:y1, x0:x1] + veil
        made[y0:y1, x0:x1] += inside * (relit - made[y0:y1, x0:x1])
    return np.asarray(np.rint(made.clip(0, 255)), dtype=np.uint8)


def _light(before: Pixels, after: Pixels, shape: Shape, free: NDArray[np.bool_]) -> tuple[Plane, Plane]:
    """(contrast, veil) of each channel, (3,), from what is around a shape and in no object."""
    size = free.shape
    x0, y0, x1, y1 = shape.box
    reach = max(LEAST_AROUND, AROUND * max((x1 - x0) * size[1], (y1 - y0) * size[0]))
    left, top, right, bottom = pixel_box(shape, size, grow=reach)
    near = np.zeros(size, bool)
    near[top:bottom, left:right] = free[top:bottom, left:right]
    where = near if near.sum() >= MIN_FREE else free if free.sum() >= MIN_FREE else np.ones(size, bool)
    (dark, light), (dark_after, light_after) = (
        np.percentile(picture[where].astype(np.float32), [LOW, HIGH], axis=0) for picture in (before, after)
    )
    contrast = ((light_after - dark_after) / np.maximum(light - dark, 1)).clip(LEAST_CONTRAST, 1)
    veil = (dark_after - contrast * dark).clip(0)
    return np.asarray(contrast, np.float32), np.asarray(veil, np.float32)


def _mask_of(shape: Shape, size: tuple[int, int], box: tuple[int, int, int, int], feather: float) -> Mask:
    """The `object_mask` of one shape in a part of the picture."""
    (width, height), (x0, y0, x1, y1) = size, box

    def moved(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        return tuple(((x * width - x0) / (x1 - x0), (y * height - y0) / (y1 - y0)) for x, y in points)

    corners = moved([shape.box[:2], shape.box[2:]])
    part = Shape(shape.class_id, (*corners[0], *corners[1]), moved(shape.outline) if shape.outline else None)
    return object_mask([part], identity_canvas(x1 - x0, y1 - y0), feather)
