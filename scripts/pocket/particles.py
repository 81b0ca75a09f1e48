"""What the noise places on a picture: snowflakes, streaks of rain, drops on the lens."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from scripts.pocket.filters import blur
from scripts.pocket.scene import Painted, Scene, colour, mix


def sprites(
    scene: Scene,
    cell: int,
    sprite: torch.Tensor,
    threshold: float,
    where: torch.Tensor | None = None,
    gain: float = 3,
) -> torch.Tensor:
    """A soft `sprite` (h, w) on every cell of `cell` px whose noise (channel 0) is over `threshold`, (1, H, W).

    The more the noise exceeds it, the more opaque it is (`gain` times the excess), and the more of a soft one is seen, so
    sizes differ. `where` (1, H, W): only there.
    """
    pooled = F.avg_pool2d(scene.noise[None, :1], cell // 4) * (cell // 4)  # deviation 1 again
    excess = gain * (pooled - threshold).clamp_min(0)
    if where is not None:
        excess = excess * F.avg_pool2d(where[None], cell)
    grid = np.zeros(scene.linear.shape[-2:], np.float32)
    rows, columns = (side * cell for side in excess.shape[2:])
    grid[:rows:cell, :columns:cell] = excess[0, 0].numpy()
    # The same as a transposed convolution, in a tenth of the time.
    down, across = ((side + cell) // 2 - 1 for side in sprite.shape)
    turned = sprite.flip(0, 1).numpy()
    drawn = cv2.filter2D(grid, -1, turned, anchor=(across, down), borderType=cv2.BORDER_CONSTANT)
    return torch.from_numpy(drawn)[None].clamp(0, 1)


def offsets(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (down, across) in px from the middle of a rectangle."""
    return (torch.arange(height) - (height - 1) / 2)[:, None], (torch.arange(width) - (width - 1) / 2)[None]


def flakes(scene: Scene, s: float) -> torch.Tensor:
    """Snowflakes of many opacities, a little longer than wide because they fall during the exposure; beside the small
    ones large near ones, pale because out of focus."""
    down, across = offsets(24, 24)
    leaning = across + 0.3 * down
    small = sprites(scene, 4, torch.exp(-(leaning**2) / (2 * 0.9**2) - down**2 / (2 * 1.4**2)), 2.3 - 1.2 * s, gain=1)
    near = sprites(scene, 8, torch.exp(-(leaning**2) / (2 * 2.6**2) - down**2 / (2 * 3.6**2)), 3.3 - 1.5 * s, gain=1)
    return torch.maximum(small, 0.4 * near)


def streaks(scene: Scene, s: float) -> torch.Tensor:
    """Thin slanted lines, 10–24 px long.

    A falling drop moves during the exposure and draws a line brighter than what is behind it (Garg and Nayar, "Vision and
    rain", IJCV 2007).
    """
    down, across = offsets(32, 16)
    line = torch.exp(-((across + 0.22 * down) ** 2) / (2 * 0.7**2) - down**2 / (2 * 5.5**2))
    return sprites(scene, 4, line, 2.7 - 1.1 * s)


def drops(scene: Scene, s: float, behind: torch.Tensor) -> Painted:
    """Drops on the lens or the windscreen. Each shows a wide view upside down, so that its foot has the light of the sky
    (Roser and Geiger, "Video-based raindrop detection for improved image registration", ICCV workshops 2009).

    They are where the noise is highest, in front of the streaks there. Where it is lowest they were not learned in 30
    minutes, all else that the noise places being at its peaks.
    """
    down, across = offsets(32, 32)
    disc = torch.exp(-((((across / 3.4) ** 2 + (down / 4.2) ** 2) / 2) ** 1.5))
    low = torch.exp(-((across / 2.4) ** 2 + ((down - 2.6) / 1.6) ** 2) / 2)
    cover, foot = (sprites(scene, 4, sprite, 3.3 - 0.8 * s) for sprite in (disc, low))
    seen = 0.45 * blur(behind, 10) + foot * colour(0.84, 0.86, 0.88) * (0.85 - 0.35 * s)
    return mix(behind, seen, 0.85 * cover), cover
