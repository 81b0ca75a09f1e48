"""The same scene as it might have looked elsewhere: on another road, through a windscreen, to another camera.

Most photographs show one vehicle on pale concrete or grass; frames of dashboard cameras show dark smooth asphalt through a
dirty windscreen. What was trained on the former alone took shadows, bonnets and veils of the latter for things or snow.
Crops are (3 + maps, H, H), pictures (3, H, H), float 0..1; what is where stays.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pocket_maps import MAP_NAMES, blur, luminance

SKY, GROUND = (3 + MAP_NAMES.index(name) for name in ("sky", "ground"))
OTHER_PAINT, WINDSCREEN, OTHER_CAMERA = 0.35, 0.2, 0.6  # share of the crops that are disguised so


def other_paint(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Sky, ground and the rest lighter or darker, and of another colour, each for itself; the ground often as even and grey
    as asphalt."""
    linear = crop[:3] ** 2.2
    sky = crop[SKY : SKY + 1]
    ground = crop[GROUND : GROUND + 1] * (1 - sky)
    if rng.random() < 0.5:
        sigma = crop.shape[-1] / 20
        even = luminance((blur(linear * ground, sigma) + 1e-4) / (blur(ground, sigma) + 1e-3))
        grain = torch.from_numpy(rng.normal(1, rng.uniform(0.02, 0.12), linear.shape[1:])).float()
        linear = linear + ground * float(rng.uniform(0.3, 0.95)) * (even * grain - linear)

    def paint(mean: float, spread: float, tone: float) -> torch.Tensor:
        drawn = rng.normal(mean, spread) + rng.normal(0, tone, (3, 1, 1))
        return torch.from_numpy(np.exp(drawn)).float()

    gain = sky * paint(0, 0.2, 0.08) + ground * paint(-0.4, 0.5, 0.05)
    gain = gain + (1 - sky - ground).clamp_min(0) * paint(-0.1, 0.35, 0.08)
    return torch.cat(((linear * gain).clamp(0, 1) ** (1 / 2.2), crop[3:]))


def windscreen(rgb: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What a pane before the camera does: it blurs a little, and mirrors a dashboard, a pale veil that is denser below."""
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
    """At times through a windscreen, at times by another camera, at times as it is."""
    if rng.random() < WINDSCREEN:
        rgb = windscreen(rgb, rng)
    return other_camera(rgb, rng) if rng.random() < OTHER_CAMERA else rgb
