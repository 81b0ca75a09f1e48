"""Where the labelled objects are, as soft masks. Pure; knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffgen.dataset.geometry import Canvas
from diffgen.dataset.labels import Shape
from diffgen.errors import DiffgenError

Mask = NDArray[np.float32]

EDGE = 5  # pixels; an outline lies on the object's edge, which is part of what it looks like


def filled(shapes: Sequence[Shape], canvas: Canvas) -> NDArray[np.bool_]:
    """(H, W) at the canvas's size: whether a pixel is in one of the shapes.

    Boxes (also those of pose rows) and outlines (segments, OBB) alike.
    """
    drawn = Image.new("L", canvas.size, 0)
    pen = ImageDraw.Draw(drawn)
    for shape in shapes:
        x0, y0, x1, y1 = shape.box
        outline = shape.outline or ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        pen.polygon([(canvas.left + x * canvas.inner[0], canvas.top + y * canvas.inner[1]) for x, y in outline], fill=1)
    return np.asarray(drawn).astype(bool)


def traced(shape: Shape, size: tuple[int, int], box: tuple[int, int, int, int]) -> NDArray[np.bool_] | None:
    """What of `box` (x0, y0, x1, y1 in px of a picture of `size`, width and height) the shape's outline holds, its edge
    included; None for a shape without outline."""
    if not shape.outline:
        return None
    canvas = Image.new("L", (max(0, box[2] - box[0]), max(0, box[3] - box[1])), 0)
    pen = ImageDraw.Draw(canvas)
    points = [(x * size[0] - box[0], y * size[1] - box[1]) for x, y in shape.outline]
    pen.polygon(points, fill=1)
    pen.line([*points, points[0]], fill=1, width=EDGE)
    return np.asarray(canvas).astype(bool)


def object_mask(shapes: Sequence[Shape], canvas: Canvas, feather: float) -> Mask:
    """(H, W) in 0–1 at the canvas's size: 1 in labelled objects, falling to 0 within `feather` pixels around them.

    The fall lies outside the object, so that a small one is held as well as a large one.
    """
    import cv2

    if not shapes:
        return np.zeros((canvas.size[1], canvas.size[0]), dtype=np.float32)
    away = cv2.distanceTransform((~filled(shapes, canvas)).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.clip(1 - away / max(feather, 1e-6), 0, 1), dtype=np.float32)


def require_masks() -> None:
    """Raises DiffgenError where OpenCV, which masks, detail and control maps need, cannot be imported: better now than after
    the model."""
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise DiffgenError(
            f"objects.strength, detail, controls and tasks need OpenCV, which cannot be imported: {error}",
            "pip install opencv-python; if a system library such as libGL is missing: apt-get install libgl1 libglib2.0-0",
        ) from None


def own_canvas(width: int, height: int) -> Canvas:
    """The canvas of a picture that is worked on as it is, for masks at the source's own size."""
    return Canvas((width, height), (width, height), 0, 0, (width, height))
