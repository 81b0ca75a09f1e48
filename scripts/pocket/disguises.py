"""The same scene as it might have looked elsewhere: on another road, through a windscreen, to another camera.

Most photographs show one vehicle on pale concrete or grass; frames of dashboard cameras show dark smooth asphalt through a
dirty windscreen. What was trained on the former alone took shadows, bonnets and veils of the latter for things or snow.
Crops are (3 + maps, H, H), pictures (3, H, H), float 0..1; the maps say what is where
afterwards, which only more road changes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from scripts.pocket.filters import blur, luminance
from scripts.pocket.maps import MAP_NAMES
from scripts.pocket.marks import LIGHTS

SKY, GROUND = (3 + MAP_NAMES.index(name) for name in ("sky", "ground"))
MORE_ROAD = 0.6  # share of the crops with room for it
OTHER_PAINT, WINDSCREEN, OTHER_CAMERA = 0.5, 0.2, 0.6  # share of all crops
LOWEST = 0.1  # of the crop's height: where more road may follow, if as much as LEAST_ROAD of it is ground
LEAST_ROAD = 0.8


def other_paint(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Sky, ground and the rest each made lighter or darker and of another colour; the ground is often made as even and
    grey as asphalt."""
    linear = crop[:3] ** 2.2
    sky = crop[SKY : SKY + 1]
    ground = crop[GROUND : GROUND + 1] * (1 - sky)
    if rng.random() < 0.6:
        sigma = crop.shape[-1] / 20
        even = luminance((blur(linear * ground, sigma) + 1e-4) / (blur(ground, sigma) + 1e-3))
        grain = torch.from_numpy(rng.normal(1, rng.uniform(0.02, 0.12), linear.shape[1:])).float()
        linear = linear + ground * float(rng.uniform(0.3, 0.95)) * (even * grain - linear)

    def paint(mean: float, spread: float, tone: float) -> torch.Tensor:
        drawn = rng.normal(mean, spread) + rng.normal(0, tone, (3, 1, 1))
        return torch.from_numpy(np.exp(drawn)).float()

    gain = sky * paint(0, 0.2, 0.08) + ground * paint(-0.6, 0.6, 0.05)
    if rng.random() < 0.4:  # the shade of trees
        leaves = torch.from_numpy(rng.normal(0, 1, (1, 1, int(rng.integers(4, 16)), int(rng.integers(3, 9))))).float()
        leaves = F.interpolate(leaves, size=linear.shape[1:], mode="bicubic", align_corners=False)[0]
        shade = (leaves * float(rng.uniform(2, 12))).sigmoid() * float(rng.uniform(0.3, 0.9))
        gain = gain * (1 - ground * shade)
    gain = gain + (1 - sky - ground).clamp_min(0) * paint(-0.1, 0.35, 0.08)
    return torch.cat(((linear * gain).clamp(0, 1) ** (1 / 2.2), crop[3:]))


def more_road(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The view from a car further back: what is seen moves up, and a sixth to a half of the crop becomes empty road in
    front.
    A crop that does not end in ground is returned as it is."""
    side = crop.shape[-1]
    strip = crop[:, -max(2, round(LOWEST * side)) :]
    if strip[GROUND].mean() < LEAST_ROAD:
        return crop
    added = round(side * float(rng.uniform(0.15, 0.5)))
    tone = strip[:3].flatten(1).median(1).values[:, None, None]
    near = torch.linspace(0, 1, added)[None, :, None]
    grain = torch.from_numpy(rng.normal(1, rng.uniform(0.01, 0.08), (1, added, side))).float()
    road = tone * torch.exp(-float(rng.uniform(0, 0.9)) * near) * blur(grain, float(rng.uniform(0, 1.2)))
    mirrored = crop[:3, -added:].flip(1)
    rgb = mirrored + (road - mirrored) * (4 * near).clamp(0, 1)
    maps = crop[3:, -1:].repeat(1, added, 1)
    maps[[SKY - 3, *(MAP_NAMES.index(name) for name in ("plants", "caps", *LIGHTS))]] = 0
    maps[GROUND - 3] = torch.maximum(maps[GROUND - 3], (4 * near[0]).clamp(0, 1))
    a_row = (crop[-1, :-1, 0] - crop[-1, 1:, 0]).max()  # none where the map ends, at 0 and at 1
    maps[-1] = (maps[-1] - (torch.arange(added)[:, None] + 1) * a_row).clamp(0, 1)
    return torch.cat((crop[:, added:], torch.cat((rgb.clamp(0, 1), maps))), 1)


def windscreen(rgb: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The view through a windscreen: a little blurred, with the reflection of a dashboard, a pale veil that is denser
    below."""
    side = rgb.shape[-1]
    rgb = blur(rgb, float(rng.uniform(0, side / 300)))
    cells = torch.from_numpy(rng.normal(0, 1, (1, 1, 5, 4))).float()
    cloth = F.interpolate(cells, size=(side, side), mode="bicubic", align_corners=False)[0]
    below = torch.linspace(float(rng.uniform(0, 1)), 1, side)[None, :, None]
    tone = torch.from_numpy(np.exp(rng.normal(0, 0.08, (3, 1, 1)))).float()
    veil = float(rng.uniform(0.02, 0.25)) * below * cloth.sigmoid() * tone
    return (rgb + (1 - rgb) * veil).clamp(0, 1)


def other_camera(rgb: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Another exposure, contrast, colours and white balance."""
    balance = torch.from_numpy(rng.normal(0, 0.05, (3, 1, 1))).float().exp()
    rgb = (rgb * balance).clamp(0, 1) ** float(np.exp(rng.uniform(-0.3, 0.4))) * float(rng.uniform(0.8, 1.1))
    grey = luminance(rgb)
    return (grey + (rgb - grey) * float(rng.uniform(0.4, 1.4))).clamp(0, 1)


def seen_otherwise(rgb: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Sometimes through a windscreen, sometimes by another camera, sometimes unchanged."""
    if rng.random() < WINDSCREEN:
        rgb = windscreen(rgb, rng)
    return other_camera(rgb, rng) if rng.random() < OTHER_CAMERA else rgb
