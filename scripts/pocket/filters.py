"""Image filters that the maps and the renderer share. Pictures are (3, H, W) float 0..1, planes (1, H, W) float."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

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


def drawn(plane: np.ndarray, rgb: torch.Tensor, radius: int, eps: float) -> torch.Tensor:
    """A small plane (h, w) at the size and with the edges of the picture, (1, H, W)."""
    big = F.interpolate(torch.from_numpy(plane)[None, None], size=rgb.shape[-2:], mode="bilinear", align_corners=False)
    return guided(big[0], luminance(rgb), radius, eps).clamp(0, 1)
