"""Masks of where a task paints, and compositing the result over the source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffgen.checks.tasks import kept_shapes, painted_shapes
from diffgen.dataset.geometry import Canvas
from diffgen.dataset.images import Pixels
from diffgen.dataset.labels import Shape
from diffgen.dataset.masks import Mask, filled, object_mask
from diffgen.types import Job


def paint_mask(shapes: Sequence[Shape], job: Job, canvas: Canvas, feather: float) -> Mask:
    """(H, W) in 0–1 at the canvas's size: 1 where the task paints, 0 where the source's pixels stay.

    The transition lies inside the painted area. A removed or inserted object is grown by half of `feather` (pixels), and the
    mask falls to 0 over the other half. Kept objects are never painted.
    """
    if job.settings.task == "background":
        return 1 - object_mask(shapes, canvas, feather)
    mask = np.minimum(1, 2 * object_mask(painted_shapes(shapes, job), canvas, feather))
    mask[filled(kept_shapes(shapes, job), canvas)] = 0
    return np.asarray(mask, dtype=np.float32)


def working_mask(shapes: Sequence[Shape], job: Job, canvas: Canvas) -> Mask | None:
    """The mask (H, W) for the editor: where the task paints, or else where `object_strength` holds; None without either."""
    settings = job.settings
    if settings.task is not None:
        return paint_mask(shapes, job, canvas, settings.feather or 0)
    return None if settings.object_strength is None else object_mask(shapes, canvas, settings.feather or 0)


def composite(source: Pixels, edited: Pixels, mask: Mask) -> Pixels:
    """`edited` over `source`, weighted by `mask` (H, W) in 0–1. All of one size. Bit for bit the source where it is 0."""
    before = source.astype(np.float32)
    return np.asarray(np.rint(before + mask[..., None] * (edited - before)), dtype=np.uint8)
