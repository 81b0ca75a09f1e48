"""Uniform bars along a picture's sides: letterboxing, grey padding, a strip masked with one colour. Edits leave them alone.

A false bar would leave a strip of daylight over a night. So a bar is of one colour in every pixel, and ends at once along
most of its length. Skies, whether blown out, graded or black, end raggedly or slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.images import Pixels

NOISE = 4  # maximum difference of a bar's pixels from its colour, in grey levels of any channel
REACH = 17  # lines that JPEG disturbs before the edge: a block of 16 where colour is halved, and one by interpolation
STEP = 12  # minimum difference of the pixels beyond a bar's edge from its colour, in grey levels
SHARE = 0.5  # of the pixels that do, in the first line beyond it
THINNEST = 4  # px
LARGEST = 0.8  # of the side, both bars together: beyond it there is no picture to edit


@dataclass(frozen=True, slots=True)
class Bars:
    """How many pixels thick the bars are; 0 for none."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)

    def inner(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The part of an array (H, W, …) between the bars; a view, not a copy."""
        height, width = pixels.shape[:2]
        return pixels[self.top : height - self.bottom, self.left : width - self.right]

    def held(self, source: Pixels, edited: Pixels) -> Pixels:
        """`edited` with the source's own pixels in the bars. Both are (H, W, 3)."""
        if not self:
            return edited
        made = source.copy()
        self.inner(made)[:] = self.inner(edited)
        return made


NO_BARS = Bars()


def find_bars(pixels: Pixels) -> Bars:
    """The uniform bars of a picture (H, W, 3); none in a picture of one colour."""
    top, bottom = _pair(pixels)
    rows = pixels[top : pixels.shape[0] - bottom]
    left, right = _pair(rows.swapaxes(0, 1))
    return Bars(top, bottom, left, right)


def _pair(lines: Pixels) -> tuple[int, int]:
    first, last = _bar(lines), _bar(lines[::-1])
    return (first, last) if first + last <= LARGEST * len(lines) else (0, 0)


def _bar(lines: Pixels) -> int:
    """How many of the lines (n, length, 3), counted from the first, are a bar."""
    if int(np.ptp(lines[0], axis=0).max()) > 2 * NOISE:  # nearly every picture ends here
        return 0
    colour = np.median(lines[0], axis=0).astype(np.int16)
    clean = 0
    while clean < len(lines) and int(np.abs(lines[clean] - colour).max()) <= NOISE:
        clean += 1
    if clean < THINNEST:
        return 0
    for edge in range(clean, min(clean + REACH + 1, len(lines))):
        if float((np.abs(lines[edge] - colour).max(1) > STEP).mean()) >= SHARE:
            slowly = float(np.abs(lines[edge - 3] - colour).mean()) > NOISE  # a graded sky
            return 0 if slowly else edge
    return 0
