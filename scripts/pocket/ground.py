"""Depth and ground of a photograph: from marks where there are some, else guessed from segments by plain rules."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from scripts.pocket.filters import WORK_PX, blur, drawn, guided, luminance
from scripts.pocket.marks import Mark, marked_end, marked_ground

NO_GROUND = 0.2  # depth of what fills a picture without ground, such as a house front


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


def ground_distance(row: np.ndarray | float, horizon: float) -> np.ndarray:
    """Flat-ground distance for a share of the height, .04 at the lower border and 1 at the horizon and above."""
    below = (np.asarray(row, dtype=np.float32) - horizon) / (1 - horizon)
    return np.minimum(1.0, 0.04 / np.maximum(below, 0.04))


def _lies(colour: np.ndarray, roads: list[np.ndarray], width: float, top: float, bottom: float, horizon: float) -> bool:
    """Does a segment look like lying ground: below the horizon, wide rather than high, road-coloured or green?"""
    if top < horizon + 0.02:
        return False
    tint = colour - colour.mean()
    green = tint[1] > 0.015 and tint[2] < -0.02
    # Sun and shade differ much in lightness, little in tint; a thing much darker than the road is a car.
    alike = any(
        -0.4 * road.mean() < colour.mean() - road.mean() < 0.3 and np.abs(tint - (road - road.mean())).max() < 0.05
        for road in roads
    )
    return (alike and width > 0.5 * (bottom - top)) or (green and width > 1.5 * (bottom - top))


def _road(colours: np.ndarray, front: np.ndarray, horizon: float) -> np.ndarray:
    """The grey or bluish area that looks like the median of `front` and is connected with it; may be empty."""
    h, w, _ = colours.shape
    typical = np.median(colours[front], 0)
    none = np.zeros((h, w), bool)
    bluish = typical[0] <= typical[1] <= typical[2] and np.ptp(typical) < 0.45 * typical.max()
    if not bluish and np.ptp(typical) > 0.13:
        return none
    # The opening takes lane marks away, which would part the road into lanes.
    light = cv2.morphologyEx(colours.mean(2), cv2.MORPH_OPEN, np.ones((3, 5), np.uint8)) - typical.mean()
    tint = np.abs(colours - colours.mean(2, keepdims=True) - (typical - typical.mean())).max(2)
    smooth = cv2.morphologyEx(light, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) < max(0.05, 0.16 * typical.mean())
    alike = ((light > -0.28 * typical.mean()) & (light < 0.2) & (tint < 0.04) & smooth).astype(np.uint8)
    alike[: int((horizon + 0.04) * h)] = 0
    alike = cv2.morphologyEx(alike, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels = cv2.connectedComponents(alike, connectivity=4)
    counts = np.bincount(labels[front & (alike > 0)], minlength=2)
    best = int(counts.argmax())
    if counts[best] < 0.45 * front.sum() or np.ptp(np.nonzero(labels == best)[1]) < 0.6 * w:
        return none
    return cv2.morphologyEx((labels == best).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 5), np.uint8)) > 0


def marked_depth_and_ground(
    rgb: torch.Tensor, sky: torch.Tensor, mark: Mark, things: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """(depth, ground), each (1, H, W). Depth of the flat ground as far as it is marked, of silhouettes (N, h, w) where their
    boxes stand or nearer if they look large, of the rest where the ground ends below it; NO_GROUND where none is marked.
    """
    height, width = things.shape[1:]
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    ends = marked_end(mark, height, width)
    if ends is None:
        depth = np.full((height, width), NO_GROUND, np.float32)
    else:
        depth = ground_distance(np.maximum(rows[:, None], ends[None]), mark.horizon)
    for k in sorted(range(len(things)), key=lambda k: mark.things[k][3]):  # what stands before it covers a thing
        # A foot that is hidden, or on a bank above the camera, makes a thing seem far; but it is not behind the end of the
        # ground, and what looks large is near: things are at the most 2.5 times as high as the camera.
        _, top, _, bottom = mark.things[k].tolist()
        own = float(ground_distance(max(bottom, mark.horizon + (bottom - top) / 2.5), mark.horizon))
        shape = things[k] > 0
        if shape.any():
            depth[shape] = min(own, float(np.median(depth[shape])))
    ground = marked_ground(rgb, mark, things)
    far = torch.maximum(drawn(depth, rgb, rgb.shape[-2] // 120 + 1, 1e-3), sky)
    return far, guided(ground, luminance(rgb), max(2, rgb.shape[-2] // 120), 1e-3).clamp(0, 1) * (1 - sky)


def depth_and_ground(rgb: torch.Tensor, sky: torch.Tensor, horizon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, guessed. Things stand where their lowest row meets the flat ground; what stands on a thing is as far as that
    thing."""
    height, width = rgb.shape[-2:]
    size = [round(n * WORK_PX / max(height, width)) for n in (height, width)]
    small = F.interpolate(blur(rgb, 1.0)[None], size=size, mode="area")[0]
    h, w = size
    small_sky = F.interpolate(sky[None], size=size, mode="area")[0, 0].numpy()
    colours = small.permute(1, 2, 0).numpy()
    # In dark pictures the road and the cars on it differ too little for fixed thresholds.
    colours = np.minimum(colours * max(1.0, min(2.5, 0.4 / (np.median(colours[h // 2 :]) + 1e-3))), 1)
    front = np.zeros((h, w), bool)
    front[int(0.6 * h) : int(0.8 * h), _middle(w)] = True
    depth, ground = _placed_segments(colours, small_sky, front, horizon)
    if ground.any() and ground[: int(0.88 * h)].sum() == 0:
        ground[:] = 0  # only a strip at the lower border: a dashboard
    road = _road(colours, front, horizon)
    if not road.any() and ground.mean() < 0.06:
        strip = np.zeros_like(front)
        strip[int(0.88 * h) :] = True
        road = _road(colours, strip, horizon)
    ground[road], depth[road] = 1, _by_row(h, w, horizon)[road]
    depth[small_sky > 0.5] = 1

    far = torch.maximum(drawn(depth, rgb, height // 40, 2e-3), sky)
    below_horizon = ((torch.arange(height) / height - horizon) / 0.1).clamp(0, 1)[None, :, None]
    lying = drawn(ground, rgb, height // 60, 1e-3)
    return far, ((lying - 0.15) / 0.7).clamp(0, 1) * below_horizon * (1 - sky)


def _middle(width: int) -> slice:
    return slice(width // 5, width - width // 5)


def _by_row(height: int, width: int, horizon: float) -> np.ndarray:
    """Distance of the flat ground, (height, width)."""
    return np.repeat(ground_distance(_shares(height), horizon)[:, None], width, 1)


def _shares(height: int) -> np.ndarray:
    """Of each row's middle, as a share of the height."""
    return (np.arange(height, dtype=np.float32) + 0.5) / height


def _placed_segments(
    colours: np.ndarray, sky: np.ndarray, front: np.ndarray, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(depth, ground), each (h, w), from segments of `colours` (h, w, 3), the lowest ones first, because each
    stands on what is below it; `front` (h, w): where a road would be."""
    h, w, _ = colours.shape
    labels, share, by_row = segments(colours), _shares(h), _by_row(h, w, horizon)
    roads = [
        np.median(colours[int(a * h) : int(b * h), _middle(w)].reshape(-1, 3), 0) for a, b in ((0.72, 0.8), (0.8, 0.88))
    ]
    own_car = np.zeros((h, w), bool)
    depth, ground = np.ones((h, w), np.float32), np.zeros((h, w), np.float32)
    lowest = {k: int(np.nonzero((labels == k).any(1))[0].max()) for k in range(labels.max() + 1)}
    for k in sorted(lowest, key=lowest.__getitem__, reverse=True):
        region = labels == k
        rows, columns = np.nonzero(region)
        if sky[region].mean() > 0.5:
            continue
        top, bottom = share[int(np.quantile(rows, 0.03))], share[int(np.quantile(rows, 0.97))]
        below = np.zeros_like(region)
        below[1:] = region[:-1]
        below[:-1] |= region[1:] & (rows.max() < h - 1)
        below &= ~region
        wide = np.ptp(columns) / w
        like_road = _lies(colours[region].mean(0), roads, wide, top, bottom, horizon)
        if region[-1].any() and top > 0.78 and not like_road:
            own_car |= region  # the bonnet or the dashboard under the camera
        # A wide grey area in the middle of the lower half is the road, whatever is below it.
        in_front = region[front].mean() > 0.15 and wide > 0.4 and np.ptp(colours[region].mean(0)) < 0.1
        on_ground = region[-1].any() or ground[below].mean() > 0.3 or own_car[below].mean() > 0.5 or in_front
        if on_ground and like_road:
            ground[region] = 1
            depth[region] = by_row[region]
            continue
        own = float(ground_distance(bottom, horizon))
        # Standing on another thing (a roof on a car): take that thing's distance, unless ground is seen below it.
        stands = below & (ground < 0.5)
        on_thing = stands.sum() > 0.6 * max(1, below.sum()) and below.any()
        depth[region] = min(own, float(np.median(depth[stands])) * 1.15) if on_thing else own
    return depth, ground
