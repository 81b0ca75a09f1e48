"""Things that look like lights and are not, drawn on crops: paint and patches of sunshine on a road, the bonnet of the
camera's own car, heads, and wheels.

Photographs taken from the pavement have few of the first, frames of a dashboard camera one bonnet each, and both
few faces close up: what was trained on the former alone lit all three as headlamps, and now and then a wheel.
Crops are (3 + maps, H, H) float 0..1.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch

from scripts.pocket.maps import MAP_NAMES

GROUND = 3 + MAP_NAMES.index("ground")
DEPTH = 3 + MAP_NAMES.index("depth")
ROWS = MAP_NAMES.index("rows")  # the last map, the only one that a bonnet does not change
ON_ROAD, BONNET = 0.35, 0.25  # share of the crops with room for it
HEAD, WHEEL = 0.12, 0.1  # share of all crops
LEAST_GROUND = 0.08  # of the crop
BOTTOM = 0.1  # of the crop's height, of which at least BOTTOM_GROUND must be ground where a bonnet comes
BOTTOM_GROUND = 0.5
BONNET_DEPTH = 0.03
# Eyes, nose and mouth, each (right, down, width, height), from the middle and in half widths of a head.
FACE = ((-0.4, -0.1, 0.16, 0.08), (0.4, -0.1, 0.16, 0.08), (0, 0.2, 0.15, 0.06), (0, 0.5, 0.3, 0.09))


def with_decoys(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The crop, sometimes with such things drawn on it; its maps then show them."""
    ground = crop[GROUND].numpy()
    if rng.random() < ON_ROAD and ground.mean() > LEAST_GROUND:
        crop = torch.cat((painted_road(crop[:3], crop[GROUND], rng), crop[3:]))
    if rng.random() < BONNET and ground[-max(1, int(BOTTOM * len(ground))) :].mean() > BOTTOM_GROUND:
        crop = behind_bonnet(crop, rng)
    if rng.random() < WHEEL:
        crop = behind_wheel(crop, rng)
    return behind_head(crop, rng) if rng.random() < HEAD else crop


def pattern(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stripes that run to a vanishing point above the ground, cut across: a zebra crossing (many short ones), lane marks
    (up to three, in pieces), sunshine between shadows (both). (H, H) in 0..1; `ground`, too, with
    some in it."""
    side = len(ground)
    shown = np.flatnonzero(ground.mean(1) > 0.05)
    first, last = shown[0], shown[-1]
    far = first - rng.uniform(0.02, 0.3) * side
    middle = rng.uniform(-0.3, 1.3) * side
    if rng.random() < 0.5:
        stripes, pieces, share = int(rng.integers(3, 13)), int(rng.integers(1, 3)), rng.uniform(0.25, 0.6)
    else:
        stripes, pieces, share = int(rng.integers(1, 4)), int(rng.integers(3, 14)), rng.uniform(0.15, 0.7)
    rows = np.sort(rng.uniform(first, last, 2)) if pieces < 3 else np.array([first, last], float)
    # Pieces of one length on the road get shorter towards the vanishing point, as 1 / distance.
    cuts = far + 1 / np.linspace(1 / (rows[0] - far + 1), 1 / (rows[1] - far + 1), pieces + 1)
    centre, width = (rng.uniform(0, side) - middle) / (side - far), rng.uniform(0.03, 0.3) * side / (side - far)
    drawn = np.zeros((side, side), np.uint8)
    for stripe in range(stripes):
        left = centre + (stripe - stripes / 2) * width
        for top, bottom in pairwise(cuts):
            if rng.random() < 0.12:  # worn off
                continue
            low = top + (bottom - top) * (share if pieces > 2 else 0.95)
            corners = [(middle + slope * (y - far), y) for y, slope in (
                (top, left), (top, left + share * width), (low, left + share * width), (low, left)
            )]  # fmt: skip
            cv2.fillConvexPoly(drawn, np.round(np.array(corners) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    return drawn.astype(np.float32) / 255


def painted_road(rgb: torch.Tensor, ground: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Stripes of white or yellow paint on the ground (H, H) of `rgb`; or sunlit stripes with the rest in shadow."""
    shape = torch.from_numpy(pattern(ground.numpy(), rng))
    if rng.random() < 0.35:
        dark, bright = rng.uniform(0.2, 0.6), rng.uniform(1, 1.7)
        return (rgb * (1 - ground * (1 - dark - (bright - dark) * shape))).clamp(0, 1)
    yellow = torch.tensor([1.0, 0.8, 0.35] if rng.random() < 0.2 else [1.0, 1.0, 0.97])[:, None, None]
    cover = ground * shape * float(rng.uniform(0.6, 1.0))
    return rgb + cover * (yellow * float(rng.uniform(0.55, 1.0)) - rgb)


def behind_bonnet(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A bonnet along the lower edge, in which what is above it is reflected, squeezed and blurred, with highlights."""
    side = crop.shape[-1]
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    height, middle = rng.uniform(0.04, 0.2) * side, rng.uniform(0.2, 0.8) * side
    edge = (side - height + rng.uniform(0, 0.8) * height * ((x - middle) / side) ** 2 * 4).astype(np.float32)
    squeeze = rng.uniform(1.5, 4)
    mirrored = cv2.remap(
        crop[:3].permute(1, 2, 0).numpy(),
        x + rng.uniform(-0.2, 0.2) * (y - edge).astype(np.float32),
        (edge - squeeze * (y - edge)).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    mirrored = cv2.GaussianBlur(mirrored, (0, 0), rng.uniform(0.5, 0.02 * side), sigmaY=rng.uniform(0.5, 4))
    colour = rng.uniform(0.02, 0.7) ** 2 * np.exp(rng.normal(0, 0.2, 3)).astype(np.float32)
    look = np.clip(colour + rng.uniform(0.2, 1.1) * (mirrored - rng.uniform(0, 0.3)), 0, 1)
    for _ in range(rng.integers(0, 6)):  # the sun on a bent sheet, or a sticker on the windscreen in it
        along, across = rng.uniform(0.02, 0.15) * side, rng.uniform(0.004, 0.03) * side
        right, down = x - rng.uniform(0, side), y - edge - rng.uniform(0, height)
        spot = ((right / along) ** 2 + (down / across) ** 2)[..., None]
        look = look + (1 - look) * rng.uniform(0.4, 1) * np.exp(-(spot**2))
    if rng.random() < 0.5:  # under it, the dashboard or the dark foot of the windscreen
        foot = side - rng.uniform(0.1, 0.7) * height + rng.uniform(-0.1, 0.1) * (x - side / 2)
        look = look * (1 - rng.uniform(0.7, 1) * np.clip((y - foot) / 3, 0, 1))[..., None]
    return before(crop, look, np.clip(y - edge, 0, 1), BONNET_DEPTH)


def behind_wheel(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """One to three wheels, seen from the side or at an angle: dark tyres, pale rims with spokes, holes and a hub."""
    side = crop.shape[-1]
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    radius, narrow = side * float(np.exp(rng.uniform(np.log(0.03), np.log(0.15)))), rng.uniform(0.35, 1)
    right, down = rng.uniform(0, side), rng.uniform(0.4, 0.95) * side
    spokes, turn, rim = int(rng.integers(4, 16)), rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.8)
    pale, tyre, hole = rng.uniform(0.3, 1.0), rng.uniform(0.02, 0.15), rng.uniform(0, 0.9)
    for _ in range(rng.integers(1, 4)):
        across, below = (x - right) / (radius * narrow), (y - down) / radius
        far, around = np.hypot(across, below), np.arctan2(below, across)
        gap = np.clip(2 * np.cos(spokes * around + turn) + 0.5, 0, 1) * (far > 0.3 * rim) * (far < 0.85 * rim)
        shining = pale * (1 + 0.3 * np.cos(around - turn)) * (1 - hole * gap)
        plane = np.where(far < rim, shining, tyre)
        look, there = (
            cv2.GaussianBlur(np.clip(p, 0, 1).astype(np.float32), (0, 0), 0.3 + 0.04 * radius)
            for p in (plane, (1 - far) * radius)
        )
        grey = np.repeat(look[..., None], 3, 2)
        crop = before(crop, grey, there, float(np.clip(0.02 * side / radius, 0.04, 0.4)))
        right += rng.choice((-1, 1)) * rng.uniform(2.2, 7) * radius
    return crop


def behind_head(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Somebody's head and shoulders, or a ball: something round and pale, lit from one side."""
    side = crop.shape[-1]
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    half = side * float(np.exp(rng.uniform(np.log(0.03), np.log(0.3))))
    across, down = (x - rng.uniform(0, side)) / half, (y - rng.uniform(0.1, 0.9) * side) / half
    across, down = across + rng.uniform(-0.3, 0.3) * down, down / rng.uniform(1.0, 1.45)
    turn, shading = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.45)
    light = rng.uniform(0.65, 1.0) + shading * (np.cos(turn) * across + np.sin(turn) * down)
    skin = rng.uniform(0.3, 1.0) * np.array([1, rng.uniform(0.6, 0.9), rng.uniform(0.4, 0.85)])
    look, inside = skin * light[..., None], 1 - np.hypot(across, down)
    if rng.random() < 0.8:
        for right, below, wide, high in FACE:
            feature = np.exp(-(((across - right) / wide) ** 2 + ((down - below) / high) ** 2))
            look = look * (1 - rng.uniform(0.1, 0.8) * feature[..., None])
        bare = np.clip((inside - 0.05 + np.minimum(down + 0.45, 0)) * half / 2, 0, 1)[..., None]
        hair = rng.uniform(0.02, 0.5) * np.array([1, 0.8, 0.6])
        cloth = rng.uniform(0, 0.8) * np.exp(rng.normal(0, 0.3, 3))
        body = np.where(down < 0.8, -1, 1 - np.abs(across / rng.uniform(1.8, 2.6)) ** 3)
        look = bare * look + (1 - bare) * np.where((body > 0)[..., None], cloth, hair)
        inside = np.maximum.reduce((inside, 1.2 - np.hypot(across, down + 0.25), body))
    soft = rng.uniform(0.3, 0.006 * side + 0.3)
    look, there = (
        cv2.GaussianBlur(np.clip(plane, 0, 1).astype(np.float32), (0, 0), soft) for plane in (look, inside * half)
    )
    return before(crop, look, there, float(np.clip(0.02 * side / half, 0.04, 0.4)))


def before(crop: torch.Tensor, look: np.ndarray, there: np.ndarray, depth: float) -> torch.Tensor:
    """The crop behind a thing with the pixels `look` (H, H, 3), opaque where `there` (H, H) is 1."""
    cover = torch.from_numpy(there.astype(np.float32)).clamp(0, 1)
    maps = crop[3:].clone()
    maps[:ROWS] *= 1 - cover
    maps[DEPTH - 3] += depth * cover
    shown = torch.from_numpy(look.astype(np.float32)).permute(2, 0, 1)
    return torch.cat(((1 - cover) * crop[:3] + cover * shown, maps))
