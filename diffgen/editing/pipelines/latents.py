"""Images to VAE latents and back, and the noise of a job. Knows nothing about prompts, strength or schedules.

"Source latents" are what the VAE gives: the mode of its distribution, unscaled. "Model latents" are what the model works on:
scaled, and for VAEs that have them centred by a shift or by mean and std. Some transformers want them packed: each patch of
2 × 2 cells a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffgen.dataset.geometry import View
from diffgen.editing.pipelines.recent import LRUCache
from diffgen.types import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = tuple[bytes, tuple[int, ...], int]


class Codec:
    """One pipeline's VAE, remembering the latents of recent sources: conditions of one source follow each other.

    `factor` is pixels a latent; image sides must divide by `multiple`, which is `patch` latents.
    """

    def __init__(self, pipe: Any, patch: int = 1) -> None:
        self.vae = pipe.vae
        self.factor = int(pipe.vae_scale_factor)
        self.multiple = self.factor * patch
        self._recent: LRUCache[Key, Any] = LRUCache(64)

    def encode(self, images: Sequence[NDArray[np.uint8] | NDArray[np.float32]]) -> Any:
        """B images (H, W, 3) in 0–255 -> source latents (B, C, h, w) float32 on the device; each distinct image once.

        All distinct images of a batch are encoded together or none is, and an entry is used only for batches with as many
        of them: floating point depends on how many rows run together, and a resumed run has no memory of earlier batches.
        """
        import torch

        names = [(hashlib.blake2b(i.tobytes(), digest_size=16).digest(), i.shape) for i in images]
        distinct = dict(zip(names, images, strict=True))
        count = len(distinct)
        if any((*name, count) not in self._recent for name in distinct):
            self._recent.capacity = max(64, 2 * count)
            for name, row in zip(distinct, self._encode(np.stack(list(distinct.values()))), strict=True):
                self._recent[(*name, count)] = row
        return torch.stack([self._recent[(*name, count)] for name in names])

    def _encode(self, pixels: NDArray[Any]) -> Any:
        import torch

        parameter = next(self.vae.parameters())
        batch = torch.from_numpy(pixels).to(parameter.device).permute(0, 3, 1, 2)
        batch = batch.to(torch.float32).div(127.5).sub(1).to(parameter.dtype)
        return self.coded(batch).float()

    def coded(self, pixels: Any) -> Any:
        """The VAE's own: pixels (B, 3, H, W) in −1–1 -> latents."""
        coded = self.vae.encode(pixels)
        return coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded.latents

    def pixels(self, latents: Any) -> Any:
        """The VAE's own: latents -> pixels (B, 3, H, W), about −1–1."""
        return self.vae.decode(latents, return_dict=False)[0]

    def decode(self, latents: Any) -> list[NDArray[np.uint8]]:
        """Source latents (B, C, h, w) -> B images (H, W, 3) uint8. What is not a number becomes black."""
        parameter = next(self.vae.parameters())
        image = self.pixels(latents.to(parameter.dtype)).float()
        # Through the VAE one NaN spreads over the picture: black is what the check for degenerate images knows.
        image = image.add(1).mul(127.5).nan_to_num(nan=0.0).clamp(0, 255).round()
        rows: NDArray[np.uint8] = image.permute(0, 2, 3, 1).byte().cpu().numpy()
        return list(rows)

    def to_model(self, latents: Any) -> Any:
        scale = self.vae.config.get("scaling_factor", 1.0)
        mean, std = self._statistics(latents)
        if mean is not None:
            return (latents - mean) * scale / std
        shift = self.vae.config.get("shift_factor")
        return latents * scale if shift is None else (latents - shift) * scale

    def from_model(self, latents: Any) -> Any:
        latents = latents.float()
        scale = self.vae.config.get("scaling_factor", 1.0)
        mean, std = self._statistics(latents)
        if mean is not None:
            return latents * std / scale + mean
        shift = self.vae.config.get("shift_factor")
        return latents / scale if shift is None else latents / scale + shift

    def pack(self, latents: Any) -> Any:
        """Model latents, or anything of their shape (B, C, h, w), as the transformer takes them."""
        return latents

    def unpack(self, latents: Any, size: Sequence[int]) -> Any:
        """The reverse of `pack`, for `size` (h, w)."""
        return latents

    def shown(self, latents: Any, size: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Images of packed model latents of `size` (h, w)."""
        return self.decode(self.from_model(self.unpack(latents, size)))

    def _statistics(self, like: Any) -> tuple[Any, Any]:
        mean, std = (self.vae.config.get(name) for name in ("latents_mean", "latents_std"))
        if mean is None or std is None:
            return None, None
        return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(std).view(1, -1, 1, 1)


class PackedCodec(Codec):
    """FLUX.1: patches of 2 × 2 latents are tokens, (B, h/2 · w/2, 4 C)."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe, patch=2)

    def pack(self, latents: Any) -> Any:
        import torch

        return torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)

    def unpack(self, latents: Any, size: Sequence[int]) -> Any:
        import torch

        grid = latents.transpose(1, 2).unflatten(2, (size[0] // 2, size[1] // 2))
        return torch.nn.functional.pixel_shuffle(grid, 2)


def pooled(masks: Sequence[NDArray[np.float32]], like: Any) -> Any:
    """B masks (H, W) -> (B, 1, h, w) on the grid of the latents `like`: the largest value of each cell, to hold all of an
    object that only touches it."""
    import torch

    stack = torch.from_numpy(np.stack(masks))[:, None].to(like.device)
    return torch.nn.functional.adaptive_max_pool2d(stack, tuple(like.shape[-2:]))


def noise(
    jobs: Sequence[Job], shape: Sequence[int], views: Sequence[View] | None = None, factor: int = 1
) -> tuple[Any, list[Any]]:
    """Noise (B, *shape) float32 on the CPU, and the jobs' generators for schedulers that draw more while stepping.

    One generator a job, on the CPU: the same noise on every device and in every batch. With `views` each row is its part
    of the noise of the whole picture; `factor` is pixels a latent.
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


def check_batch(images: Sequence[NDArray[np.uint8]], jobs: Sequence[Job], factor: int) -> None:
    """Raises ValueError when the caller breaks the contract of `Editor.edit`."""
    if len(images) != len(jobs) or not images:
        raise ValueError(f"expected one job an image, got {len(images)} images and {len(jobs)} jobs")
    height, width, *rest = images[0].shape
    if rest != [3] or height % factor or width % factor:
        raise ValueError(f"expected images (H, W, 3) with sides divisible by {factor}, got {images[0].shape}")
    for image in images:
        if image.shape != images[0].shape or image.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 images of one size, got {image.dtype} {image.shape} after {images[0].shape}"
            )
    if any(job.settings.digest != jobs[0].settings.digest for job in jobs):
        raise ValueError("jobs of one batch must share their settings")


def check_size(edited: Sequence[NDArray[np.uint8]], images: Sequence[NDArray[np.uint8]]) -> None:
    """The geometry contract: what comes out is as large as what went in."""
    for out, source in zip(edited, images, strict=True):
        if out.shape != source.shape:
            raise AssertionError(f"the model made {out.shape} of {source.shape}: labels would not fit")
