"""The start noise of an edit, and masks at the resolution of the latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffgen.dataset.geometry import View
from diffgen.types import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pooled(masks: Sequence[NDArray[np.float32]], like: Any) -> Any:
    """B masks (H, W) -> (B, 1, h, w) at the resolution of the latents `like`.

    Each cell gets its largest value, so that a cell that an object merely touches belongs to the object.
    """
    import torch

    stack = torch.from_numpy(np.stack(masks))[:, None].to(like.device)
    return torch.nn.functional.adaptive_max_pool2d(stack, tuple(like.shape[-2:]))


def noise(
    jobs: Sequence[Job], shape: Sequence[int], views: Sequence[View] | None = None, factor: int = 1
) -> tuple[Any, list[Any]]:
    """(noise, generators): noise (B, *shape) float32 on the CPU; the generators are for schedulers that draw more.

    Each job has a generator of its own on the CPU, so that its noise is the same on every device and in every batch. With
    `views`, each row is cut from the noise of its whole picture. `factor` is the width of a cell of `shape` in pixels.
    """
    import torch

    channels, height, width = shape
    generators = [torch.Generator("cpu").manual_seed(job.seed) for job in jobs]
    rows = []
    for i, generator in enumerate(generators):
        view = views[i] if views else View(0, 0, (width * factor, height * factor))
        field = (channels, view.whole[1] // factor, view.whole[0] // factor)
        top, left = view.top // factor, view.left // factor
        rows.append(torch.randn(field, generator=generator)[:, top : top + height, left : left + width])
    return torch.stack(rows), generators
