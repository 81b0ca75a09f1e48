"""Run-length encoded masks of COCO.

A mask is (height, width), read column by column from the top left: alternating counts of pixels outside and inside.
`counts` is a list of them, or text that packs them as `rleToString` of the COCO API (maskApi.c) does: in units of 5 bits,
least first, each a character from "0"; the sixth bit says that more follow, the fifth of the last one is the sign; from the
fourth number on, each is the difference to the one two before.
"""

from __future__ import annotations

from typing import Any


def box_of_mask(mask: dict[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 in pixels around the mask. `size` is the picture's (width, height). Raises ValueError."""
    counts, shape = mask.get("counts"), mask.get("size")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if shape != [size[1], size[0]] or not isinstance(runs, list) or not all(type(n) is int and n >= 0 for n in runs):
        raise ValueError("its mask (RLE) does not fit the picture")
    height = size[1]
    if sum(runs) != height * size[0]:
        raise ValueError(f"its mask (RLE) has {sum(runs)} pixels, the picture {height * size[0]}")
    columns: list[int] = []
    rows: list[int] = []
    start = 0
    for i, run in enumerate(runs):
        if i % 2 and run:
            last = start + run - 1
            columns += (start // height, last // height)
            whole = start // height != last // height  # it goes on in the next column, so from the bottom to the top
            rows += (0, height - 1) if whole else (start % height, last % height)
        start += run
    if not columns:
        raise ValueError("its mask (RLE) is empty")
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


def _unpacked(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        unit = ord(character) - 48
        value |= (unit & 0x1F) << shift
        shift += 5
        if not unit & 0x20:
            if unit & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs
