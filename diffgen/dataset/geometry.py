"""Fitting images to a model's working size and back, whole or in tiles. Never crops, distorts or shifts.

Images are (H, W, 3) uint8 RGB arrays, upright. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from diffgen.dataset.images import Pixels
from diffgen.errors import DiffgenError
from diffgen.types import Settings


@dataclass(frozen=True, slots=True)
class Canvas:
    """The placement of a source of size `source` in a working image of `size`: scaled to `inner`, at (`left`, `top`)."""

    source: tuple[int, int]
    inner: tuple[int, int]
    left: int
    top: int
    size: tuple[int, int]


@lru_cache(maxsize=4096)  # many sources are of few sizes
def canvas_of(width: int, height: int, long_side: int, multiple: int, smallest: int | None = None) -> Canvas:
    """Fit a (width, height) source to a long side of `long_side` pixels and pad both sides to `multiple`.

    With `smallest`, a source with a long side from `smallest` to `long_side` keeps its size.
    """
    longest = max(width, height)
    target = long_side if smallest is None else min(max(longest, smallest), long_side)
    inner = max(1, round(width * target / longest)), max(1, round(height * target / longest))
    size = -(-inner[0] // multiple) * multiple, -(-inner[1] // multiple) * multiple
    return Canvas((width, height), inner, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, size)


def long_side_of(width: int, height: int, native: int) -> int:
    """The long side, in pixels, of a picture with this aspect and the area of native × native."""
    return round(native * math.sqrt(max(width, height) / min(width, height)))


def working_canvas(width: int, height: int, settings: Settings) -> Canvas:
    """The canvas of a (width, height) source: at the working size, or at the source's own size in tiles."""
    longest = max(width, height)
    if settings.mode == "tile" and longest > settings.tile_side:
        return canvas_of(width, height, longest, settings.multiple)
    long_side = settings.long_side or long_side_of(width, height, settings.tile_side)
    return canvas_of(width, height, long_side, settings.multiple, settings.smallest)


def views_for(canvas: Canvas, settings: Settings) -> list[View]:
    """The tiles of a canvas, or the whole of it as one view."""
    side = settings.tile_side // settings.multiple * settings.multiple
    if settings.mode != "tile" or max(canvas.size) <= side:
        return [View(0, 0, canvas.size)]
    return tile_views(canvas.size, side, settings.multiple, side // 4)


@dataclass(frozen=True, slots=True)
class View:
    """A tile of a working image: its corner in pixels, and the size of the `whole` image."""

    left: int
    top: int
    whole: tuple[int, int]


def tile_views(size: tuple[int, int], side: int, step: int, overlap: int) -> list[View]:
    """Tiles of at most `side` pixels that cover a working image of `size` and overlap by at least `overlap`.

    Corners are multiples of `step` (the model's cells). Row by row, from the top left.
    """
    columns, rows = (_starts(length, side, step, overlap) for length in size)
    return [View(left, top, size) for top in rows for left in columns]


def _starts(length: int, side: int, step: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    last = length - side
    return [round(last * i / (count - 1) / step) * step for i in range(count)]


def cut(pixels: NDArray[Any], view: View, side: int) -> NDArray[Any]:
    """A view's tile of an image or mask, at most `side` pixels wide and high."""
    return np.ascontiguousarray(pixels[view.top : view.top + side, view.left : view.left + side])


def merge(tiles: Sequence[Pixels], views: Sequence[View]) -> Pixels:
    """The whole image from its tiles, blended with weights that fall towards each tile's edges, so that no seam shows."""
    width, height = views[0].whole
    total = np.zeros((height, width, 3), dtype=np.float32)
    weights = np.zeros((height, width, 1), dtype=np.float32)
    for tile, view in zip(tiles, views, strict=True):
        rows, columns = (_tent(n) for n in tile.shape[:2])
        weight = (rows[:, None] * columns[None, :])[..., None]
        area = np.s_[view.top : view.top + tile.shape[0], view.left : view.left + tile.shape[1]]
        total[area] += weight * tile
        weights[area] += weight
    return np.asarray((total / weights).round(), dtype=np.uint8)


def _tent(n: int) -> NDArray[np.float32]:
    """1 in the middle, falling linearly to nearly 0 at both ends."""
    distance = np.abs(np.arange(n, dtype=np.float32) - (n - 1) / 2)
    return np.asarray(1 - distance / (n / 2), dtype=np.float32)


def fit(pixels: Pixels, canvas: Canvas, *, mix: bool = True) -> Pixels:
    """The working image (H, W, 3) of a canvas: `pixels` scaled, and padded by reflection, or by its edge if it is too short.

    `pixels` is the canvas's source, or a map of it in any size. Without `mix` the result has no new colours.
    """
    inner = _resize(pixels, canvas.inner, PILImage.Resampling.LANCZOS if mix else PILImage.Resampling.NEAREST)
    for axis, before, total in ((0, canvas.top, canvas.size[1]), (1, canvas.left, canvas.size[0])):
        side = inner.shape[axis]
        after = total - side - before
        if before or after:
            widths = [(before, after) if i == axis else (0, 0) for i in range(3)]
            inner = np.pad(inner, widths, mode="reflect" if max(before, after) < side else "edge")
    return np.ascontiguousarray(inner)


def unfit(pixels: Pixels, canvas: Canvas) -> Pixels:
    """The reverse of `fit`: remove the padding and scale to the source's size. Raises ValueError on a wrong shape."""
    if pixels.shape != (canvas.size[1], canvas.size[0], 3):
        raise ValueError(f"expected an image of shape {(canvas.size[1], canvas.size[0], 3)}, got {pixels.shape}")
    inner = pixels[canvas.top : canvas.top + canvas.inner[1], canvas.left : canvas.left + canvas.inner[0]]
    return _resize(inner, canvas.source)


def _resize(
    pixels: Pixels, size: tuple[int, int], resampling: PILImage.Resampling = PILImage.Resampling.LANCZOS
) -> Pixels:
    """Smaller by `resampling`; larger by cubic interpolation, which OpenCV does twenty times as fast as Pillow."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if resampling == PILImage.Resampling.LANCZOS and size[0] >= width and size[1] >= height:
        import cv2

        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    image = PILImage.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size, resampling), dtype=np.uint8)


def require_opencv() -> None:
    """Raises DiffgenError if OpenCV cannot be imported. Call it before the model is loaded."""
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise DiffgenError(
            f"making images needs OpenCV, which cannot be imported: {error}",
            "pip install opencv-python; if a system library such as libGL is missing: apt-get install libgl1 libglib2.0-0",
        ) from None
