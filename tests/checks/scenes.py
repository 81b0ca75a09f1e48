"""Images with known objects, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from diffgen.checks.measure import measure, view
from diffgen.dataset.labels import Shape
from tests.fakes import photo

SIZE = (320, 240)
SCENE = photo(11, SIZE)
OBJECT = Shape(0, (0.15, 0.2, 0.45, 0.6))
OTHER = Shape(1, (0.6, 0.5, 0.9, 0.9))


def facts_of(source: np.ndarray, edited: np.ndarray, shapes: Sequence[Shape]) -> dict[str, Any]:
    return measure(view(source), view(edited), shapes)


def moved(pixels: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The picture shifted right by dx and down by dy pixels, the border drawn on."""
    image = Image.fromarray(pixels)
    coefficients = (1, 0, -dx, 0, 1, -dy)
    out = np.array(image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
    border = int(np.ceil(max(abs(dx), abs(dy))))
    return np.pad(out[border:-border, border:-border], ((border, border), (border, border), (0, 0)), mode="edge")
