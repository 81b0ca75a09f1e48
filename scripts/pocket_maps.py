"""What a photograph shows, guessed from its pixels: sky, depth, ground, vegetation, upper edges; lights as marked.

No network and no labels: plain rules on segments, right on about half of the street photographs; marks made by hand
(pocket_marks) help where they are not. They are made once per photograph; the renderer and training only read them.
Pictures are (3, H, W) float 0..1; maps (1, H, W) float 0..1.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pocket_marks import LIGHTS, Mark, marked_end, marked_ground, marked_lights, marked_sky, marked_things

MAP_NAMES = ("sky", "depth", "ground", "plants", "caps", *LIGHTS, "rows")
NO_GROUND = 0.2  # depth of what fills a picture without ground, such as a house front
WORK_PX = 112  # long side on which segments are found


def luminance(rgb: torch.Tensor) -> torch.Tensor:
    """Rec. 709 luma of (..., 3, H, W) as (..., 1, H, W)."""
    weights = rgb.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    return (rgb * weights).sum(-3, keepdim=True)


def blur(planes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (C, H, W), sigma in px; wide ones are made on a smaller copy."""
    if sigma < 0.3:
        return planes
    if sigma > 3 and min(planes.shape[-2:]) > 8:
        size = [max(4, round(n * 2 / sigma)) for n in planes.shape[-2:]]
        small = F.interpolate(planes[None], size=size, mode="area")[0]
        small = blur(small, sigma * size[0] / planes.shape[-2])
        return F.interpolate(small[None], size=planes.shape[-2:], mode="bilinear", align_corners=False)[0]
    side = 2 * max(1, int(2.5 * sigma + 0.5)) + 1
    made = [
        cv2.GaussianBlur(p.numpy(), (side, side), sigma, borderType=cv2.BORDER_REPLICATE) for p in planes.contiguous()
    ]
    return torch.from_numpy(np.stack(made))


def guided(plane: torch.Tensor, guide: torch.Tensor, radius: int, eps: float) -> torch.Tensor:
    """Guided filter (He, Sun and Tang, ECCV 2010) with a grey guide; all (1, H, W)."""

    def box(x: torch.Tensor) -> torch.Tensor:
        side = 2 * radius + 1
        return torch.from_numpy(cv2.blur(x[0].numpy(), (side, side), borderType=cv2.BORDER_REFLECT))[None]

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
    least_blue = torch.where(light[0] > 0.86, -0.2, -0.05)  # a sky burnt out is often yellowish
    pale = (blue - red > least_blue) & (light[0] > 0.5) & (small.amax(0) - small.amin(0) < 0.22)
    seed = (rough[0] < 0.035) & (coloured | pale)
    upper = light[0, : light.shape[1] // 3][seed[: light.shape[1] // 3]]
    # Walls in the sky's colour are darker; a deep blue sky may itself be darker than its clouds.
    usual = float(torch.quantile(upper, 0.6)) if len(upper) else 0.0
    lit = light[0] > usual * torch.where(blue - red > 0.12, 0.5, 0.65)
    seed = (seed & lit).numpy().astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(seed, connectivity=4)
    sky = torch.zeros_like(light)
    rows = torch.arange(small.shape[1])[None, :, None]
    for k in range(1, count):
        area = stats[k, cv2.CC_STAT_AREA]
        region = torch.from_numpy(labels == k)
        top_width = int((labels[: max(2, len(seed) // 20)] == k).any(0).sum())  # below a frame, if there is one
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
        alike = torch.exp(-0.5 * (away - 4).clamp_min(0)) * (rows < bottom + 1) * lit
        sky = torch.maximum(sky, torch.where(region[None], torch.ones_like(alike), alike))
    # Clouds: pale places that the sky surrounds, darker ones too.
    around = blur((sky > 0.5).float(), 7)
    sky = torch.maximum(sky, ((around - 0.45) * 6).clamp(0, 1) * ((pale | coloured) & (light[0] > 0.45 * usual))[None])
    sky = F.interpolate(sky[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    return sharpened(rgb, sky)


def sharpened(rgb: torch.Tensor, sky: torch.Tensor) -> torch.Tensor:
    """A rough sky (1, H, W) drawn to the edges of the picture."""
    height = rgb.shape[-2]
    sharp = guided(sky, luminance(rgb), max(2, height // 60), 4e-4).clamp(0, 1)
    return matte(rgb, ((sharp - 0.15) / 0.7).clamp(0, 1))


def local_mean(rgb: torch.Tensor, weight: torch.Tensor, sigma: float) -> torch.Tensor:
    """Mean colour of the places of high `weight` near each pixel; far from all of them, their overall mean."""
    whole = (rgb * weight).sum((1, 2), keepdim=True) / (weight.sum() + 1e-3)
    return (blur(rgb * weight, sigma) + 1e-3 * whole) / (blur(weight, sigma) + 1e-3)


def matte(rgb: torch.Tensor, sky: torch.Tensor) -> torch.Tensor:
    """Sky share of the pixels at its border: where they lie between the nearby sky's colour and the nearby things' colour.

    The projection of natural matting (Ruzon and Tomasi, CVPR 2000, with one colour a side), in linear light.
    """
    reach = max(2, rgb.shape[-2] // 110)
    light = rgb**2.2
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    sure_sky = torch.from_numpy(cv2.erode((sky[0] > 0.6).float().numpy(), kernel))[None]
    sure_thing = torch.from_numpy(cv2.erode((sky[0] < 0.4).float().numpy(), kernel))[None]
    above, below = local_mean(light, sure_sky, 3.0 * reach), local_mean(light, sure_thing, 2.0 * reach)
    axis = above - below
    share = ((light - below) * axis).sum(0, keepdim=True) / (axis.square().sum(0, keepdim=True) + 1e-3)
    border = (1 - sure_sky) * (1 - sure_thing)
    return (sure_sky + border * share.clamp(0, 1)) * (1 - poles(rgb))


def poles(rgb: torch.Tensor) -> torch.Tensor:
    """Upright things a few px wide, darker or brighter than what is beside them: lost on the small copy, cut out here."""
    width = max(5, rgb.shape[-2] // 40) | 1
    image = np.ascontiguousarray(rgb.permute(1, 2, 0).numpy())
    beside = np.ones((1, width), np.uint8)
    hats = [cv2.morphologyEx(image, kind, beside).max(2) for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)]
    upright = [cv2.morphologyEx(hat, cv2.MORPH_OPEN, np.ones((2 * width, 1), np.uint8)) for hat in hats]
    return ((torch.from_numpy(np.maximum(*upright))[None] - 0.06) * 12).clamp(0, 1)


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
    # Sun and shade differ much in lightness, little in tint; a thing much darker than the road is a car.
    alike = any(
        -0.4 * road.mean() < colour.mean() - road.mean() < 0.3 and np.abs(tint - (road - road.mean())).max() < 0.05
        for road in roads
    )
    return (alike and width > 0.5 * (bottom - top)) or (green and width > 1.5 * (bottom - top))


def _road(colours: np.ndarray, front: np.ndarray, horizon: float) -> np.ndarray:
    """The grey or bluish area that looks like the median of `front` and hangs together with it; maybe empty."""
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


def drawn(plane: np.ndarray, rgb: torch.Tensor, radius: int, eps: float) -> torch.Tensor:
    """A small plane (h, w) at the size and with the edges of the picture, (1, H, W)."""
    big = F.interpolate(torch.from_numpy(plane)[None, None], size=rgb.shape[-2:], mode="bilinear", align_corners=False)
    return guided(big[0], luminance(rgb), radius, eps).clamp(0, 1)


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
    """Things stand where their lowest row meets the flat ground; what stands on a thing is as far as that thing."""
    height, width = rgb.shape[-2:]
    size = [round(n * WORK_PX / max(height, width)) for n in (height, width)]
    small = F.interpolate(blur(rgb, 1.0)[None], size=size, mode="area")[0]
    h, w = size
    small_sky = F.interpolate(sky[None], size=size, mode="area")[0, 0].numpy()
    colours = small.permute(1, 2, 0).numpy()
    # In dark pictures the road and the cars on it differ too little for fixed thresholds.
    colours = np.minimum(colours * max(1.0, min(2.5, 0.4 / (np.median(colours[h // 2 :]) + 1e-3))), 1)
    labels = segments(colours)
    share = (np.arange(h, dtype=np.float32) + 0.5) / h
    by_row = np.repeat(ground_distance(share, horizon)[:, None], w, 1)
    middle = slice(w // 5, w - w // 5)
    roads = [
        np.median(colours[int(a * h) : int(b * h), middle].reshape(-1, 3), 0) for a, b in ((0.72, 0.8), (0.8, 0.88))
    ]
    own_car, front = np.zeros((h, w), bool), np.zeros((h, w), bool)
    front[int(0.6 * h) : int(0.8 * h), middle] = True
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
    if ground.any() and ground[: int(0.88 * h)].sum() == 0:
        ground[:] = 0  # only a strip at the lower border: a dashboard
    road = _road(colours, front, horizon)
    if not road.any() and ground.mean() < 0.06:
        strip = np.zeros_like(front)
        strip[int(0.88 * h) :] = True
        road = _road(colours, strip, horizon)
    ground[road], depth[road] = 1, by_row[road]
    depth[small_sky > 0.5] = 1

    far = torch.maximum(drawn(depth, rgb, height // 40, 2e-3), sky)
    below_horizon = ((torch.arange(height) / height - horizon) / 0.1).clamp(0, 1)[None, :, None]
    lying = drawn(ground, rgb, height // 60, 1e-3)
    return far, ((lying - 0.15) / 0.7).clamp(0, 1) * below_horizon * (1 - sky)


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
