"""What a daylight photograph shows of lamps: red glass of tail lamps, lit lenses of traffic lights. Pure: arrays in and out.

Pictures are (H, W, 3) in linear light. The limits were set by eye on crops of real day pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffgen.editing.levers.glow import Lamp, Plane
from diffgen.editing.levers.linear_light import Light

Mask = NDArray[np.bool_]  # (H, W)

CAR_WIDTH, CAR_HEIGHT = 1.8, 1.5  # metres, of a typical car; they turn pixels into metres
SIDEWAYS = 1.9  # width over height; a wider vehicle is seen from the side
FACE = 1.2  # width over height of a car's front: what is wider shows a flank as well, on the side of our course
BORDER = 2.0  # pixels; a box so near to the border is cut off

GLASS, GLASS_OVER = 0.03, 2.0  # linear red of tail lamps by day, and over the larger of green and blue
GLASS_AREA, GLASS_ALL = 0.06, 0.14  # of the box; a larger area, or sum of areas, is red paint
GLASS_LEAST = 0.0012  # of the squared box width; a smaller area is nothing
GLASS_Y, GLASS_MIDDLE = (0.22, 0.85), 0.12  # of the box; where tail lamps are, and how far from the middle they are not
GLASS_LONG = 0.35  # of the box width; longer is paint
GLASS_WIDTH = 20.0  # pixels; in narrower boxes red glass is not looked for
LEVEL_APART = 0.15  # of the box's height; the lamps of a pair differ less
FULL = 2.0  # upper limit of a form's pixels, as a multiple of its mean brightness

LENS = {"red": 0.4, "yellow": 0.2, "green": 0.5}  # of a traffic light's box; a larger area is its housing
LENS_LEAST = 0.015  # of the box; a smaller area is nothing
LENS_WIDTH = 10.0  # pixels; in narrower boxes a lens may fill the box
HOUSING = 0.3  # of the box; with more yellow, it is the housing


def metres_aside(x0: float, x1: float, height: float, middle: float) -> float:
    """Estimated lateral offset in metres (right is positive) of a vehicle whose box spans x0 to x1 pixels; `middle` is
    the picture's.

    The box's own size tells how long a metre is there, so neither lens nor horizon need be known.
    """
    metre = min((x1 - x0) / CAR_WIDTH, height / CAR_HEIGHT)
    return ((x0 + x1) / 2 - middle) / max(metre, 1e-6)


@dataclass(frozen=True, slots=True)
class Form:
    """The lit pixels of a lamp: brightness (h, w), 0 and about 1, and the picture's pixel that is its upper left one."""

    plane: Plane
    left: int
    top: int
    weight: float  # how much there is of it, to compare with others

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.plane))


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in pixels. `middle` is the picture's middle column; `box` are the fractions that draws depend on."""

    kind: int
    box: tuple[float, float, float, float]
    x0: float
    y0: float
    x1: float
    y1: float
    width: float
    height: float
    middle: float
    cut: bool  # by the picture's left or right border

    @classmethod
    def of(cls, box: tuple[float, float, float, float], kind: int, width: int, height: int) -> Thing:
        x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        cut = x0 < BORDER or x1 > width - BORDER
        return cls(kind, box, x0, y0, x1, y1, max(x1 - x0, 1.0), max(y1 - y0, 1.0), width / 2, cut)

    @property
    def aside(self) -> float:
        """Metres to the right of our course."""
        return metres_aside(self.x0, self.x1, self.height, self.middle)

    @property
    def sideways(self) -> bool:
        return self.width > SIDEWAYS * self.height

    @property
    def face(self) -> tuple[float, float]:
        """Left and right end of its front or back, in pixels. The flank, if seen, is on the side of our course."""
        wide = min(self.width, FACE * self.height)
        return (self.x0, self.x0 + wide) if self.aside < 0 else (self.x1 - wide, self.x1)

    def covers(self, lamp: Lamp) -> bool:
        return self.x0 < lamp.x < self.x1 and self.y0 < lamp.y < self.y1

    def crop(self, planes: Light) -> tuple[Light, tuple[int, int]]:
        """What is in the box, and the picture's pixel that is its upper left one."""
        left, top = max(0, math.floor(self.x0)), max(0, math.floor(self.y0))
        right, bottom = max(0, math.ceil(self.x1)), max(0, math.ceil(self.y1))
        return planes[top:bottom, left:right], (left, top)


def red_glass(day: Light, thing: Thing) -> list[Form]:
    """The tail lamps that the picture shows of a vehicle: at most one in each half of the box, the surer first."""
    crop, corner = thing.crop(day)
    if thing.width < GLASS_WIDTH or min(crop.shape[:2]) < 3:
        return []
    red, green, blue = (crop[..., i] for i in range(3))
    over = red - np.maximum(green, blue)
    mask = (red > GLASS) & (over > (1 - 1 / GLASS_OVER) * red)
    mask &= (blue > 0.5 * green) | (green < 0.2 * red)  # not yellow or orange paint
    if mask.mean() > GLASS_ALL:
        return []
    best: dict[bool, Form] = {}
    for form in _forms(mask, over, corner):
        left = form.left + form.plane.shape[1] / 2 < (thing.x0 + thing.x1) / 2
        if _is_glass(form, thing) and (left not in best or form.weight > best[left].weight):
            best[left] = form
    found = sorted(best.values(), key=lambda form: -form.weight)
    if len(found) == 2 and abs(found[0].top - found[1].top) > LEVEL_APART * thing.height:
        return found[:1]
    return found


def _is_glass(form: Form, thing: Thing) -> bool:
    """Whether its size and place are those of a tail lamp."""
    height, width = form.plane.shape
    across = (form.left + width / 2 - thing.x0) / thing.width
    down = (form.top + height / 2 - thing.y0) / thing.height
    fits = GLASS_LEAST * thing.width**2 <= form.area <= GLASS_AREA * thing.width * thing.height
    aside = thing.sideways or abs(across - 0.5) >= GLASS_MIDDLE
    return fits and aside and GLASS_Y[0] < down < GLASS_Y[1] and width <= GLASS_LONG * thing.width


def lit_lens(day: Light, thing: Thing) -> tuple[str, Form] | None:
    """The colour ("red", "yellow" or "green") and form of a traffic light's lit lens; None if the picture shows none."""
    crop, corner = thing.crop(day)
    if not crop.size:
        return None
    red, green, blue = (crop[..., i] for i in range(3))
    yellowish = (red > 0.15) & (green > 0.35 * red) & (green < 0.85 * red) & (blue < 0.4 * red)
    masks = {
        "red": (red > 0.25) & (red > 2.5 * green) & (red > 2 * blue),
        "green": (green > 0.2) & (green > 1.8 * red) & (blue > 0.3 * green) & (blue < 1.05 * green),
        "yellow": yellowish & (red > 0.8) & (blue < 0.25 * red) & (yellowish.mean() < HOUSING),
    }
    brightest = crop.max(-1)
    for names in (("red", "green"), ("yellow",)):  # beside another lit lens, yellow is a housing in the sun
        found = [
            (form.weight, name, form)
            for name in names
            for form in _forms(masks[name], brightest - crop.min(-1), corner)
            if form.area >= LENS_LEAST * brightest.size
            and (form.area <= LENS[name] * brightest.size or (thing.width < LENS_WIDTH and name != "yellow"))
        ]
        if found:
            _, name, form = max(found, key=lambda one: one[:2])
            return name, _with_burnt_out(form, brightest, corner)
    return None


def _forms(mask: Mask, weight: Plane, corner: tuple[int, int]) -> list[Form]:
    """The connected parts of a mask, as bright as `weight` tells. `corner` (left, top) is where the mask lies."""
    import cv2

    count, marks, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for mark in range(1, count):
        left, top, width, height = (int(v) for v in boxes[mark, :4])
        part = slice(top, top + height), slice(left, left + width)
        plane = np.where(marks[part] == mark, weight[part], 0).astype(np.float32)
        total = float(plane.sum())
        plane = np.minimum(plane * np.float32(np.count_nonzero(plane) / total), np.float32(FULL))
        found.append(Form(plane, corner[0] + left, corner[1] + top, total))
    return found


def _with_burnt_out(form: Form, brightest: Plane, corner: tuple[int, int]) -> Form:
    """`form` plus pixels between its parts that are as bright: the white centre of a lens."""
    import cv2

    y, x = form.top - corner[1], form.left - corner[0]
    part = brightest[y : y + form.plane.shape[0], x : x + form.plane.shape[1]]
    points = np.argwhere(form.plane > 0)[:, ::-1].astype(np.int32)
    hull = cv2.fillConvexPoly(np.zeros(part.shape, np.uint8), cv2.convexHull(points), 1) > 0
    white = hull & (part >= part[form.plane > 0].mean()) & (form.plane < 1)
    return replace(form, plane=np.where(white, np.float32(1), form.plane))
