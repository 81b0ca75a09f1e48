"""What the renderer paints on: a crop in linear light with its maps and its noise, and what all conditions share.

Light is mixed in linear values (gamma 2.2). Haze follows Koschmieder (1924): I = J·t + A·(1 − t), t = exp(−βd), as in
Narasimhan and Nayar, "Vision and the atmosphere", IJCV 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import pi, sqrt

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from scripts.pocket.filters import blur, guided, luminance

Painted = tuple[torch.Tensor, torch.Tensor | None]  # linear picture (3, H, W); what must not be missed (1, H, W)


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
        """The light of things alone: the sky's share of each pixel is subtracted, so that a new sky leaves no bright
        border."""
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
        """Luminance of the ground over the usual one nearby: under 1 in a shadow; 1 on everything else.

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
        """Depth with its far end compressed: cameras stand at different heights, and a depth guessed too far must not hide a
        labelled object in haze."""
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
    """More colour, to make up for haze and grey light: real snow and rain are more colourful than a greyed photograph."""
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


def border(scene: Scene) -> torch.Tensor:
    """Weight of a replaced sky, highest at its border, where remains of the old sky show as a halo; (1, H, W) in 0..0.45."""
    sky = scene.maps["sky"]
    soft = blur(sky, 2.5)
    return 0.15 * sky + 1.2 * soft * (1 - soft)
