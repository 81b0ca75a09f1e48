"""Masks of the labelled objects. Pure; knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffgen.dataset.geometry import Canvas
from diffgen.dataset.labels import Shape

Mask = NDArray[np.float32]

EDGE = 5  # pixels; width of the line around an outline, because the object's edge belongs to its structure


def filled(shapes: Sequence[Shape], canvas: Canvas) -> NDArray[np.bool_]:
    """(H, W) at the canvas's size: whether a pixel is in one of the shapes, by outline (segments, OBB) or else by box."""
    drawn = Image.new("L", canvas.size, 0)
    pen = ImageDraw.Draw(drawn)
    for shape in shapes:
        x0, y0, x1, y1 = shape.box
        outline = shape.outline or ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        pen.polygon([(canvas.left + x * canvas.inner[0], canvas.top + y * canvas.inner[1]) for x, y in outline], fill=1)
    return np.asarray(drawn).astype(bool)


def outline_mask(shape: Shape, size: tuple[int, int], box: tuple[int, int, int, int]) -> NDArray[np.bool_] | None:
    """A mask of the pixels of `box` inside the shape's outline or on its edge; None for a shape without outline.

    `box` is x0, y0, x1, y1 in pixels of a picture of `size` (width, height).
    """
    if not shape.outline:
        return None
    drawn = Image.new("L", (max(0, box[2] - box[0]), max(0, box[3] - box[1])), 0)
    pen = ImageDraw.Draw(drawn)
    points = [(x * size[0] - box[0], y * size[1] - box[1]) for x, y in shape.outline]
    pen.polygon(points, fill=1)
    pen.line([*points, points[0]], fill=1, width=EDGE)
    return np.asarray(drawn).astype(bool)


def object_mask(shapes: Sequence[Shape], canvas: Canvas, feather: float) -> Mask:
    """(H, W) in 0–1 at the canvas's size: 1 in labelled objects, falling to 0 over `feather` pixels around them.

    The transition lies outside the object, so that small objects are covered in full.
    """
    import cv2

    if not shapes:
        return np.zeros((canvas.size[1], canvas.size[0]), dtype=np.float32)
    distance = cv2.distanceTransform((~filled(shapes, canvas)).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.clip(1 - distance / max(feather, 1e-6), 0, 1), dtype=np.float32)


def identity_canvas(width: int, height: int) -> Canvas:
    """The canvas without scaling and padding, for masks at the source's own size."""
    return Canvas((width, height), (width, height), 0, 0, (width, height))
