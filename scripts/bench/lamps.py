"""How the lamps of real cars look at night: where they sit in the box, how large, how bright, and how far they glow.

    python -m scripts.bench.lamps --dataset driving/night/data.yaml

The constants of `diffgen.editing.levers.lights` come from here. A lamp is a compact blob inside a vehicle's box, nearly
saturated and much brighter than the rest of the box: red, or white (all channels). Of each half of the box the largest
counts, if it is not a mere glint. A vehicle is lit if it has one: "behind" if red, "oncoming" if white. Positions are
fractions of the box from its upper left corner, sizes fractions of its width, light is linear and 1 is white. "falls to
1/2": distance from the edge of the core at which the median over directions of the light, less its least, is half of the
core's.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.dataset import read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import Pixels, decode
from diffgen.editing.levers.lenses import SIDEWAYS, metres_aside
from diffgen.editing.levers.lights import lights_for
from diffgen.editing.levers.linear_light import to_light

Box = tuple[float, float, float, float]
Colour = tuple[float, float, float]
Glow = tuple[Colour, Colour, float, float]

LEAST = 40  # pixels; width of the smallest box that is measured
RED, RED_OVER = 0.35, 2.0  # of linear red, and of red over the larger of green and blue
WHITE = 0.65  # of the smallest channel, linear
OVER = 6.0  # times the box's median
SMALLEST = 0.03  # diameter over the box's width; smaller ones are glints of our own lamps on a parked car
LARGEST = 0.12  # share of the box; a larger bright area is a lit car body or a window
LONGEST = 2.6  # width over height of a white blob; number plates are longer
ASIDE = (0, 1.5, 3, 5, 8, 15, 1000)  # metres from our course, by the size of the box
WIDTHS = (40, 60, 90, 140, 10000)  # pixels
SIDES = (0.42, 0.58)  # of the picture's width: left, middle, right


@dataclass(frozen=True)
class Blob:
    """A lamp: colour, centre (fractions of the box), diameter and glow (fractions of its width), and light around it."""

    red: bool
    x: float
    y: float
    diameter: float
    half: float
    tenth: float
    core: Colour
    rim: Colour


@dataclass(frozen=True)
class Vehicle:
    width: float  # pixels
    aspect: float
    x: float  # of the picture
    aside: float  # metres to the right of our course
    lamps: tuple[Blob, ...]
    body: float  # median linear luminance of the box
    road: float  # of a strip below it
    road_red: float  # red over the mean of green and blue, there

    @property
    def kind(self) -> str:
        red = sum(lamp.red for lamp in self.lamps)
        return "dark" if not self.lamps else "behind" if 2 * red >= len(self.lamps) else "oncoming"


def blobs_of(plane: NDArray[np.float32], box: Box) -> tuple[Blob, ...]:
    """The lamps in a box of a linear picture (H, W, 3); `box` is in pixels."""
    x0, y0, x1, y1 = (round(v) for v in box)
    crop, width = plane[y0:y1, x0:x1], x1 - x0
    grey = crop.mean(-1)
    floor = OVER * float(np.median(grey))
    red = (crop[..., 0] > RED) & (crop[..., 0] > RED_OVER * crop[..., 1:].max(-1)) & (crop[..., 0] > floor)
    white = (crop.min(-1) > WHITE) & (grey > floor)
    found = []
    for is_red, mask in ((True, red), (False, white)):
        if is_red:  # the core of a tail lamp is burnt out
            mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
        count, marks, rows, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        for mark in range(1, count):
            w, h, area = rows[mark, 2:5]
            y = centres[mark][1] / (y1 - y0)
            diameter = 2 * float(np.sqrt(area / np.pi)) / width
            if diameter < SMALLEST or area > LARGEST * crop[..., 0].size or not 0.25 < y < 0.92:
                continue
            core, rim, half, tenth = glow(plane, marks == mark, (x0, y0), width)
            if not is_red and (w > LONGEST * h or rim[0] > 1.6 * (rim[1] + rim[2]) / 2):
                continue  # a number plate, or the burnt-out core of a tail lamp, which stands in the other list
            found.append(Blob(is_red, centres[mark][0] / width, y, diameter, half, tenth, core, rim))
    halves = ([lamp for lamp in found if (lamp.x < 0.5) == left] for left in (True, False))
    return tuple(max(half, key=lambda lamp: lamp.diameter) for half in halves if half)


def glow(plane: NDArray[np.float32], mask: NDArray[np.bool_], corner: tuple[int, int], width: int) -> Glow:
    """(colour of the core, of the ring around it, half and tenth distance over the box's width) of a blob."""
    reach = max(6, round(0.5 * width))
    big = np.pad(mask.astype(np.uint8), reach)
    away = cv2.distanceTransform(1 - big, cv2.DIST_L2, 5)
    padded = np.pad(plane, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    around = padded[corner[1] : corner[1] + big.shape[0], corner[0] : corner[0] + big.shape[1]]
    grey = around.max(-1)
    profile = np.array([np.median(grey[(away > r - 0.5) & (away <= r + 0.5)]) for r in range(1, reach)])
    profile = np.maximum(profile - profile.min(), 0) / max(float(grey[big > 0].mean() - profile.min()), 1e-6)
    half, tenth = (
        float(np.argmax(profile < level) + 1) / width if (profile < level).any() else 0.5 for level in (0.5, 0.1)
    )
    ring = around[(away > 1) & (away <= max(2.5, 0.05 * width))]
    return tuple(around[big > 0].mean(0)), tuple(np.median(ring, 0)), half, tenth


def vehicles_of(pixels: Pixels, boxes: Sequence[Box]) -> list[Vehicle]:
    """Of boxes (fractions) those that are large enough and no other, nearer one covers."""
    plane, (height, width) = to_light(pixels), pixels.shape[:2]
    found = []
    scaled = [tuple(np.clip(b, 0, 1) * (width, height, width, height)) for b in boxes]
    for box in scaled:
        x0, y0, x1, y1 = box
        covered = sum(
            max(0, min(x1, o[2]) - max(x0, o[0])) * max(0, min(y1, o[3]) - max(y0, o[1])) for o in scaled if o[3] > y1
        )
        if x1 - x0 < LEAST or y1 - y0 < 12 or covered > 0.15 * (x1 - x0) * (y1 - y0) or x0 < 2 or x1 > width - 2:
            continue
        strip = plane[round(y1) : round(y1 + 0.35 * (x1 - x0)), round(x0) : round(x1)].reshape(-1, 3)
        colour = np.median(strip, 0) if len(strip) else np.full(3, np.nan)
        body = float(np.median(plane[round(y0) : round(y1), round(x0) : round(x1)].mean(-1)))
        tint = float(colour[0] / max(colour[1:].mean(), 1e-5))
        lamps = blobs_of(plane, box)
        aside = metres_aside(x0, x1, y1 - y0, width / 2)
        found.append(
            Vehicle(
                x1 - x0, (x1 - x0) / (y1 - y0), (x0 + x1) / 2 / width, aside, lamps, body, float(colour.mean()), tint
            )
        )
    return found


def quartiles(values: Sequence[float]) -> str:
    if not len(values):
        return "–"
    low, middle, high = np.nanpercentile(values, (25, 50, 75))
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def sides_table(vehicles: Sequence[Vehicle]) -> str:
    """Markdown: of the vehicles of each part of the picture, and of each shape, how many show which lamps."""
    groups = {
        "left": [v for v in vehicles if v.x < SIDES[0]],
        "middle": [v for v in vehicles if SIDES[0] <= v.x <= SIDES[1]],
        "right": [v for v in vehicles if v.x > SIDES[1]],
        "wider than 1.9": [v for v in vehicles if v.aspect > 1.9],
        "all": list(vehicles),
    }
    lines = ["| where | vehicles | oncoming | behind | dark |", "|---|---|---|---|---|"]
    for name, group in groups.items():
        shares = [np.mean([v.kind == kind for v in group]) if group else 0 for kind in ("oncoming", "behind", "dark")]
        lines.append(f"| {name} | {len(group)} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    return "\n".join(lines)


def aside_table(vehicles: Sequence[Vehicle]) -> str:
    """Markdown: what is dark and, of the lit on either side, what comes towards us, by metres from our course."""
    lines = ["| metres aside | vehicles | dark | oncoming of the lit, left | right |", "|---|---|---|---|---|"]
    for low, high in pairwise(ASIDE):
        group = [v for v in vehicles if low <= abs(v.aside) < high and v.aspect <= SIDEWAYS]
        lit = [[v.kind == "oncoming" for v in group if v.lamps and (v.aside < 0) == left] for left in (True, False)]
        shares = [f"{np.mean(one):.2f} of {len(one)}" if one else "–" for one in lit]
        dark = np.mean([not v.lamps for v in group]) if group else math.nan
        lines.append(f"| {low}–{high} | {len(group)} | {dark:.2f} | {' | '.join(shares)} |")
    return "\n".join(lines)


def widths_table(vehicles: Sequence[Vehicle]) -> str:
    """Markdown: medians by the box's width: the glow in pixels of the picture, and where pairs of tail lamps stand."""
    lines = [
        "| box, px | tail lamps | diameter | falls to 1/2, px | falls to 1/10, px | left, x | right, x |",
        "|---|---|---|---|---|---|---|",
    ]
    for low, high in pairwise(WIDTHS):
        group = [v for v in vehicles if low <= v.width < high and v.kind == "behind"]
        lamps = [(lamp, v.width) for v in group for lamp in v.lamps if lamp.red]
        pairs = [sorted(lamp.x for lamp in v.lamps) for v in group if len(v.lamps) == 2 and v.aspect < 1.6]
        if lamps and pairs:
            glows = np.median([(lamp.diameter, lamp.half * width, lamp.tenth * width) for lamp, width in lamps], 0)
            cells = [
                f"{glows[0]:.3f}",
                *(f"{glow:.1f}" for glow in glows[1:]),
                *(f"{x:.2f}" for x in np.median(pairs, 0)),
            ]
            lines.append(f"| {low}–{high} | {len(lamps)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def lamps_table(vehicles: Sequence[Vehicle]) -> str:
    """Markdown: a row for each figure, median (quartiles), for head lamps, tail lamps and dark vehicles."""
    lines = ["| | oncoming | behind | dark |", "|---|---|---|---|"]
    groups = [[v for v in vehicles if v.kind == kind] for kind in ("oncoming", "behind", "dark")]
    lamps = [[lamp for v in group for lamp in v.lamps if lamp.red == (i == 1)] for i, group in enumerate(groups)]
    pairs = [[sorted(lamp.x for lamp in v.lamps) for v in group if len(v.lamps) >= 2] for group in groups]
    rows: dict[str, list[list[float]]] = {
        "lamps seen": [[float(len(v.lamps)) for v in group] for group in groups],
        "left lamp, x": [[pair[0] for pair in group] for group in pairs],
        "right lamp, x": [[pair[-1] for pair in group] for group in pairs],
        "y": [[lamp.y for lamp in group] for group in lamps],
        "diameter": [[lamp.diameter for lamp in group] for group in lamps],
        "falls to 1/2": [[lamp.half for lamp in group] for group in lamps],
        "falls to 1/10": [[lamp.tenth for lamp in group] for group in lamps],
        "core, red": [[lamp.core[0] for lamp in group] for group in lamps],
        "core, green": [[lamp.core[1] for lamp in group] for group in lamps],
        "core, blue": [[lamp.core[2] for lamp in group] for group in lamps],
        "ring, red": [[lamp.rim[0] for lamp in group] for group in lamps],
        "ring, green": [[lamp.rim[1] for lamp in group] for group in lamps],
        "ring, blue": [[lamp.rim[2] for lamp in group] for group in lamps],
        "body": [[v.body for v in group] for group in groups],
        "road below": [[v.road for v in group] for group in groups],
        "road below, red over green and blue": [[v.road_red for v in group] for group in groups],
    }
    lines += [f"| {name} | " + " | ".join(quartiles(values) for values in row) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=None, help="pictures")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, FileCache(Path(folder)) as cache:
        dataset = read_dataset(str(args.dataset.resolve()), Path.cwd(), cache)
    wanted = set(lights_for(dataset.names, 1.0, 1.0).vehicles)
    vehicles = []
    once = {source.path: source for source in dataset.sources if not source.left_out}  # a set may be train and val
    for source in list(once.values())[: args.limit]:
        boxes = [s.box for s in dataset.schema.parse_or_nothing(source.read_label()) if s.class_id in wanted]
        if boxes:
            vehicles += vehicles_of(decode(Path(source.path).read_bytes()), boxes)
    for table in (sides_table, aside_table, lamps_table, widths_table):
        print(table(vehicles), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
