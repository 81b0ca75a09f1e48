"""What a photograph shows, guessed from its pixels: sky, depth, ground, vegetation, upper edges, small lights.

No network and no labels: plain rules on segments, right on most street photographs, and never moving a pixel. They are made
once per photograph; the renderer and training only read them. Pictures are (3, H, W) float 0..1; maps (1, H, W) float 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

MAP_NAMES = ("sky", "depth", "ground", "plants", "caps", "lamps", "rows")
WORK_PX = 112  # long side on which segments are found


def luminance(rgb: torch.Tensor) -> torch.Tensor:
    """Rec. 709 luma of (..., 3, H, W) as (..., 1, H, W)."""
    weights = rgb.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    return (rgb * weights).sum(-3, keepdim=True)


def blur(planes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (C, H, W), sigma in px; wide ones are made on a smaller copy."""
    if sigma < 0.3:
        return planes
    if sigma > 6:
        size = [max(4, round(n * 3 / sigma)) for n in planes.shape[-2:]]
        small = F.interpolate(planes[None], size=size, mode="area")[0]
        small = blur(small, sigma * size[0] / planes.shape[-2])
        return F.interpolate(small[None], size=planes.shape[-2:], mode="bilinear", align_corners=False)[0]
    radius = max(1, int(2.5 * sigma + 0.5))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=planes.device) / sigma) ** 2)
    taps = (taps / taps.sum()).to(planes.dtype)
    rows = F.pad(planes[:, None], (radius,) * 2 + (0, 0), mode="replicate")
    rows = F.conv2d(rows, taps[None, None, None, :])
    return F.conv2d(F.pad(rows, (0, 0) + (radius,) * 2, mode="replicate"), taps[None, None, :, None])[:, 0]


def guided(plane: torch.Tensor, guide: torch.Tensor, radius: int, eps: float) -> torch.Tensor:
    """Guided filter (He, Sun and Tang, ECCV 2010) with a grey guide; all (1, H, W)."""

    def box(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x[None], 2 * radius + 1, 1, radius, count_include_pad=False)[0]

    mean_g, mean_p = box(guide), box(plane)
    slope = (box(guide * plane) - mean_g * mean_p) / (box(guide * guide) - mean_g**2 + eps)
    return box(slope) * guide + box(mean_p - slope * mean_g)


def segments(rgb: np.ndarray, scale: float = 0.6, min_px: int = 12) -> np.ndarray:
    """Graph segmentation (Felzenszwalb and Huttenlocher, IJCV 2004) of (h, w, 3) in 0..1: labels (h, w) from 0."""
    h, w, _ = rgb.shape
    ids = np.arange(h * w).reshape(h, w)
    ends = [(ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])]
    first = np.concatenate([a.ravel() for a, _ in ends])
    second = np.concatenate([b.ravel() for _, b in ends])
    flat = rgb.reshape(-1, 3)
    weight = np.sqrt(((flat[first] - flat[second]) ** 2).sum(1))
    order = np.argsort(weight, kind="stable")
    parent, size, limit = list(range(h * w)), [1] * (h * w), [scale] * (h * w)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    edges = list(zip(first[order].tolist(), second[order].tolist(), weight[order].tolist(), strict=True))
    for a, b, cost in edges:
        a, b = root(a), root(b)
        if a != b and cost <= limit[a] and cost <= limit[b]:
            parent[b] = a
            size[a] += size[b]
            limit[a] = cost + scale / size[a]
    for a, b, _ in edges:
        a, b = root(a), root(b)
        if a != b and min(size[a], size[b]) < min_px:
            parent[b] = a
            size[a] += size[b]
    labels = np.array([root(i) for i in range(h * w)])
    return np.unique(labels, return_inverse=True)[1].reshape(h, w)


def sky_map(rgb: torch.Tensor) -> torch.Tensor:
    """Smooth, bright or blue areas hanging from the upper border, then everything above their lower end that looks alike."""
    height, width = rgb.shape[-2:]
    factor = WORK_PX * 1.5 / max(height, width)
    small = F.interpolate(rgb[None], scale_factor=factor, mode="area")[0]
    light = luminance(small)
    rough = (blur(light**2, 1.2) - blur(light, 1.2) ** 2).clamp_min(0).sqrt()
    red, green, blue = small.unbind(0)
    coloured = (blue - red > 0.04) & (blue >= green - 0.02) & (light[0] > 0.25)
    pale = (blue - red > -0.05) & (light[0] > 0.5) & (small.amax(0) - small.amin(0) < 0.22)
    seed = ((rough[0] < 0.035) & (coloured | pale)).numpy().astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(seed, connectivity=4)
    sky = torch.zeros_like(light)
    rows = torch.arange(small.shape[1])[None, :, None]
    for k in range(1, count):
        area = stats[k, cv2.CC_STAT_AREA]
        region = torch.from_numpy(labels == k)
        top_width = int((labels[:2] == k).any(0).sum())
        # A narrow thing at the top that hangs deep down is a wall or a pole, not the sky.
        if area < 0.004 * seed.size or top_width < 0.04 * seed.shape[1]:
            continue
        bottom = stats[k, cv2.CC_STAT_TOP] + stats[k, cv2.CC_STAT_HEIGHT]
        if bottom > 0.8 * seed.shape[0]:
            continue
        colours = small[:, region].T
        spread = torch.cov(colours.T) + torch.eye(3) * 0.0012
        away = (small.flatten(1).T - colours.mean(0)) @ torch.linalg.inv(spread)
        away = (away * (small.flatten(1).T - colours.mean(0))).sum(1).reshape(light.shape)
        alike = torch.exp(-0.5 * (away - 4).clamp_min(0)) * (rows < bottom + 1)
        sky = torch.maximum(sky, torch.where(region[None], torch.ones_like(alike), alike))
    # Clouds: pale places that the sky surrounds.
    around = blur((sky > 0.5).float(), 7)
    sky = torch.maximum(sky, ((around - 0.45) * 6).clamp(0, 1) * (pale | coloured)[None])
    sky = F.interpolate(sky[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    sharp = guided(sky, luminance(rgb), max(2, height // 60), 4e-4).clamp(0, 1)
    return ((sharp - 0.15) / 0.7).clamp(0, 1)


def horizon_row(sky: torch.Tensor) -> float:
    """Share of the height at which the ground plane vanishes: below most of the sky's lower border, else .42."""
    column = sky[0] > 0.5
    has = column.any(0) & column[:3].any(0)
    if has.float().mean() < 0.15:
        return 0.42
    bottoms = sky.shape[1] - column.flip(0).float().argmax(0)
    return float(min(max(torch.quantile(bottoms[has].float(), 0.8) / sky.shape[1] + 0.03, 0.28), 0.58))


def ground_distance(row: np.ndarray | float, horizon: float) -> np.ndarray:
    """Flat-ground distance for a share of the height, .04 at the lower border and 1 at the horizon and above."""
    below = (np.asarray(row, dtype=np.float32) - horizon) / (1 - horizon)
    return np.minimum(1.0, 0.04 / np.maximum(below, 0.04))


def _lies(colour: np.ndarray, roads: list, width: float, top: float, bottom: float, horizon: float) -> bool:
    """Does a segment look like lying ground: below the horizon, wide rather than high, road-coloured or green?"""
    if top < horizon + 0.02:
        return False
    tint = colour - colour.mean()
    green = tint[1] > 0.015 and tint[2] < -0.02
    alike = any(
        abs(colour.mean() - road.mean()) < 0.15 and np.abs(tint - (road - road.mean())).max() < 0.045 for road in roads
    )
    return (alike and width > 0.5 * (bottom - top)) or (green and width > 1.5 * (bottom - top))


def depth_and_ground(rgb: torch.Tensor, sky: torch.Tensor, horizon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Things stand where their lowest row meets the flat ground; what stands on a thing is as far as that thing."""
    height, width = rgb.shape[-2:]
    size = [round(n * WORK_PX / max(height, width)) for n in (height, width)]
    small = F.interpolate(blur(rgb, 1.0)[None], size=size, mode="area")[0]
    small_sky = F.interpolate(sky[None], size=size, mode="area")[0, 0].numpy()
    colours = small.permute(1, 2, 0).numpy()
    labels = segments(colours)
    h, w = labels.shape
    share = (np.arange(h, dtype=np.float32) + 0.5) / h
    by_row = np.repeat(ground_distance(share, horizon)[:, None], w, 1)
    # The lower border may be the bonnet of the camera's own car, so a strip further up has a say too.
    roads = [np.median(colours[int(a * h) : int(b * h)].reshape(-1, 3), 0) for a, b in ((0.9, 1.0), (0.74, 0.84))]
    depth, ground = np.ones((h, w), np.float32), np.zeros((h, w), np.float32)
    lowest = {k: np.nonzero((labels == k).any(1))[0].max() for k in range(labels.max() + 1)}
    for k in sorted(lowest, key=lowest.get, reverse=True):
        region = labels == k
        rows, columns = np.nonzero(region)
        if small_sky[region].mean() > 0.5:
            continue
        top, bottom = share[int(np.quantile(rows, 0.03))], share[int(np.quantile(rows, 0.97))]
        below = np.zeros_like(region)
        below[1:] = region[:-1]
        below[:-1] |= region[1:] & (rows.max() < h - 1)
        below &= ~region
        on_ground = region[-1].any() or ground[below].mean() > 0.3
        if on_ground and _lies(colours[region].mean(0), roads, np.ptp(columns) / w, top, bottom, horizon):
            ground[region] = 1
            depth[region] = by_row[region]
            continue
        own = float(ground_distance(bottom, horizon))
        # Standing on another thing (a roof on a car): take that thing's distance, unless ground is seen below it.
        stands = below & (ground < 0.5)
        on_thing = stands.sum() > 0.6 * max(1, below.sum()) and below.any()
        depth[region] = min(own, float(np.median(depth[stands])) * 1.15) if on_thing else own
    depth[small_sky > 0.5] = 1

    def full(plane: np.ndarray, radius: int, eps: float) -> torch.Tensor:
        big = F.interpolate(
            torch.from_numpy(plane)[None, None], size=(height, width), mode="bilinear", align_corners=False
        )
        return guided(big[0], luminance(rgb), radius, eps).clamp(0, 1)

    far = torch.maximum(full(depth, height // 40, 2e-3), sky)
    below_horizon = ((torch.arange(height) / height - horizon) / 0.05).clamp(0, 1)[None, :, None]
    lying = full(ground, height // 60, 1e-3)
    return far, ((lying - 0.15) / 0.7).clamp(0, 1) * below_horizon * (1 - sky)


def cap_map(rgb: torch.Tensor, sky: torch.Tensor) -> torch.Tensor:
    """Upper edges of darker things in front of brighter ones, where snow would lie; fades downwards over a few px."""
    light = blur(luminance(rgb), 1.0)
    drop = F.pad(light[:, :-3] - light[:, 3:], (0, 0, 2, 1)).clamp_min(0)
    edge = ((drop - 0.10) * 6).clamp(0, 1)
    reach = max(3, rgb.shape[-2] // 70)
    cap = edge
    for k in range(1, reach):
        cap = torch.maximum(cap, F.pad(edge[:, :-k], (0, 0, k, 0)) * (1 - k / reach))
    return blur(cap, 0.7).clamp(0, 1) * (1 - sky)


def lamp_map(rgb: torch.Tensor, sky: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Small bright spots and small strongly red or amber ones: lamps, reflectors, tail lights."""
    light = luminance(rgb)
    size = max(3.0, rgb.shape[-2] / 45)
    bright = ((light - 0.82) * 8).clamp(0, 1) * ((light - blur(light, size) - 0.2) * 6).clamp(0, 1)
    bright = bright * (1 - 3.5 * (blur(bright, size * 0.8) - 0.06).clamp_min(0)).clamp(0, 1)  # a white van is no lamp
    red, green, blue = (c[None] for c in rgb.unbind(0))
    warm = ((red - 0.5) * 5).clamp(0, 1) * ((red - torch.maximum(green * 0.9, blue) - 0.3) * 6).clamp(0, 1)
    warm = warm * (1 - blur(warm, size) * 2.5).clamp(0, 1)  # only small ones: a red car is no lamp
    near_sky = (blur(sky, size) * 2).clamp(0, 1)
    # Not on the ground: lane markings.
    return (torch.maximum(bright * (1 - near_sky) * (1 - ground), warm * 0.8) * (1 - sky)).clamp(0, 1)


def make_maps(rgb: torch.Tensor) -> torch.Tensor:
    """All maps of a picture in the order of MAP_NAMES, (7, H, W); `rows` is the height above the horizon, .5 on it."""
    sky = sky_map(rgb)
    horizon = horizon_row(sky)
    depth, ground = depth_and_ground(rgb, sky, horizon)
    red, green, blue = (c[None] for c in rgb.unbind(0))
    plants = blur((((2 * green - red - blue) / (red + green + blue + 0.1) - 0.06) * 8).clamp(0, 1), 1.5) * (1 - sky)
    height, width = rgb.shape[-2:]
    rows = (0.5 + horizon - torch.arange(height) / height).clamp(0, 1)[None, :, None].expand(1, height, width)
    return torch.cat((sky, depth, ground, plants, cap_map(rgb, sky), lamp_map(rgb, sky, ground), rows)).clamp(0, 1)
