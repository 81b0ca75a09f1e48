"""Weather and light painted on a photograph, pixel by pixel: the teacher of the pocket model. Nothing moves.

A renderer takes a crop (3, H, W) in sRGB 0..1, its maps, a severity 0..1 and the very noise the denoiser will start
from (16, H/4, W/4); flakes and streaks sit where that noise is high, so the seed decides where they are and one
denoising step can learn them. Light is mixed in linear values (gamma 2.2), haze after Koschmieder (1924):
I = J·t + A·(1 − t), t = exp(−βd), as in Narasimhan and Nayar, "Vision and the atmosphere", IJCV 2002.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pocket_maps import MAP_NAMES, blur, luminance

Painted = tuple[torch.Tensor, torch.Tensor | None]  # linear picture (3, H, W); where flakes and streaks are (1, H, W)


@dataclass(frozen=True)
class Scene:
    """A crop in linear light, its maps (each (1, H, W)), and the noise (16, H/4, W/4)."""

    linear: torch.Tensor
    maps: dict[str, torch.Tensor]
    noise: torch.Tensor

    @property
    def detail(self) -> torch.Tensor:
        """Local shading: luminance over its surroundings, about 1."""
        light = luminance(self.linear) + 0.02
        return (light / blur(light, 10)).clamp(0.4, 1.8)


def colour(red: float, green: float, blue: float) -> torch.Tensor:
    """An sRGB colour as linear light, (3, 1, 1)."""
    return torch.tensor([red, green, blue])[:, None, None] ** 2.2


def mix(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
    return a + (b - a) * share


def greyed(linear: torch.Tensor, share: float) -> torch.Tensor:
    return mix(linear, luminance(linear).expand_as(linear), share)


def haze(linear: torch.Tensor, scene: Scene, beta: float, air: torch.Tensor) -> torch.Tensor:
    """Koschmieder; depth 1 is the horizon, .04 the ground at the lower border."""
    # Things are kept nearer than the sky: a wrong guess of depth must not swallow an object that has a label.
    near = scene.maps["depth"] * (0.55 + 0.45 * scene.maps["sky"])
    return mix(air, linear, torch.exp(-beta * near))


def sky_gradient(scene: Scene, high: torch.Tensor, low: torch.Tensor, span: float = 0.45) -> torch.Tensor:
    """Colour `low` at the horizon, `high` from `span` of the height above it."""
    return mix(low, high, ((scene.maps["rows"] - 0.5) / span).clamp(0, 1) ** 0.8)


def clouds(scene: Scene, base: torch.Tensor, amount: float) -> torch.Tensor:
    """Grey clouds that keep the source's own cloud shapes, so that the sky is not a flat sheet."""
    return base * (1 + amount * (blur(scene.detail, 2) - 1)).clamp(0.6, 1.3)


def specks(scene: Scene, threshold: float) -> torch.Tensor:
    """Flakes about 4–6 px wide: where noise channel 0, brought to pixels, exceeds `threshold`. (1, H, W) in 0..1."""
    field = F.interpolate(scene.noise[None, :1], size=scene.linear.shape[-2:], mode="bicubic", align_corners=False)[0]
    return ((field - threshold) * 1.8).clamp(0, 1)


def streaks(scene: Scene, threshold: float) -> torch.Tensor:
    """Rain streaks about 36 px long: noise channel 0 summed along a slanted line of 9 cells, then as for `specks`."""
    field = F.pad(scene.noise[:1], (2, 2, 4, 4))
    height, width = scene.noise.shape[-2:]
    shifts = [(4 + k, 2 - round(k / 4)) for k in range(-4, 5)]
    total = sum(field[:, y : y + height, x : x + width] for y, x in shifts) / len(shifts) ** 0.5
    field = F.interpolate(total[None], size=scene.linear.shape[-2:], mode="bicubic", align_corners=False)[0]
    return ((field - threshold) * 1.6).clamp(0, 1)


def lamps(scene: Scene, power: float, lamp_colour: torch.Tensor) -> torch.Tensor:
    """Light of small sources with three widths of bloom, white ones in `lamp_colour`, coloured ones in their own."""
    own = scene.linear / (scene.linear.amax(0, keepdim=True) + 1e-3)
    source = scene.maps["lamps"] * own**1.5 * lamp_colour
    return power * (source * 1.5 + 1.6 * blur(source, 2.5) + 1.8 * blur(source, 7) + 2.0 * blur(source, 20))


def snow(scene: Scene, s: float) -> Painted:
    """Cover grows with severity from the bright and flat places; plants and upper edges get less of it than the ground."""
    maps = scene.maps
    air = colour(0.80, 0.82, 0.86)
    scenery = greyed(scene.linear, 0.25 + 0.45 * s)
    scenery = scenery / (1 + 0.8 * s * blur(luminance(scenery), 12))  # an overcast sky takes the hard sunlight away
    shade = scene.detail
    level = 1.35 * s**0.6
    lying = torch.sigmoid((level + 0.9 * (shade - 1) - 0.55) * 7) * maps["ground"]
    on_plants = torch.sigmoid((level + 0.8 * (shade - 1) - 0.75) * 6) * maps["plants"] * 0.85
    on_caps = maps["caps"] * min(1.0, 1.5 * s) * (1 - maps["ground"])
    cover = torch.maximum(torch.maximum(lying, on_plants), on_caps * 0.9) * (1 - maps["sky"])
    white = colour(0.93, 0.95, 0.98) * (0.55 + 0.45 * shade).clamp(0.55, 1.08)
    out = mix(scenery, white, cover * min(1.0, 0.45 + s))
    grey = clouds(scene, air * (1.05 - 0.1 * s), 0.5)
    out = mix(out, grey, maps["sky"] * min(1.0, 0.35 + 1.0 * s))
    out = haze(out, scene, 0.25 + 2.2 * s**1.5, air)
    flakes = specks(scene, 2.75 - 1.35 * s**0.75) * (0.75 + 0.2 * s)
    return mix(out, colour(0.97, 0.98, 1.0), flakes), flakes


def night(scene: Scene, s: float) -> Painted:
    """Exposure down, colour lost and shifted to blue (Purkinje), navy sky, small sources glow with bloom."""
    maps = scene.maps
    exposure = 0.72 * 0.045**s
    tint = mix(torch.ones(3, 1, 1), torch.tensor([0.62, 0.82, 1.35])[:, None, None], min(1.0, 0.3 + 0.8 * s))
    scenery = greyed(scene.linear, 0.2 + 0.45 * s) * tint * exposure
    # Headlights of the camera's own car and of street lamps: the near ground stays warmer and brighter than the distance.
    near = (1 - maps["depth"]).clamp(0, 1) ** 2 * (0.35 + 0.65 * maps["ground"])
    scenery = scenery * (1 - 0.35 * s + near * 1.1 * s * torch.tensor([1.25, 1.0, 0.72])[:, None, None])
    dark_sky = sky_gradient(scene, colour(0.03, 0.045, 0.11), colour(0.10, 0.115, 0.19))
    dusk_sky = scene.linear * exposure * tint
    out = mix(scenery, mix(dusk_sky, dark_sky, min(1.0, 0.25 + 1.3 * s)), maps["sky"])
    light = lamps(scene, 0.25 + 0.75 * s, torch.tensor([1.0, 0.83, 0.55])[:, None, None])
    return out + light * min(1.0, 0.3 + s), None


def fog(scene: Scene, s: float) -> Painted:
    """Koschmieder haze; at 100 the visibility is about a tenth of the way to the horizon."""
    air = colour(0.80, 0.81, 0.82) * (1 - 0.08 * s)
    soft = greyed(scene.linear, 0.15 + 0.35 * s)
    soft = mix(soft, blur(soft, 1.2), 0.5 * s * scene.maps["depth"])
    out = haze(soft, scene, 0.35 + 10 * s**1.3, air)
    return out, None


def rain(scene: Scene, s: float) -> Painted:
    """Darker and greyer, wet ground (lower albedo, mirror image of what stands on it), streaks, some haze."""
    maps = scene.maps
    air = colour(0.60, 0.63, 0.67)
    scenery = greyed(scene.linear, 0.2 + 0.4 * s)
    scenery = scenery / (1 + 1.2 * s * blur(luminance(scenery), 12)) * (0.9 - 0.38 * s)
    grey = clouds(scene, air * (1 - 0.35 * s), 0.9)
    out = mix(scenery, grey, maps["sky"] * min(1.0, 0.35 + s))
    out = haze(out, scene, 0.1 + 1.4 * s, air * (1 - 0.3 * s))
    wet = maps["ground"] * min(1.0, 0.25 + 0.9 * s)
    # Fresnel: a flat view far away mirrors more than the ground at one's feet.
    gloss = wet * (0.30 + 0.45 * maps["depth"].clamp(0, 0.5) * 2)
    out = mix(out * (1 - 0.45 * wet), mirrored(out, maps["ground"]), gloss)
    lines = streaks(scene, 2.4 - 1.3 * s**0.8)
    return mix(out, colour(0.80, 0.82, 0.86), lines * (0.32 + 0.23 * s)), lines * 0.7


def mirrored(linear: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Mirror image at the upper border of the lying ground, column by column, run downwards as on a rough wet surface."""
    _, height, width = linear.shape
    rows = torch.arange(height, dtype=linear.dtype)[:, None]
    is_ground = (ground[0] > 0.5).to(linear.dtype)
    # For each pixel the nearest row above it that is not ground: a running maximum down the column.
    standing = torch.where(is_ground > 0, torch.full_like(ground[0], -1.0), rows.expand(height, width))
    edge = blur(torch.cummax(standing, 0).values[None], 3)[0]
    source = (2 * edge - rows).clamp(0, height - 1)
    grid_y = source / (height - 1) * 2 - 1
    grid_x = (torch.arange(width, dtype=linear.dtype) / (width - 1) * 2 - 1)[None].expand(height, width)
    grid = torch.stack((grid_x, grid_y), -1)[None]
    image = F.grid_sample(linear[None], grid, align_corners=True, padding_mode="border")[0]
    taps = F.avg_pool2d(image[None], (25, 3), 1, (12, 1), count_include_pad=False)[0]
    return 0.55 * taps + 0.45 * image


def overcast(scene: Scene, s: float) -> Painted:
    """Flat light: local contrast of large things and colour go down, the sky becomes a grey sheet."""
    wide = blur(luminance(scene.linear), 14) + 0.03
    flat = greyed(scene.linear, 0.15 + 0.4 * s) * (wide.mean() / wide) ** (0.45 * s) * (0.95 - 0.3 * s)
    out = mix(flat, clouds(scene, colour(0.70, 0.72, 0.75), 0.7), scene.maps["sky"] * min(1.0, 0.35 + s))
    return haze(out, scene, 0.1 + 0.35 * s, colour(0.66, 0.68, 0.70)), None


def dusk(scene: Scene, s: float) -> Painted:
    """After sunset: orange at the horizon, violet above, scenery dim and violet, first lamps."""
    exposure = 0.85 * 0.16**s
    tint = mix(torch.ones(3, 1, 1), torch.tensor([1.12, 0.80, 1.12])[:, None, None], min(1.0, 0.3 + 0.8 * s))
    scenery = greyed(scene.linear, 0.1 + 0.3 * s) * tint * exposure
    sky = sky_gradient(scene, colour(0.30, 0.26, 0.45), colour(0.95, 0.55, 0.32)) * (1.15 - 0.6 * s)
    out = mix(scenery, clouds(scene, sky, 0.5), scene.maps["sky"] * min(1.0, 0.35 + 1.1 * s))
    return out + lamps(scene, 0.5 * s, torch.tensor([1.0, 0.75, 0.42])[:, None, None]), None


def dawn(scene: Scene, s: float) -> Painted:
    """Before sunrise: pale pink and blue sky, cool dim scenery, light mist in the distance."""
    exposure = 0.9 * 0.33**s
    tint = mix(torch.ones(3, 1, 1), torch.tensor([0.95, 0.92, 1.12])[:, None, None], min(1.0, 0.3 + 0.8 * s))
    scenery = greyed(scene.linear, 0.15 + 0.35 * s) * tint * exposure
    sky = sky_gradient(scene, colour(0.55, 0.62, 0.78), colour(0.96, 0.76, 0.70)) * (1.1 - 0.35 * s)
    out = mix(scenery, clouds(scene, sky, 0.4), scene.maps["sky"] * min(1.0, 0.35 + 1.1 * s))
    return haze(out, scene, 0.2 + 1.6 * s, colour(0.80, 0.70, 0.70) * (1 - 0.3 * s)), None


def glare(scene: Scene, s: float) -> Painted:
    """Against a low sun: warm light spills from the sky over everything near it, the foreground falls into shade."""
    sky = scene.maps["sky"]
    low = torch.exp(-(((scene.maps["rows"] - 0.55) / 0.16) ** 2))
    spill = (0.5 * blur(sky, 14) + 0.8 * blur(sky, 45) + 0.25 * scene.maps["depth"]) * (0.45 + 0.75 * low)
    warm = torch.tensor([1.0, 0.83, 0.55])[:, None, None]
    scenery = scene.linear * mix(torch.ones(3, 1, 1), warm, min(1.0, 0.3 + 0.7 * s)) * (1 - 0.45 * s)
    bright = mix(scene.linear, colour(1.0, 0.93, 0.78) * 1.2, min(1.0, 0.25 + 0.9 * s))
    out = mix(scenery, bright, sky)
    return out + warm * (0.12 + 0.9 * s) * spill * 0.75 + 0.03 * s, None


def dust(scene: Scene, s: float) -> Painted:
    """Brown haze, dimmer as the dust thickens."""
    air = colour(0.74, 0.58, 0.40) * (1.05 - 0.25 * s)
    tint = mix(torch.ones(3, 1, 1), torch.tensor([1.1, 0.92, 0.68])[:, None, None], min(1.0, 0.25 + 0.8 * s))
    out = haze(scene.linear * tint * (1 - 0.2 * s), scene, 0.4 + 8.5 * s**1.3, air)
    return out, None


def same(scene: Scene, s: float) -> Painted:
    """No change, for texts that ask for none."""
    return scene.linear, None


RENDERERS: dict[str, Callable[[Scene, float], Painted]] = {
    "snow": snow, "night": night, "fog": fog, "rain": rain, "overcast": overcast,
    "dusk": dusk, "dawn": dawn, "glare": glare, "dust": dust, "same": same,
}  # fmt: skip


def render(
    condition: str, rgb: torch.Tensor, maps: torch.Tensor, severity: float, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(picture (3, H, W) in sRGB 0..1, weight (1, H/4, W/4) of flakes and streaks in 0..1). Severity 0..1."""
    named = {name: maps[i : i + 1] for i, name in enumerate(MAP_NAMES)}
    linear = rgb.clamp(0, 1) ** 2.2
    out, mask = RENDERERS[condition](Scene(linear, named, noise), severity)
    mask = torch.zeros_like(maps[:1]) if mask is None else mask
    return out.clamp(0, 1) ** (1 / 2.2), F.avg_pool2d(mask, 4)
