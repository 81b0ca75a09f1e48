"""Sky, ground, things and lights that were marked roughly on each photograph; their edges come from the pixels.

A marks file has one JSON object a line: {"name": "a.jpg", "use": 0} leaves a photograph out; {"name": ..., "use": 1,
"horizon": y, "sky": [polygon], "ground": [polygon], "things": [box]} tells what is seen, in percent of its width and height:
polygons of [x, y] corners, boxes [x1, y1, x2, y2] of what stands on the ground. It may have boxes of what is lit by night,
too: "heads" and "tails" (lamps of vehicles), "streets" (heads of street lamps) and "windows" (of houses); [x1, y1, x2, y2,
columns, rows] is an even grid of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

CUT_PX = 320  # long side on which edges are looked for
SURE = 0.03  # of the long side: further inside a marked line than this the mark is certain
FAR = 0.035  # and further outside than this it is certainly something else
LIGHTS = ("heads", "tails", "streets", "windows")  # lamps of vehicles, lamps of streets, windows of houses
LARGEST_LAMP = 0.025  # of the long side, from middle to border: of a larger glass only the middle shines
GRID_PANE = 0.65  # share of a grid's cell, in width and height, that is window
LEAST_THING = 8  # px of the copy; smaller things are rounded boxes


@dataclass(frozen=True)
class Mark:
    """Shares of the height and width: horizon, polygons (N, 2) of sky and ground, boxes (4,) within 0..1 of things and, by
    the names in LIGHTS, of what is lit by night."""

    horizon: float
    sky: list[np.ndarray]
    ground: list[np.ndarray]
    things: list[np.ndarray]
    lights: dict[str, list[np.ndarray]]


def load_marks(path: Path | None) -> tuple[dict[str, Mark], set[str]]:
    """(marks by file name, names to leave out); ValueError names the line that cannot be read."""
    marks: dict[str, Mark] = {}
    left_out: set[str] = set()
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not row["use"]:
                left_out.add(row["name"])
                continue
            sky, ground = ([_polygon(corners) for corners in row[key]] for key in ("sky", "ground"))
            lights = {kind: _seen(pane for box in row.get(kind, []) for pane in _panes(box)) for kind in LIGHTS}
            marks[row["name"]] = Mark(float(row["horizon"]) / 100, sky, ground, _seen(row["things"]), lights)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error!r}; see the head of scripts/pocket/marks.py") from error
    return marks, left_out


def _polygon(percent: list[list[float]]) -> np.ndarray:
    corners = np.array(percent, np.float32) / 100
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"{percent} is not a polygon")
    return corners


def _seen(boxes: Iterable[list[float]]) -> list[np.ndarray]:
    """The parts of the boxes inside the picture."""
    cut = [_box(sides).clip(0, 1) for sides in boxes]
    return [box for box in cut if box[0] < box[2] and box[1] < box[3]]


def _box(percent: list[float]) -> np.ndarray:
    sides = np.array(percent, np.float32) / 100
    if sides.shape != (4,):
        raise ValueError(f"{percent} is not a box")
    return sides


def _panes(percent: list[float]) -> list[list[float]]:
    """A box as it is; a grid (6 values) as one box a cell, as wide as GRID_PANE of it."""
    if len(percent) != 6:
        return [percent]
    left, top, right, bottom, columns, rows = percent
    if min(columns, rows) < 1:
        raise ValueError(f"{percent} is not a grid")
    across, down, rim = (right - left) / columns, (bottom - top) / rows, (1 - GRID_PANE) / 2
    return [
        [left + (i + rim) * across, top + (j + rim) * down, left + (i + 1 - rim) * across, top + (j + 1 - rim) * down]
        for i in range(int(columns))
        for j in range(int(rows))
    ]


def _filled(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    canvas = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.round(polygon * [width, height]).astype(np.int32)], 1)
    return canvas


def _small(rgb: torch.Tensor) -> np.ndarray:
    """(h, w, 3) uint8, BGR or RGB alike."""
    image = (rgb.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    scale = min(1.0, CUT_PX / max(image.shape))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _cut(image: np.ndarray, trimap: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    """GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) from a trimap; (1, H, W) in 0..1 of `size` (H, W)."""
    some = ((trimap & 1) == 1).any() and ((trimap & 1) == 0).any()
    if some and (trimap > 1).any():
        cv2.setRNGSeed(0)
        cv2.grabCut(image, trimap, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    found = ((trimap & 1) == 1).astype(np.float32)
    return torch.from_numpy(cv2.resize(found, size[::-1], interpolation=cv2.INTER_LINEAR))[None]


def _trimap(inside: np.ndarray) -> np.ndarray:
    """GrabCut's trimap of a mask (h, w): certain well inside and well outside, undecided between. The picture's border does
    not count as a line of the mask."""
    long_side = max(inside.shape)
    reach = [2 * round(share * long_side) + 1 for share in (SURE, FAR)]
    core = cv2.erode(inside, np.ones((reach[0],) * 2, np.uint8), borderType=cv2.BORDER_REPLICATE)
    near = cv2.dilate(inside, np.ones((reach[1],) * 2, np.uint8))
    trimap = np.where(inside > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[core > 0], trimap[near == 0] = cv2.GC_FGD, cv2.GC_BGD
    return trimap


def marked_sky(rgb: torch.Tensor, mark: Mark) -> torch.Tensor:
    """(1, H, W) in 0..1, with the edges of the pixels of (3, H, W)."""
    image = _small(rgb)
    trimap = _trimap(_filled(mark.sky, *image.shape[:2]))
    # Something may stand in front of the sky: a lamp post, a sign, a twig.
    rough = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).max(2) > 24
    trimap[rough & (trimap == cv2.GC_FGD)] = cv2.GC_PR_FGD
    return _cut(image, trimap, rgb.shape[-2:])


def marked_things(rgb: torch.Tensor, mark: Mark) -> np.ndarray:
    """Silhouettes of the things in the order of `mark.things`, (N, h, w) of 0 and 1, at most CUT_PX wide and high."""
    image = _small(rgb)
    height, width = image.shape[:2]
    made = np.zeros((len(mark.things), height, width), np.uint8)
    for plane, box in zip(made, mark.things, strict=True):
        left, top, right, bottom = np.round(box * [width, height, width, height]).astype(int)
        right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
        across, down = right - left, bottom - top
        # A rounded box, for what is too small to be cut out or fills the picture.
        radii = max(1, round(across * 0.56)), max(1, round(down * 0.56))
        cv2.ellipse(plane, ((left + right) // 2, (top + bottom) // 2), radii, 0, 0, 360, 1, -1)
        inside = np.zeros_like(plane)
        inside[top:bottom, left:right] = 1
        plane &= inside
        # What is close around the box is not the thing; the middle of the box is.
        rim = max(2, down // 3), max(2, across // 3)
        around = np.s_[max(0, top - rim[0]) : bottom + rim[0], max(0, left - rim[1]) : right + rim[1]]
        trimap = np.where(inside, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_BGD))
        trimap[top + down // 3 : bottom - down // 6, left + across // 3 : right - across // 3] = cv2.GC_FGD
        trimap = np.ascontiguousarray(trimap[around])
        if min(across, down) < LEAST_THING or (trimap == cv2.GC_BGD).sum() < 0.1 * trimap.size:
            continue
        cut = (_cut(np.ascontiguousarray(image[around]), trimap, trimap.shape)[0].numpy() > 0.5).astype(np.uint8)
        if cut.sum() > 0.35 * across * down:
            plane[around] = _whole(cut, bottom - max(0, top - rim[0]), down)
    return made


def _whole(cut: np.ndarray, foot: int, down: int) -> np.ndarray:
    """A silhouette with holes and the space between its feet filled, extended to its box's row `foot` where it nearly
    reaches it."""
    closed = cv2.morphologyEx(cut, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = cv2.drawContours(np.zeros_like(cut), outlines, -1, 1, -1)
    hull = cv2.fillConvexPoly(np.zeros_like(cut), cv2.convexHull(np.concatenate(outlines)), 1)
    lowest = np.where(hull.any(0), len(hull) - hull[::-1].argmax(0), 0)
    lowest = np.where(lowest > foot - 0.1 * down, np.maximum(lowest, foot), lowest)
    rows = np.arange(len(whole))[:, None]
    return np.maximum.accumulate(whole, 0) * (rows < lowest[None])


def marked_end(mark: Mark, height: int, width: int) -> np.ndarray | None:
    """Per column the share of the height at which the ground ends and what stands behind begins, (W,); None without ground.

    Between columns with ground it is interpolated, and it is smooth: a hedge or a row of houses has one foot.
    """
    lying = _filled(mark.ground, height, width) > 0
    columns = np.nonzero(lying.any(0))[0]
    if not len(columns):
        return None
    ends = np.interp(np.arange(width), columns, lying.argmax(0)[columns]) / height
    return cv2.blur(ends[None].astype(np.float32), (max(1, width // 12), 1), borderType=cv2.BORDER_REPLICATE)[0]


def marked_ground(rgb: torch.Tensor, mark: Mark, things: np.ndarray) -> torch.Tensor:
    """(1, H, W) in 0..1: lying ground without the silhouettes of what stands on it."""
    image = _small(rgb)
    height, width = image.shape[:2]
    trimap = _trimap(_filled(mark.ground, height, width))
    for box in mark.things:
        left, top, right, bottom = np.round(box * [width, height, width, height]).astype(int)
        part = trimap[top:bottom, left:right]
        part[part == cv2.GC_FGD] = cv2.GC_PR_FGD
    trimap[things.any(0)] = cv2.GC_BGD
    return _cut(image, trimap, rgb.shape[-2:])


def marked_lights(mark: Mark | None, height: int, width: int) -> torch.Tensor:
    """(4, height, width) in the order of LIGHTS: 1 within the boxes of windows and the ellipses in those of lamps, with a
    border of one px; so that windows side by side stay apart, 5 % of a box is left free on each side."""
    planes = np.zeros((len(LIGHTS), height, width), np.float32)
    for plane, kind in zip(planes, LIGHTS, strict=True):
        for box in mark.lights[kind] if mark else ():
            left, top, right, bottom = box * [width, height, width, height]
            most = max(height, width) * (1 if kind == "windows" else LARGEST_LAMP)
            radii = [min(max(0.7, 0.45 * side), most) for side in (right - left, bottom - top)]
            across = np.abs(np.arange(width) + 0.5 - (left + right) / 2)[None]
            down = np.abs(np.arange(height) + 0.5 - (top + bottom) / 2)[:, None]
            if kind == "windows":
                inside = np.minimum(radii[0] - across, radii[1] - down)
            else:
                inside = (1 - np.hypot(across / radii[0], down / radii[1])) * min(radii)
            np.maximum(plane, (inside + 0.5).clip(0, 1), out=plane)
    return torch.from_numpy(planes)
