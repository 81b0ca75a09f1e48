"""What shines by night: lamps of vehicles and streets, windows, the camera's own headlights."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from scripts.pocket.filters import blur
from scripts.pocket.particles import offsets, sprites
from scripts.pocket.scene import Painted, Scene, border, tint

WARM = (1.0, 0.62, 0.26)  # light of lamps and of rooms
# Loss weight of lamps and windows that the photograph shows: well over STANDING, or their surroundings would decide; less
# than that of the seed's lamps, because the model first has to find them (lessons.misread), and until then paints the mean
# over all likely places, a blot.
SHOWN = 0.8


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


def headlights(scene: Scene) -> torch.Tensor:
    """Light of the camera's own lamps: on the near ground, less on what stands near; (1, H, W) in 0..1."""
    near = torch.exp(-((scene.distance / 0.27) ** 1.5))
    ahead = ((scene.height + 0.5) / 0.12).clamp(0.25, 1)
    return near * ahead * (0.15 + 0.85 * scene.maps["ground"])


def lights_and_sky(scene: Scene, glow: torch.Tensor | None = None) -> torch.Tensor:
    """Loss weight of the few pixels that make a night: the replaced sky, and light sources with their rims, (1, H, W)."""
    weight = border(scene) + 0.15 * scene.maps["sky"]
    if glow is None:
        return weight
    return torch.maximum(weight, (1.5 * blur(glow.amax(0, keepdim=True), 1.5)).clamp(0, 1))
