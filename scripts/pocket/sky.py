"""Where the sky is on a photograph, guessed by plain rules, and its edges refined to the pixels."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from scripts.pocket.filters import WORK_PX, blur, guided, luminance


def sky_map(rgb: torch.Tensor) -> torch.Tensor:
    """Smooth, bright or blue areas that touch the upper border, then everything above their lower end that looks like them.
    (1, H, W) in 0..1."""
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
        # A narrow area that reaches far down is a wall or a pole, not the sky.
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
