"""How lamps look through a camera at night: cores, a glow around them, and light on what is near. Pure: arrays in and out.

All in linear light, where adding is what light does; 1 is the white of the picture. Lens, air and sensor scatter a share of
a lamp's light around it. How far depends on the camera and not on the lamp: real tail lamps fall to a half within a pixel,
whether the car is 50 or 250 pixels wide. So the glow is one point spread function for the whole picture: a sum of Gaussians,
as is usual for glare (Spencer, Shirley, Zimmerman and Greenberg, Physically-based glare effects for digital images, 1995).
What is scattered is taken from the core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffgen.editing.levers.linear_light import Light

Plane = NDArray[np.float32]  # (H, W)
Colour = tuple[float, float, float]  # linear red, green, blue; the largest is 1

# Share of the light, and standard deviation in parts of the picture's long side: 0.8, 2, 5, 15 and 45 pixels of 1280. The
# shares are 1 in all. Fitted: lamps put into darkened day pictures measure much as real ones do in `scripts.bench.lamps`
# ("falls to", "ring"): the glow of head lamps as theirs, that of tail lamps half as bright.
SPREAD = ((0.485, 0.0006), (0.25, 0.0015), (0.18, 0.004), (0.06, 0.012), (0.025, 0.035))
COARSE = 4.0  # pixels; a wider Gaussian is applied to a smaller picture, where it is as wide as this
LEAST = 0.7  # pixels; half axes of the smallest core that is drawn, with as much light as a smaller one has


@dataclass(frozen=True, slots=True)
class Lamp:
    """A lamp in pixels: its centre, and the distance `reach` from there at which its glow has faded to nothing.

    `level` is the radiance of the core, linear; over 1 it burns out. The core is an ellipse of the half `axes`, or `form`, a
    plane (h, w) of 0 and about 1 whose upper left pixel is the picture's at `corner` (x, y) and which lies inside of it.
    """

    x: float
    y: float
    colour: Colour
    level: float
    reach: float
    axes: tuple[float, float] = (0.0, 0.0)
    form: Plane | None = None
    corner: tuple[int, int] = (0, 0)


def light_of(lamps: Sequence[Lamp], height: int, width: int) -> Light:
    """The light of lamps with its glow, (height, width, 3)."""
    cores = np.zeros((height, width, 3), np.float32)
    near = np.zeros((height, width), np.float32)
    for lamp in lamps:
        _add_core(cores, lamp)
        rows, columns, q = _around(near.shape, (lamp.x, lamp.y, lamp.reach, lamp.reach), 1)
        near[rows, columns] = np.maximum(near[rows, columns], (1 - q).clip(0) ** 2)
    light = np.zeros_like(cores)
    if near.any():
        rows, columns = _span(near.max(1)), _span(near.max(0))
        part = np.zeros_like(cores[rows, columns])
        for share, sigma in SPREAD:
            part += np.float32(share) * _blurred(cores[rows, columns], sigma * max(height, width))
        light[rows, columns] = part * near[rows, columns, None]
    return light


def _span(profile: NDArray[np.float32]) -> slice:
    """From the first to the last that is not 0."""
    places = np.flatnonzero(profile)
    return slice(int(places[0]), int(places[-1]) + 1)


def _blurred(planes: Light, sigma: float) -> Light:
    """By a Gaussian of `sigma` pixels; what leaves the picture is lost."""
    import cv2

    height, width = planes.shape[:2]
    scale = max(1.0, sigma / COARSE)
    size = max(1, round(width / scale)), max(1, round(height / scale))
    small = cv2.resize(planes, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / scale, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _add_core(light: Light, lamp: Lamp) -> None:
    radiance = np.float32(lamp.level) * np.array(lamp.colour, np.float32)
    if lamp.form is not None:
        (left, top), (height, width) = lamp.corner, lamp.form.shape
        light[top : top + height, left : left + width] += lamp.form[..., None] * radiance
        return
    rx, ry = (max(axis, LEAST) for axis in lamp.axes)
    rows, columns, q = _around(light.shape, (lamp.x, lamp.y, rx, ry), 3)
    fainter = lamp.axes[0] * lamp.axes[1] / (rx * ry)
    light[rows, columns] += np.float32(fainter) * np.exp(-q)[..., None] * radiance


def add_patch(
    light: Light, reflectance: Light, place: tuple[float, float, float, float], colour: Colour, level: float
) -> None:
    """Add light that falls on an area, weighted by what the surface reflects; in place.

    `place` is the centre x, y and the half axes of an ellipse, in pixels; the light falls off to nothing at twice these.
    `reflectance` is the daylight picture, (H, W, 3), linear.
    """
    rows, columns, q = _around(light.shape, place, 2)
    amount = (1 - q / 4).clip(0) ** 3 * np.float32(level)
    light[rows, columns] += amount[..., None] * reflectance[rows, columns] * np.array(colour, np.float32)


def _around(
    shape: tuple[int, ...], place: tuple[float, float, float, float], times: float
) -> tuple[slice, slice, Plane]:
    """Rows and columns around an ellipse of centre x, y and half axes, `times` as far; and (distance / half axis)² there."""
    x0, y0, rx, ry = place
    spans = []
    for centre, half, most in ((y0, ry * times, shape[0]), (x0, rx * times, shape[1])):
        low, high = max(0, math.floor(centre - half)), max(0, min(most, math.ceil(centre + half)))
        spans.append(slice(min(low, high), high))
    y, x = np.ogrid[spans[0], spans[1]]
    q = ((x + 0.5 - x0) / rx) ** 2 + ((y + 0.5 - y0) / ry) ** 2
    return spans[0], spans[1], q.astype(np.float32)
