"""Weather and light painted on a photograph, pixel by pixel: the teacher of the pocket model. Nothing moves.

A renderer takes a crop (3, H, W) in sRGB 0..1, its maps, a severity 0..1 and the very noise that the denoiser will start
from (16, H/4, W/4). Channel 0 says where flakes, streaks and lamps are; channel 1, made smooth, where fog is thicker, water
lies, clouds are darker, street light reaches and windows are lit. So the seed decides, and one denoising step can learn it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from scripts.pocket.filters import blur
from scripts.pocket.lamps import (
    SHOWN,
    bloom,
    headlights,
    lamp_light,
    lamp_pools,
    lights_and_sky,
    room_light,
    street_lamps,
)
from scripts.pocket.maps import MAP_NAMES
from scripts.pocket.particles import drops, flakes, streaks
from scripts.pocket.scene import (
    Painted,
    Scene,
    border,
    colour,
    even_light,
    gradient,
    grey_clouds,
    greyed,
    haze,
    mix,
    tint,
    under,
    vivid,
)

FADE_IN = 0.25  # below this severity the painted picture is mixed with the source, so that 0 is the source itself
NOISE_CHANNELS = 2  # how many channels of the noise the renderer reads
STANDING = 0.3  # loss weight of houses and things: turning one into sky or snow is worse than leaving a sky unchanged


def snow(scene: Scene, s: float) -> Painted:
    """Falling snow over lying snow."""
    lying, weight = snow_lying(scene, s)
    out = haze(lying, scene, 0.15 * s**2, colour(0.66, 0.71, 0.80))
    spots = flakes(scene, s)
    return mix(out, colour(0.97, 0.97, 1.0), spots), torch.maximum(spots, weight)


def snow_lying(scene: Scene, s: float) -> Painted:
    """Snow on what lies open to the sky, ground, plants and upper edges (Fearing, "Computer modelling of
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


def night_sky(scene: Scene, s: float) -> torch.Tensor:
    """Navy above, the brownish glow of a town at the horizon; no clouds of the day."""
    dim = 1.8 - s
    return gradient(scene, colour(0.015, 0.02, 0.045), colour(0.11, 0.075, 0.055), 0.22) * dim**2


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
    # Much of what a wet road mirrors is the sky, so it also shines where no house is mirrored.
    image = mix(mirrored(out, maps["ground"]), 0.75 * air, 0.5)
    out = mix(out * (1 - 0.72 * wet), image, gloss)
    return out, torch.maximum(0.4 * wet, border(scene))


def mirrored(linear: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Mirror image at the upper border of the lying ground, column by column, smeared downwards as on a rough wet
    surface."""
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


# "night/unlit" is a variant of "night": the same condition with other texts (conditions.VARIANTS) and another look.
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
