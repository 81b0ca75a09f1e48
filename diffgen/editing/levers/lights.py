"""Lights: the lamps of vehicles and traffic lights, lit where the labels say that they are. Pure: arrays in and out.

A night scene has lights, but an editing model puts them anywhere. Here they go where a vehicle has its lamps. Position and
colour come from the daylight photograph if it shows them: the red glass of a tail lamp, the lit lens of a traffic light.
Otherwise they are guessed from the box: its lateral position and its aspect ratio.

Street lamps and windows have no labels, so nothing says which of them are lit: they are left to the model. Traffic is taken
to keep to the right.

Figures are medians over 728 vehicles in 240 real nights of BDD100K, by `python -m scripts.bench.lamps`, unless noted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffgen.checks.detectors.names import plain
from diffgen.dataset.images import Pixels
from diffgen.dataset.labels import Shape
from diffgen.editing.levers.glow import Colour, Lamp, add_patch, light_of
from diffgen.editing.levers.lenses import Form, Thing, lit_lens, red_glass
from diffgen.editing.levers.linear_light import Light, to_light, to_pixels
from diffgen.types import Lights, unit

# Class names in lower case, without blanks.
VEHICLES = frozenset({"car", "truck", "bus", "van", "lorry", "pickup", "taxi", "minibus", "caravan", "vehicle", "suv"})
TWO_WHEELERS = frozenset({"motor", "motorcycle", "motorbike", "motorcyclist", "scooter", "moped"})
SIGNALS = frozenset({"trafficlight", "trafficlights", "trafficsignal", "stoplight"})

WARM: Colour = (1.0, 0.82, 0.58)  # of halogen head lamps
COLD: Colour = (0.97, 1.0, 1.0)  # of others; the mean is that of the rings around cores, less the body: 1, 0.86, 0.79
TAIL: Colour = (1.0, 0.13, 0.12)  # cores 0.63, 0.17, 0.17 where burnt out in part, rings 0.12, 0.02, 0.01 over the body
SIGNAL: dict[str, Colour] = {"red": (1.0, 0.06, 0.05), "yellow": (1.0, 0.5, 0.05), "green": (0.05, 1.0, 0.6)}
HEAD_LEVEL, TAIL_LEVEL, SIGNAL_LEVEL = 8.0, 1.6, 3.0  # radiance of a core; 1 is white. Cores measure ≥ 0.95, 0.63
BRAKING, BRAKE = 0.3, 2.5  # share of tail lamps that are brake lamps, by eye, and how many times as bright these are
SPREAD, SIZES = 0.5, 0.25  # standard deviation of the logarithm of level and size, between vehicles

# Metres from our course, and the share of vehicles there that stand parked: what is dark beyond the 0.16 of our own lane.
ASIDE, PARKED = (1.5, 3.0, 6.5, 11.5, 18.0), (0.0, 0.18, 0.27, 0.48, 0.75)
SIDE_PARKED, SIDE_DIM = 0.6, 0.4  # the same of what is seen from the side (dark: 0.49), and the level of its lamp
# Metres to the right of our course, and the share of what shows no red glass that comes towards us. Set so that of the lit
# on the left as many do as in real nights, 0.42; it is 0.15 at 3–5 metres and 0.78 at 8–15.
LEFT, ONCOMING = (-10.0, -5.0, -2.0, -1.0), (0.85, 0.6, 0.2, 0.0)
TALL = 0.95  # width over height; below, it is a truck, a bus or a van
STRAIGHT = 1.25  # width over height; below, it is seen straight from behind, and its tail lamps mirror each other
APART = 0.25  # of the box's width; the lamps of a pair are farther from each other
INSET = 0.13  # from the end of the front or back, of its width: pairs in large boxes stand at 0.12 and 0.88
HEAD_Y, TAIL_Y, TALL_Y = 0.53, 0.46, 0.72  # of the box's height, from its top: 0.52, 0.46; that of tall ones by eye
SPREAD_Y = 0.02  # standard deviation of the lamps' height between vehicles, of the box's
HEAD_AXES, TAIL_AXES = (0.034, 0.026), (0.04, 0.025)  # of the box's width, half axes of cores: diameters 0.09, 0.10
SMALL = 16.0  # pixels; lamps of narrower boxes are as large as in these, and fainter: a camera shows no smaller point
REACH = 2.5  # box widths; glow is faded out to nothing here
# Light that falls on the road and on the body, times what these reflect: the road below the lit is 0.01 brighter.
ROAD, BODY, RED_ROAD, RED_BODY = 0.25, 0.12, 0.07, 0.12


def lights_for(names: Sequence[str], share: float, brightness: float) -> Lights:
    """The lights of a dataset with these class names, in the order of their ids; case, blanks, "-" and "_" do not matter.

    The names are those of BDD100K, Cityscapes, COCO and KITTI, and some others.
    """
    kinds = (VEHICLES, TWO_WHEELERS, SIGNALS)
    ids = (tuple(i for i, name in enumerate(names) if plain(name).replace(" ", "") in kind) for kind in kinds)
    return Lights(share, brightness, *ids)


def with_lights(picture: Pixels, source: Pixels, shapes: Sequence[Shape], lights: Lights, seed: int) -> Pixels:
    """`picture` (H, W, 3) with the lamps lit of the vehicles and traffic lights among `shapes`.

    `source` is the daylight photograph, of the same size. Light is only added: no value falls, and pixels more than three
    box widths from a lit object stay bit for bit the same. With a share or brightness of 0 nothing is lit. A lamp covered by
    a nearer box (one that ends lower) is not drawn. The result does not depend on the order of the shapes; a vehicle lit at
    some share is lit at any larger one. Raises ValueError if the sizes differ.
    """
    if picture.shape != source.shape:
        raise ValueError(f"picture and source must have one size, got {picture.shape} and {source.shape}")
    known = {*lights.vehicles, *lights.two_wheelers, *lights.signals}
    if lights.share <= 0 or lights.brightness <= 0 or known.isdisjoint(shape.class_id for shape in shapes):
        return picture.copy()
    height, width = picture.shape[:2]
    day, lit, patches = to_light(source), [], np.zeros(picture.shape, np.float32)
    things = [Thing.of(box, kind, width, height) for box, kind in sorted({(s.box, s.class_id) for s in shapes})]
    for thing in things:
        if thing.kind not in known:
            continue
        signal = thing.kind in lights.signals
        lamps = _signal(day, thing) if signal else _vehicle(day, thing, lights, seed)
        nearer = [other for other in things if other.y1 > thing.y1 and not signal]
        for lamp in lamps:
            if any(other.covers(lamp) for other in nearer):
                continue
            lit.append(replace(lamp, level=lamp.level * lights.brightness))
            if not signal:
                _shine_on(patches, day, lamp, thing, lights.brightness)
    if not lit:
        return picture.copy()
    return _added(picture, light_of(lit, height, width) + patches)


def _added(picture: Pixels, light: Light) -> Pixels:
    """`picture` with `light`, both (H, W, 3). Where there is none, pixels stay bit for bit."""
    made, lit = picture.copy(), light.any(-1)
    made[lit] = np.maximum(picture[lit], to_pixels(to_light(picture[lit]) + light[lit]))
    return made


def _vehicle(day: Light, thing: Thing, lights: Lights, seed: int) -> list[Lamp]:
    """The lit lamps of a vehicle; none if it is parked, is not chosen, or nothing tells where its lamps are."""
    draws = np.random.default_rng(int(unit(seed, "lights", *(repr(float(v)) for v in thing.box), thing.kind) * 2**48))
    stands, dark, heads, brakes, cold = draws.random(5)
    strength, larger, lower = draws.normal(size=3).clip(-2, 2)
    parked = SIDE_PARKED if thing.sideways else float(np.interp(abs(thing.aside), ASIDE, PARKED))
    if stands < parked or dark >= lights.share:
        return []
    one = thing.kind in lights.two_wheelers
    glass = red_glass(day, thing)
    oncoming = not glass and heads < float(np.interp(thing.aside, LEFT, ONCOMING))
    level = math.exp(SPREAD * strength) * (SIDE_DIM if thing.sideways else 1.0)
    level *= HEAD_LEVEL if oncoming else TAIL_LEVEL * (BRAKE if brakes < BRAKING else 1.0)
    if glass:
        return _tail_lamps(glass, thing, level, one)
    if thing.cut:
        return []
    share = (HEAD_Y if oncoming else TAIL_Y) if thing.width > TALL * thing.height or one else TALL_Y
    y = thing.y0 + (share + SPREAD_Y * lower) * thing.height
    red, green, blue = (float(warm + cold * (other - warm)) for warm, other in zip(WARM, COLD, strict=True))
    colour, axes = ((red, green, blue), HEAD_AXES) if oncoming else (TAIL, TAIL_AXES)
    size = max(thing.width, SMALL) * math.exp(SIZES * larger)
    level *= min(1.0, thing.width / SMALL)
    axes = size * axes[0], size * axes[1]
    return [Lamp(x, y, colour, level, REACH * thing.width, axes) for x in _places(thing, one)]


def _places(thing: Thing, one: bool) -> list[float]:
    """Columns of the lamps, in pixels: one in the middle, one at the outer end, or a pair."""
    left, right = thing.face
    if one:
        return [(thing.x0 + thing.x1) / 2]
    inset = INSET * (right - left)
    pair = [left + inset, right - inset]
    return pair[:1] if thing.sideways and thing.aside < 0 else pair[1:] if thing.sideways else pair


def _tail_lamps(glass: list[Form], thing: Thing, level: float, one: bool) -> list[Lamp]:
    """Tail lamps of the forms that were found; if it is one of a pair, the other where it must be."""
    lamps = [_formed(form, TAIL, level, thing) for form in glass]
    if len(lamps) == 1 and not (one or thing.cut) and thing.width < STRAIGHT * thing.height:
        form, x = glass[0], thing.x0 + thing.x1 - lamps[0].x
        left = math.floor(x - form.plane.shape[1] / 2)
        if abs(x - lamps[0].x) > APART * thing.width and left >= 0:
            lamps.append(_formed(replace(form, plane=form.plane[:, ::-1], left=left), TAIL, level, thing))
    return lamps


def _formed(form: Form, colour: Colour, level: float, thing: Thing) -> Lamp:
    y, x = (float(np.average(axis, weights=form.plane)) + 0.5 for axis in np.indices(form.plane.shape))
    corner = form.left, form.top
    return Lamp(corner[0] + x, corner[1] + y, colour, level, REACH * thing.width, form=form.plane, corner=corner)


def _signal(day: Light, thing: Thing) -> list[Lamp]:
    """The lit lens of a traffic light, if the daylight picture shows it."""
    lens = lit_lens(day, thing)
    return [_formed(lens[1], SIGNAL[lens[0]], SIGNAL_LEVEL, thing)] if lens else []


def _shine_on(light: Light, day: Light, lamp: Lamp, thing: Thing, brightness: float) -> None:
    """A lamp's light on the road below its vehicle and on the bonnet or boot above it."""
    w, h = thing.width, thing.height
    road, body = (RED_ROAD, RED_BODY) if lamp.colour == TAIL else (ROAD, BODY)
    add_patch(light, day, (lamp.x, thing.y1 + 0.2 * w, 0.35 * w, 0.2 * w), lamp.colour, road * brightness)
    add_patch(light, day, (lamp.x, lamp.y - 0.05 * h, 0.14 * w, 0.12 * h), lamp.colour, body * brightness)
