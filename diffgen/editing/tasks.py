"""Where a task paints, and how what it painted is laid over the source."""

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
    """(H, W) in 0–1 at the canvas's size: where the task paints; 0 where the source's pixels stay.

    The fall lies inside what is painted. An object to be painted out or in is grown by half of `feather` (pixels), then the
    mask falls to 0 over the other half; labelled objects that stay are never painted.
    """
    if job.settings.task == "background":
        return 1 - object_mask(shapes, canvas, feather)
    mask = np.minimum(1, 2 * object_mask(painted_shapes(shapes, job), canvas, feather))
    mask[filled(kept_shapes(shapes, job), canvas)] = 0
    return np.asarray(mask, dtype=np.float32)


def working_mask(shapes: Sequence[Shape], job: Job, canvas: Canvas) -> Mask | None:
    """What an editor is told with a picture at the working size: where the task paints, or where objects change less."""
    settings = job.settings
    if settings.task is not None:
        return paint_mask(shapes, job, canvas, settings.feather or 0)
    return None if settings.object_strength is None else object_mask(shapes, canvas, settings.feather or 0)


def composite(source: Pixels, edited: Pixels, mask: Mask) -> Pixels:
    """`edited` as far as `mask` (H, W) in 0–1 says; where it is 0 the source's own pixels, bit for bit. All of one size."""
    before = source.astype(np.float32)
    return np.asarray(np.rint(before + mask[..., None] * (edited - before)), dtype=np.uint8)
