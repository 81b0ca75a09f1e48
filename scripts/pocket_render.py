"""Weather and light painted on a photograph, pixel by pixel: the teacher of the pocket model. Nothing moves.

A renderer takes a crop (3, H, W) in sRGB 0..1, its maps, a severity 0..1 and the very noise the denoiser will start
from (16, H/4, W/4). Channel 0 says where flakes, streaks and lamps are; channel 1, made smooth, where fog is thicker, water
lies, clouds are darker, street light reaches and windows are lit. So the seed decides, and one denoising step can learn it.
Light is mixed in linear values (gamma 2.2), haze after Koschmieder (1924): I = J·t + A·(1 − t), t = exp(−βd), as in
Narasimhan and Nayar, "Vision and the atmosphere", IJCV 2002.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import pi, sqrt

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pocket_maps import MAP_NAMES, blur, guided, luminance

Painted = tuple[torch.Tensor, torch.Tensor | None]  # linear picture (3, H, W); what must not be missed (1, H, W)
FADE_IN = 0.25  # below this severity the painted picture is mixed with the source, so that 0 is the source itself
NOISE_CHANNELS = 2  # as many of the noise's channels are read
WARM = (1.0, 0.62, 0.26)  # light of lamps and of rooms
# Weight of lamps and windows that the photograph shows: well over STANDING, or what is round them is all that counts; less
# than that of the seed's, because where they are has to be found first (pocket_lessons.misread), and till then a mean of
# where they may be is a blot.
SHOWN = 0.8
LIT = ("night", "dusk")  # conditions in which those are on
STANDING = 0.3  # weight of houses and things: one that turns to sky or snow is worse than a sky that stays


@dataclass(frozen=True)
class Scene:
    """A crop in linear light, its maps (each (1, H, W)), the noise (16, H/4, W/4) and whether the crop is large enough to
    show where in a street it is. In one that is not, street lamps are anywhere: what they look like can be learned of
    small crops, which have many, and where they belong of large ones."""

    linear: torch.Tensor
    maps: dict[str, torch.Tensor]
    noise: torch.Tensor
    shows_place: bool = True

    @cached_property
    def light(self) -> torch.Tensor:
        return luminance(self.linear)

    @cached_property
    def detail(self) -> torch.Tensor:
        """Local shading: luminance over its surroundings, about 1."""
        light = self.light + 0.02
        return (light / blur(light, 10)).clamp(0.4, 1.8)

    @cached_property
    def texture(self) -> torch.Tensor:
        """As `detail`, of wider surroundings and with more contrast: ruts and paint on a road, windows of a car."""
        light = self.light + 0.01
        return (light / blur(light, 24)).clamp(0.1, 1.6)

    @cached_property
    def front(self) -> torch.Tensor:
        """Things alone: the sky's share of each pixel's light taken off, so that a new sky leaves no bright border."""
        sky = self.maps["sky"]
        pure = (sky - 0.98).clamp_min(0)
        near = (blur(self.linear * pure, 4) + 1e-5 * self.linear) / (blur(pure, 4) + 1e-5)
        return (self.linear - sky * near).clamp_min(0) * (1 - sky).sqrt()

    @cached_property
    def wide(self) -> torch.Tensor:
        """Luminance of large areas of things."""
        return blur(luminance(self.front), 12) + 0.02

    def ground_light(self, sigma: float) -> torch.Tensor:
        """Luminance of the ground within about `sigma` px."""
        ground = self.maps["ground"]
        return (blur(self.light * ground, sigma) + 1e-4) / (blur(ground, sigma) + 1e-3)

    @cached_property
    def usual_ground(self) -> torch.Tensor:
        """Luminance of the ground nearby."""
        return self.ground_light(20)

    @cached_property
    def plain(self) -> torch.Tensor:
        """Luminance without thin bright things: lane marks."""
        kernel = np.ones((9, 9), np.uint8)
        return torch.from_numpy(cv2.morphologyEx(self.light[0].numpy(), cv2.MORPH_OPEN, kernel))[None]

    @cached_property
    def shade(self) -> torch.Tensor:
        """Luminance of the ground over what is usual nearby: under 1 where a shadow lies on it; 1 on all else.

        A guided filter in logarithms keeps the shadow's edge and leaves the texture. What is far darker than the ground is
        a car that the map took for ground.
        """
        light = (self.plain + 0.01).log()
        even = guided(light, light, 6, 0.02).exp() / (self.ground_light(60) + 0.01)
        cast = ((even - 0.12) / 0.1).clamp(0, 1) * self.maps["ground"]
        return even.clamp(0.15, 2.5) ** cast

    @cached_property
    def height(self) -> torch.Tensor:
        """Share of the picture's height above the horizon; negative below it."""
        return self.maps["rows"] - 0.5

    @cached_property
    def distance(self) -> torch.Tensor:
        """Depth, its far end drawn in: heights of cameras differ, and a guess too far must not swallow what has a label."""
        far = blur(self.maps["depth"], 2).clamp_min(0.04) ** 0.75
        return far.minimum(0.6 + 0.4 * self.maps["sky"])

    def field(self, cells: int) -> torch.Tensor:
        """Noise channel 1, smooth over about `cells` cells of 4 px, unit variance, (1, H, W)."""
        step = max(1, cells // 4)
        height, width = self.noise.shape[-2:]
        padded = F.pad(self.noise[None, 1:2], (0, -width % step, 0, -height % step))
        coarse = blur(F.avg_pool2d(padded, step)[0], 1.5)
        # Averages of step² cells have deviation 1/step; a Gaussian of sigma 1.5 leaves 1/(2·√π·1.5) of that.
        coarse = coarse * step * 2 * sqrt(pi) * 1.5
        full = F.interpolate(coarse[None], scale_factor=step * 4, mode="bilinear", align_corners=False)[0]
        return full[:, : self.linear.shape[1], : self.linear.shape[2]]

    @cached_property
    def clouds(self) -> torch.Tensor:
        """Heaps of cloud of two sizes, -2..2."""
        return (0.7 * self.field(28) + 0.5 * self.field(12)).clamp(-2, 2)

    @cached_property
    def patches(self) -> torch.Tensor:
        return self.field(20)


def colour(red: float, green: float, blue: float) -> torch.Tensor:
    """An sRGB colour as linear light, (3, 1, 1)."""
    return torch.tensor([red, green, blue])[:, None, None] ** 2.2


def tint(red: float, green: float, blue: float) -> torch.Tensor:
    """Factors for linear light, (3, 1, 1)."""
    return torch.tensor([red, green, blue])[:, None, None]


def mix(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
    return a + (b - a) * share


def greyed(linear: torch.Tensor, share: float) -> torch.Tensor:
    return mix(linear, luminance(linear).expand_as(linear), share)


def vivid(linear: torch.Tensor, share: float) -> torch.Tensor:
    """More colour, against what haze and grey light take from it: real snow and rain have more than a greyed photograph."""
    return greyed(linear, -share).clamp_min(0)


def even_light(scene: Scene, share: float, shadows: float = 0.0) -> torch.Tensor:
    """The things without hard sun and shade: luminance of large areas brought near .16, as on a usual photograph.

    `shadows`: the share taken off those that lie on the ground.
    """
    return scene.front * ((0.16 / scene.wide) ** share).clamp(0.35, 2.5) / scene.shade**shadows


def haze(linear: torch.Tensor, scene: Scene, beta: float | torch.Tensor, air: torch.Tensor) -> torch.Tensor:
    """Koschmieder; distance 1 is the horizon, .09 the ground at the lower border, .6 the farthest thing."""
    return mix(air, linear, torch.exp(-beta * scene.distance))


def gradient(scene: Scene, high: torch.Tensor, low: torch.Tensor, span: float) -> torch.Tensor:
    """Colour `low` at the horizon, `high` from `span` of the height above it."""
    return mix(low, high, (scene.height / span).clamp(0, 1) ** 0.7)


def under(scene: Scene, front: torch.Tensor, sky: torch.Tensor) -> torch.Tensor:
    """A new sky behind painted things."""
    return front + scene.maps["sky"] * sky


def grey_clouds(scene: Scene, base: torch.Tensor, amount: float) -> torch.Tensor:
    """A grey sheet with soft unevenness from the noise, a little darker high up."""
    sheet = 1 + amount * (0.22 * scene.clouds - (scene.height - 0.2))
    return base * sheet.clamp(0.5, 1.4)


def sprites(
    scene: Scene,
    cell: int,
    sprite: torch.Tensor,
    threshold: float,
    where: torch.Tensor | None = None,
    gain: float = 3,
) -> torch.Tensor:
    """A soft `sprite` (h, w) on every cell of `cell` px whose noise (channel 0) is over `threshold`, (1, H, W).

    The more the noise exceeds it, the more opaque it is (`gain` times the excess), and the more of a soft one is seen, so
    sizes differ. `where` (1, H, W): only there.
    """
    pooled = F.avg_pool2d(scene.noise[None, :1], cell // 4) * (cell // 4)  # deviation 1 again
    excess = gain * (pooled - threshold).clamp_min(0)
    if where is not None:
        excess = excess * F.avg_pool2d(where[None], cell)
    grid = np.zeros(scene.linear.shape[-2:], np.float32)
    rows, columns = (side * cell for side in excess.shape[2:])
    grid[:rows:cell, :columns:cell] = excess[0, 0].numpy()
    # What a transposed convolution does, in a tenth of its time.
    down, across = ((side + cell) // 2 - 1 for side in sprite.shape)
    turned = sprite.flip(0, 1).numpy()
    drawn = cv2.filter2D(grid, -1, turned, anchor=(across, down), borderType=cv2.BORDER_CONSTANT)
    return torch.from_numpy(drawn)[None].clamp(0, 1)


def offsets(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (down, across) in px from the middle of a rectangle."""
    return (torch.arange(height) - (height - 1) / 2)[:, None], (torch.arange(width) - (width - 1) / 2)[None]


def flakes(scene: Scene, s: float) -> torch.Tensor:
    """Snowflakes of many opacities, a little longer than wide because they fall during the exposure; beside the small
    ones large near ones, pale because out of focus."""
    down, across = offsets(24, 24)
    leaning = across + 0.3 * down
    small = sprites(scene, 4, torch.exp(-(leaning**2) / (2 * 0.9**2) - down**2 / (2 * 1.4**2)), 2.3 - 1.2 * s, gain=1)
    near = sprites(scene, 8, torch.exp(-(leaning**2) / (2 * 2.6**2) - down**2 / (2 * 3.6**2)), 3.3 - 1.5 * s, gain=1)
    return torch.maximum(small, 0.4 * near)


def streaks(scene: Scene, s: float) -> torch.Tensor:
    """Thin slanted lines, 10–24 px long.

    A falling drop moves during the exposure and draws a line brighter than what is behind it (Garg and Nayar, "Vision and
    rain", IJCV 2007).
    """
    down, across = offsets(32, 16)
    line = torch.exp(-((across + 0.22 * down) ** 2) / (2 * 0.7**2) - down**2 / (2 * 5.5**2))
    return sprites(scene, 4, line, 2.7 - 1.1 * s)


def drops(scene: Scene, s: float, behind: torch.Tensor) -> Painted:
    """Drops on the lens or the windscreen. Each shows a wide view upside down, so that its foot has the light of the sky
    (Roser and Geiger, "Video-based raindrop detection for improved image registration", ICCV workshops 2009).

    They are where the noise is highest, in front of the streaks there. Where it is lowest they were not learned in 30
    minutes, all else that the noise places being at its peaks.
    """
    down, across = offsets(32, 32)
    disc = torch.exp(-((((across / 3.4) ** 2 + (down / 4.2) ** 2) / 2) ** 1.5))
    low = torch.exp(-((across / 2.4) ** 2 + ((down - 2.6) / 1.6) ** 2) / 2)
    cover, foot = (sprites(scene, 4, sprite, 3.3 - 0.8 * s) for sprite in (disc, low))
    seen = 0.45 * blur(behind, 10) + foot * colour(0.84, 0.86, 0.88) * (0.85 - 0.35 * s)
    return mix(behind, seen, 0.85 * cover), cover


def bloom(source: torch.Tensor) -> torch.Tensor:
    """Light of small sources with three widths of glow, for the several kinds of scattering in eye and lens (Spencer and
    others, "Physically-based glare effects for digital images", SIGGRAPH 1995)."""
    return 1.8 * source + 1.5 * blur(source, 1.5) + 1.2 * blur(source, 5) + 0.8 * blur(source, 16)


def lamp_light(scene: Scene) -> torch.Tensor:
    """Lamps of vehicles and the street lamps that the photograph shows, linear (3, H, W)."""
    heads, tails, streets = (scene.maps[kind] for kind in ("heads", "tails", "streets"))
    return heads * tint(1.0, 0.95, 0.8) + tails * tint(1.0, 0.06, 0.03) + streets * tint(1.0, 0.8, 0.5)


def room_light(scene: Scene) -> torch.Tensor:
    """Light from windows, (3, H, W): about half of them are lit, as the noise says, each as a whole; warm, and brighter
    where the window is by day."""
    panes = scene.maps["windows"][0].numpy()
    count, labels = cv2.connectedComponents((panes > 0.5).astype(np.uint8), connectivity=4)
    areas = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)

    def means(plane: torch.Tensor) -> np.ndarray:
        return np.bincount(labels.ravel(), plane.numpy().ravel(), count) / areas

    share = np.clip(3 * means(scene.field(12)), 0, 1)
    texture = (scene.light[0].numpy() + 0.02) / (means(scene.light) + 0.02)[labels]
    lit = share[labels] * panes * (0.75 + 0.25 * texture.clip(0, 2))
    return torch.from_numpy((lit * (labels > 0)).astype(np.float32))[None] * tint(*WARM)


def lamp_room(maps: dict[str, torch.Tensor]) -> torch.Tensor:
    """Where street lamps may be, (1, H, W) in 0..1: over the horizon, on what is far or on the sky close to it."""
    height = maps["rows"] - 0.5
    band = ((height - 0.02) * 50).clamp(0, 1) * torch.exp(-((height / (0.18 - 0.08 * maps["sky"])) ** 4))
    return band * (1 - torch.exp(-((blur(maps["depth"], 4) / 0.28) ** 4)))


def street_lamps(scene: Scene) -> Painted:
    """Lamps along the street, (3, H, W): the noise places them where there is room; and the weight, (1, H, W), of these
    and, less, of the places where none belongs although the noise has one.

    A white-hot core in an orange glow that falls off in three steps, like the halo of a lens.
    """
    down, across = offsets(96, 96)
    square = down**2 + across**2
    core = torch.exp(-square / (2 * 1.7**2))
    glow = 0.35 * torch.exp(-square / (2 * 4.5**2)) + 0.12 * torch.exp(-square / (2 * 14.0**2))
    where = lamp_room(scene.maps) if scene.shows_place else torch.ones_like(scene.maps["sky"])
    cores, glows = (sprites(scene, 4, shape, 2.6, where) for shape in (core, glow))
    places = cores + 0.15 * sprites(scene, 4, core, 2.6, 1 - where)
    return cores * tint(1.0, 0.88, 0.66) + glows * tint(*WARM), (2 * blur(places, 1.5)).clamp(0, 1)


def lamp_pools(scene: Scene) -> torch.Tensor:
    """How far street lamps reach, (1, H, W), mean about 1: in pools along the street, less on roofs than below."""
    pools = (0.35 * scene.field(32).clamp(-2, 2)).exp()
    return pools * (-4.5 * scene.height.clamp_min(0)).exp() * 1.4


def snow(scene: Scene, s: float) -> Painted:
    """Falling snow over lying snow."""
    lying, weight = snow_lying(scene, s)
    out = haze(lying, scene, 0.15 * s**2, colour(0.66, 0.71, 0.80))
    spots = flakes(scene, s)
    return mix(out, colour(0.97, 0.97, 1.0), spots), torch.maximum(spots, weight)


def snow_lying(scene: Scene, s: float) -> Painted:
    """Snow whitens the ground and plants and lines upper edges, what lies open to the sky (Fearing, "Computer modelling of
    fallen snow", SIGGRAPH 2000, there by shape, here by map); grey sky, soft cold light, dark things."""
    maps = scene.maps
    scenery = vivid(even_light(scene, 0.15 * s, 0.8 * s), 0.2 * s) * tint(0.95, 1.0, 1.07) * (0.95 - 0.63 * s)
    shade = scene.detail
    # What is very much darker than the ground around it is a car that the map took for ground, or the shade under one.
    bare = ((scene.light / scene.usual_ground - 0.08) / 0.2).clamp(0.15, 1)
    lying = maps["ground"] * min(0.93, 1.15 * s) * bare
    plants = torch.sigmoid(9 * (shade - 1.3 + 0.55 * s)) * maps["plants"] * min(0.75, s)
    caps = maps["caps"] * (1 - maps["ground"]) * 0.75 * min(1.0, 1.4 * s) * (1.25 - 0.55 * s)
    cover = torch.maximum(torch.maximum(lying, plants), caps)
    # Under a grey sky snow lies without most of the sun's shadows. The ground's marks show through: as a blank sheet, what
    # is a little wrongly taken for ground would dissolve.
    seen = mix(shade, scene.texture**0.8, maps["ground"]) / scene.shade**0.5
    white = colour(0.73, 0.78, 0.87) * (0.15 + 0.85 * seen).clamp(0.15, 1.15)
    out = mix(scenery, white, cover)
    return under(scene, out, grey_clouds(scene, colour(0.75, 0.79, 0.86), 0.3)), torch.maximum(
        border(scene), 0.45 * lying
    )


def night_front(scene: Scene, s: float) -> torch.Tensor:
    """The things by night: dim, even, less coloured, as eyes see by little light (Thompson, Shirley and Ferwerda, "A spatial
    post-processing algorithm for images of night scenes", Journal of Graphics Tools 2002); local contrast kept so that
    dark cars stay readable."""
    even = even_light(scene, 0.6 * s, 0.9 * s)
    exposure = 0.75 * 0.0068**s
    rim = scene.detail ** (0.5 * s)
    return greyed(even, 0.1) * exposure * rim


def headlights(scene: Scene) -> torch.Tensor:
    """Light of the camera's own lamps: on the near ground, less on what stands near; (1, H, W) in 0..1."""
    near = torch.exp(-((scene.distance / 0.27) ** 1.5))
    ahead = ((scene.height + 0.5) / 0.12).clamp(0.25, 1)
    return near * ahead * (0.15 + 0.85 * scene.maps["ground"])


def night_sky(scene: Scene, s: float) -> torch.Tensor:
    """Navy above, the brownish glow of a town at the horizon; no clouds of the day."""
    dim = 1.8 - s
    return gradient(scene, colour(0.015, 0.02, 0.045), colour(0.11, 0.075, 0.055), 0.22) * dim**2


def border(scene: Scene) -> torch.Tensor:
    """Weight of a replaced sky, most at its border, where a little of the old one shows as a halo; (1, H, W) in 0..0.45."""
    sky = scene.maps["sky"]
    soft = blur(sky, 2.5)
    return 0.15 * sky + 1.2 * soft * (1 - soft)


def lights_and_sky(scene: Scene, glow: torch.Tensor | None = None) -> torch.Tensor:
    """Few pixels that make the picture: a sky in which nothing of the day is left, light sources with their rim."""
    weight = border(scene) + 0.15 * scene.maps["sky"]
    if glow is None:
        return weight
    return torch.maximum(weight, (1.5 * blur(glow.amax(0, keepdim=True), 1.5)).clamp(0, 1))


def night(scene: Scene, s: float) -> Painted:
    """A street at night in the orange light of its lamps: lit windows, lamps that glow, own headlights on the road."""
    pools = lamp_pools(scene)
    front = night_front(scene, s) * mix(tint(1, 1, 1), tint(1.6, 0.9, 0.3), s) * mix(torch.ones(1), 2 * pools, s)
    albedo = greyed(even_light(scene, 0.3, 0.9), 0.1)
    road = scene.maps["ground"]
    # Lane marks throw light back: thin bright things on dark ground.
    bright = 2 * (scene.light / (scene.plain + 0.02) - 1.5) * (3 - 10 * scene.usual_ground).clamp(0, 1)
    retro = bright.clamp(0, 1) * road * (1 - scene.maps["plants"])
    own = headlights(scene) * (0.6 + 1.2 * retro) * tint(1.0, 0.8, 0.48)
    out = front + albedo * own * 1.7 * min(1.0, 1.4 * s) * (1.25 - 0.55 * s)
    out = under(scene, out, night_sky(scene, s))
    rooms, lamps = room_light(scene), lamp_light(scene)
    street, places = street_lamps(scene)
    around = blur(rooms + 3 * lamps + street, 24)  # what stands or lies near a light has some of it
    out = out + (0.55 * rooms + 0.5 * blur(rooms, 3) + 1.8 * bloom(lamps) + 2.0 * street + 2 * albedo * around) * s
    weight = torch.maximum(lights_and_sky(scene, SHOWN * (rooms + lamps)), places)
    return out, torch.maximum(weight, 0.3 * retro + 0.1 * road)


def night_unlit(scene: Scene, s: float) -> Painted:
    """Night away from lamps: darker and bluer, only the camera's own headlights on the road."""
    front = (
        night_front(scene, s) * (1 - 0.35 * s) * tint(0.85, 0.97, 1.15) * mix(tint(1, 1, 1), tint(0.55, 0.9, 1.5), s)
    )
    own = headlights(scene) * tint(1.0, 0.92, 0.78)
    out = front + greyed(even_light(scene, 0.4), 0.4) * own * 0.13 * s
    return under(scene, out, night_sky(scene, s) * tint(0.5, 0.7, 1.0)), lights_and_sky(scene)


def faint(scene: Scene) -> torch.Tensor:
    """Weight of things in haze: their contrast is low, and so is the error of losing them."""
    return 0.4 * (1 - scene.maps["sky"])


def fog(scene: Scene, s: float) -> Painted:
    """Koschmieder haze in faint banks: the extinction varies by a fifth."""
    air = colour(0.79, 0.80, 0.81) * (1 - 0.06 * s)
    soft = greyed(even_light(scene, 0.45 * s, 0.8 * s), 0.2 + 0.4 * s)
    soft = under(scene, mix(soft, blur(soft, 1.2), 0.6 * s * scene.distance), air)
    banks = torch.exp(0.1 * scene.patches.clamp(-2, 2))
    return haze(soft, scene, (0.5 * s + 6.5 * s**2.6) * banks, air), faint(scene)


def rain(scene: Scene, s: float) -> Painted:
    """Falling rain over a wet street, and drops on the lens."""
    out, wet = rain_wet(scene, s)
    lines = streaks(scene, 0.8 * s)
    out = mix(out, 0.4 * out + colour(0.88, 0.90, 0.93) * 0.65, lines * (0.3 + 0.2 * s))
    out, cover = drops(scene, s, out)
    return out, torch.maximum(torch.maximum(0.8 * lines, cover), wet)


def rain_wet(scene: Scene, s: float) -> Painted:
    """Grey light; wet ground is darker (Lekner and Dorf, "Why some things are darker when wet", Applied Optics 1988) and
    mirrors what stands on it, more so at grazing angles, which is far away (Fresnel), and in puddles."""
    maps = scene.maps
    air = colour(0.76, 0.78, 0.81) * (1 - 0.3 * s)
    scenery = vivid(even_light(scene, 0.05 * s, 0.9 * s), 0.2 * s) * (0.95 - 0.6 * s)
    out = under(scene, scenery, grey_clouds(scene, air * 2.6, 0.2))
    out = haze(out, scene, 0.05 + 0.25 * s**1.5, 1.1 * air)
    wet = maps["ground"] * min(1.0, 0.35 + 0.8 * s)
    puddles = torch.sigmoid((scene.patches + 2.2 * s - 1.6) * 4)
    gloss = wet * (0.14 + 0.5 * scene.distance.sqrt() + 0.22 * puddles)
    # Much of what it mirrors is the sky, wherever that stands: a wet road shines where no house is mirrored, too.
    image = mix(mirrored(out, maps["ground"]), 0.75 * air, 0.5)
    out = mix(out * (1 - 0.72 * wet), image, gloss)
    return out, torch.maximum(0.4 * wet, border(scene))


def mirrored(linear: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Mirror image at the upper border of the lying ground, column by column, run downwards as on a rough wet surface."""
    _, height, width = linear.shape
    rows = torch.arange(height, dtype=linear.dtype)[:, None]
    # For each pixel the nearest row above it that is not ground: a running maximum down the column.
    standing = torch.where(ground[0] > 0.5, torch.full_like(ground[0], -1.0), rows.expand(height, width))
    edge = blur(torch.cummax(standing, 0).values[None], 3)[0]
    source = (2 * edge - rows).clamp(0, height - 1).round().long()
    image = torch.gather(linear, 1, source[None].expand(3, -1, -1))
    run = F.avg_pool2d(F.avg_pool2d(image[None], (9, 7), (4, 1), (4, 3), count_include_pad=False), (9, 1), 1, (4, 0))
    run = F.interpolate(run, size=(height, width), mode="bilinear", align_corners=False)[0]
    return 0.9 * run + 0.1 * image


def overcast(scene: Scene, s: float) -> Painted:
    """Flat light: sun and shade of large things come together, colour goes down, the sky becomes a grey sheet."""
    flat = greyed(even_light(scene, 0.6 * s, s), 0.1 + 0.4 * s) * (1.05 - 0.3 * s)
    out = under(scene, flat, grey_clouds(scene, colour(0.76, 0.78, 0.81) * (1.1 - 0.35 * s), 0.4))
    return haze(out, scene, 0.3 * s, colour(0.66, 0.68, 0.70)), border(scene)


def dusk(scene: Scene, s: float) -> Painted:
    """After sunset: orange at the horizon, violet-blue above, scenery dim and blue, warm where it faces the horizon."""
    front = greyed(even_light(scene, 0.4 * s, 0.9 * s), 0.1 + 0.25 * s) * 0.78 * 0.12**s
    front = front * mix(tint(1, 1, 1), tint(0.8, 0.93, 1.38), s)
    # What faces the bright horizon has some of its colour.
    front = front * (1 + s * (blur(scene.maps["sky"], 30) + 0.08) * tint(1.0, 0.45, 0.1))
    low = mix(colour(0.98, 0.62, 0.30), colour(0.93, 0.48, 0.24), s)
    middle = gradient(scene, colour(0.60, 0.46, 0.44), low, 0.2)
    sky = mix(middle, colour(0.18, 0.23, 0.42), ((scene.height - 0.08) / 0.35).clamp(0, 1)) * (1.2 - 0.55 * s)
    banks = (0.6 * scene.clouds).sigmoid()
    sky = sky * (1 - 0.45 * banks * tint(0.75, 1.0, 1.0))
    out = under(scene, front, sky)
    rooms, lamps = room_light(scene), lamp_light(scene)
    return out + (0.2 * rooms + 0.6 * bloom(lamps)) * s, lights_and_sky(scene, SHOWN * (rooms + lamps))


def dawn(scene: Scene, s: float) -> Painted:
    """Before sunrise: pale pink at the horizon, pale blue above, cool dim scenery, mist in the distance."""
    front = greyed(even_light(scene, 0.4 * s, 0.9 * s), 0.15 + 0.3 * s) * 0.9 * 0.32**s
    front = front * mix(tint(1, 1, 1), tint(0.92, 0.92, 1.14), s)
    sky = gradient(scene, colour(0.52, 0.66, 0.84), colour(1.0, 0.80, 0.68), 0.45) * (1.15 - 0.3 * s)
    sky = sky * (1 + 0.12 * scene.clouds.clamp_min(-1) * tint(0.9, 0.3, 0.25))
    mist = haze(front, scene, (0.1 + 0.55 * s) * (1 - scene.maps["sky"]), colour(0.82, 0.72, 0.72) * (1 - 0.4 * s))
    return under(scene, mist, sky), border(scene)


def sun_place(scene: Scene) -> torch.Tensor:
    """Disc of a low sun (1, H, W), where most sky lies just above the horizon; nothing without sky there."""
    low = scene.maps["sky"] * torch.exp(-(((scene.height - 0.1) / 0.07) ** 2))
    columns = blur(low.mean(1, keepdim=True).expand(1, 8, -1), 12)[0, 0] ** 4
    x = torch.arange(low.shape[-1], dtype=low.dtype)
    centre = (columns * x).sum() / (columns.sum() + 1e-9)
    away = ((x - centre)[None, None] ** 2 + ((scene.height - 0.12) * scene.linear.shape[1]) ** 2).sqrt()
    return torch.exp(-((away / (0.05 * low.shape[-1])) ** 2)) * min(1.0, float(low.mean()) * 40)


def glare(scene: Scene, s: float) -> Painted:
    """Against a low sun: its disc, warm light spilling from the sky over what is near it, the rest in shade. See bloom."""
    sky = scene.maps["sky"]
    warm = tint(1.0, 0.83, 0.55)
    low = torch.exp(-(((scene.height - 0.08) / 0.2) ** 2))
    disc = sun_place(scene) * sky
    front = scene.front * mix(tint(1, 1, 1), warm, s) * (1 - 0.5 * s)
    bright = mix(scene.linear, colour(1.0, 0.93, 0.76) * 1.1, 0.3 + 0.6 * s * low)
    spill = (0.4 * blur(sky, 14) + 0.7 * blur(sky, 45) + 0.3 * scene.maps["depth"]) * (0.35 + 0.65 * low)
    spill = spill + 2.5 * blur(disc, 30) + blur(disc, 10)
    return under(scene, front, bright + 1.5 * disc * s) + warm * s * (0.62 * spill + 0.05), None


def dust(scene: Scene, s: float) -> Painted:
    """Brown haze in banks, dimmer as the dust thickens."""
    air = colour(0.76, 0.60, 0.42) * (1.05 - 0.3 * s)
    front = greyed(scene.front, 0.3 * s) * mix(tint(1, 1, 1), tint(1.08, 0.92, 0.68), s) * (1 - 0.25 * s)
    banks = torch.exp(0.1 * scene.patches.clamp(-2, 2))
    return haze(under(scene, front, air), scene, (0.5 * s + 5.5 * s**2.4) * banks, air), faint(scene)


def same(scene: Scene, s: float) -> Painted:
    """No change, for texts that ask for none."""
    return scene.linear, None


# "night/unlit" is a variant of "night": the same condition with other texts (pocket_prompts.VARIANTS) and another look.
RENDERERS: dict[str, Callable[[Scene, float], Painted]] = {
    "snow": snow, "snow/lying": snow_lying, "night": night, "night/unlit": night_unlit, "fog": fog, "rain": rain,
    "rain/wet": rain_wet, "overcast": overcast, "dusk": dusk, "dawn": dawn, "glare": glare, "dust": dust, "same": same,
}  # fmt: skip


def render(
    condition: str,
    rgb: torch.Tensor,
    maps: torch.Tensor,
    severity: float,
    noise: torch.Tensor,
    shows_place: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(picture (3, H, W) in sRGB 0..1, weight (1, H/4, W/4) in 0..1 of what must not be missed: flakes, streaks, lights;
    less, of what stands).

    Severity 0..1. `shows_place`: see Scene.
    """
    named = {name: maps[i : i + 1].clamp(0, 1) for i, name in enumerate(MAP_NAMES)}
    linear = rgb.clamp(0, 1) ** 2.2
    painted, mask = RENDERERS[condition](Scene(linear, named, noise, shows_place), severity)
    fade = min(1.0, severity / FADE_IN)
    out = mix(linear, painted, fade)
    standing = STANDING * (1 - named["sky"]) * (1 - named["ground"]) * (1 - named["plants"])
    mask = standing if mask is None else torch.maximum(mask * fade, standing)
    return out.clamp(0, 1) ** (1 / 2.2), F.avg_pool2d(mask, 4)
