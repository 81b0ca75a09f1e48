"""What a photograph shows: sky, depth, ground, vegetation, upper edges; lights as marked.

No network and no labels: plain rules on segments, right on about half of the street photographs; marks made by hand
(scripts/pocket/marks.py) help where they are not. They are made once per photograph; the renderer and training only read
them. Pictures are (3, H, W) float 0..1; maps (1, H, W) float 0..1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from scripts.pocket.filters import blur, drawn, luminance
from scripts.pocket.ground import depth_and_ground, marked_depth_and_ground
from scripts.pocket.marks import LIGHTS, Mark, marked_lights, marked_sky, marked_things
from scripts.pocket.sky import horizon_row, sharpened, sky_map

MAP_NAMES = ("sky", "depth", "ground", "plants", "caps", *LIGHTS, "rows")


def cap_map(rgb: torch.Tensor, sky: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Upper edges of darker things before brighter ones, above the horizon (not on cars): a line a few px thick."""
    light = blur(luminance(rgb), 1.0)
    drop = F.pad(light[:, :-3] - light[:, 3:], (0, 0, 0, 3)).clamp_min(0)
    edge = ((drop - 0.12) * 5).clamp(0, 1)
    reach = max(2, rgb.shape[-2] // 120)
    cap = edge
    for k in range(1, reach):
        cap = torch.maximum(cap, F.pad(edge[:, :-k], (0, 0, k, 0)) * (1 - k / reach))
    return blur(cap, 0.8).clamp(0, 1) * (1 - sky) * ((rows - 0.52) * 20).clamp(0, 1)


def make_maps(rgb: torch.Tensor, mark: Mark | None = None) -> torch.Tensor:
    """All maps of a picture in the order of MAP_NAMES, (10, H, W); `rows` is the height above the horizon, .5 on it.

    `mark`: what somebody saw on it, instead of guesses of sky, horizon, ground and where things stand.
    """
    sky = sharpened(rgb, marked_sky(rgb, mark)) if mark else sky_map(rgb)
    horizon = min(max(mark.horizon, 0.02), 0.9) if mark else horizon_row(sky)
    if mark:
        mark = replace(mark, horizon=horizon)
        things = marked_things(rgb, mark)
        depth, ground = marked_depth_and_ground(rgb, sky, mark, things)
    else:
        depth, ground = depth_and_ground(rgb, sky, horizon)
    red, green, blue = (c[None] for c in rgb.unbind(0))
    greener = (((2 * green - red - blue) / (red + green + blue + 0.1) - 0.06) * 8).clamp(0, 1)
    # Not the yellow of signs and vehicles, in which green is no more than red.
    greener = greener * ((green - red + 0.04) * 20).clamp(0, 1)
    plants = blur(greener, rgb.shape[-2] / 130) * (1 - sky)
    height, width = rgb.shape[-2:]
    if mark and len(things):
        plants = plants * (1 - drawn(things.max(0).astype(np.float32), rgb, max(2, height // 120), 1e-3))  # a green car
    rows = (0.5 + horizon - torch.arange(height) / height).clamp(0, 1)[None, :, None].expand(1, height, width)
    caps = cap_map(rgb, sky, rows)
    # No rule tells a lamp from a gleam on chrome, nor a window from a sign: unmarked, none is lit.
    lights = marked_lights(mark, height, width)
    return torch.cat((sky, depth, ground, plants, caps, lights, rows)).clamp(0, 1)
