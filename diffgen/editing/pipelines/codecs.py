"""Images to latents, latents to the tokens that a transformer takes, and back. Knows nothing about prompts or schedules.

"Source latents" are what the VAE gives: the mode of its distribution, unscaled, (B, C, h, w) float32. "Model latents" are
what the model works on: scaled, and for some VAEs centred by a shift or by a mean and a standard deviation. "Packed" latents
are in the shape that the pipeline passes around: for some transformers a sequence of tokens, one for each patch of latents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffgen.errors import NotFinite
from diffgen.lru import LRUCache
from diffgen.models.load_network import memory_errors, out_of_memory
from diffgen.models.pipelines import CodecName, spec_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = tuple[bytes, tuple[int, ...]]

REMEMBERED = 256  # sources; their latents take about a megabyte each
DECODED_AT_ONCE = 4  # images, on an accelerator


class Codec:
    """One pipeline's VAE. Remembers the latents of recent sources, because the conditions of one source are edited in turn.

    `factor` is how many pixels wide a latent is; image sides must divide by `multiple`, which is `patch` latents.
    """

    def __init__(self, pipe: Any, patch: int = 1) -> None:
        self.vae = pipe.vae
        self._denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        self.factor = int(pipe.vae_scale_factor)
        self.multiple = self.factor * patch
        self._recent: LRUCache[Key, Any] = LRUCache(REMEMBERED)
        self._at_once = 1 if pipe._execution_device.type == "cpu" else DECODED_AT_ONCE

    def check_images(self, images: Sequence[NDArray[np.uint8]]) -> None:
        """Raises ValueError when the size of the images does not suit the model."""
        if any(side % self.multiple for side in images[0].shape[:2]):
            raise ValueError(f"expected images with sides divisible by {self.multiple}, got {images[0].shape}")

    def encode(self, images: Sequence[NDArray[np.uint8] | NDArray[np.float32]]) -> Any:
        """B images (H, W, 3) in 0–255 -> source latents on the device.

        Each image is encoded alone and remembered, so that its latents do not depend on what else is in its batch, nor on
        whether a resumed run still remembers it. It costs little, as a source is encoded once for all of its conditions.
        """
        import torch

        rows = []
        for image in images:
            name = hashlib.blake2b(image.tobytes(), digest_size=16).digest(), image.shape
            if name not in self._recent:
                self._recent[name] = self._encode(image[None].copy())[0]
            rows.append(self._recent[name])
        return torch.stack(rows)

    def _encode(self, pixels: NDArray[Any]) -> Any:
        import torch

        parameter = next(self.vae.encoder.parameters())
        batch = torch.from_numpy(pixels).to(parameter.device).permute(0, 3, 1, 2)
        batch = batch.to(torch.float32).div(127.5).sub(1).to(parameter.dtype)
        return self.coded(batch).float()

    def coded(self, pixels: Any) -> Any:
        """Pixels (B, 3, H, W) in −1–1 -> the VAE's own latents."""
        coded = self.vae.encode(pixels)
        return coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded.latents

    def pixels(self, latents: Any) -> Any:
        """The VAE's own latents -> pixels (B, 3, H, W), about −1–1."""
        return self.vae.decode(latents, return_dict=False)[0]

    def decode(self, latents: Any) -> list[NDArray[np.uint8] | NotFinite]:
        """Source latents (B, C, h, w) -> B images (H, W, 3) uint8, or the error of one whose latents or pixels are NaN.

        A few at a time: the decoder takes far more memory than the denoiser, and a CPU is fastest with one.
        """
        images: list[NDArray[np.uint8] | NotFinite] = []
        while len(images) < len(latents):
            part = latents[len(images) : len(images) + self._at_once]
            try:
                images += self._decoded(part)
            except RuntimeError as error:
                if self._at_once == 1 or not out_of_memory(error):
                    raise
                self._at_once = 1  # for the rest of the run; what is denoised is not lost
        return images

    def _decoded(self, latents: Any) -> list[NDArray[np.uint8] | NotFinite]:
        parameter = next(self.vae.decoder.parameters())
        image = self.pixels(latents.to(parameter.dtype)).float()
        # One NaN spreads over the whole picture in the VAE.
        finite = image.isfinite().flatten(1).all(dim=1).cpu().tolist()
        image = image.add(1).mul(127.5).nan_to_num(nan=0.0).clamp(0, 255).round()
        rows: NDArray[np.uint8] = image.permute(0, 2, 3, 1).byte().cpu().numpy()
        return [row if fine else self._not_finite() for row, fine in zip(rows, finite, strict=True)]

    def round_trip(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image (H, W, 3) encoded and decoded. Raises OutOfMemory and NotFinite."""
        import torch

        with memory_errors(1), torch.inference_mode():
            made = self.decode(self.encode([image]))[0]
        if isinstance(made, NotFinite):
            raise made
        return made

    def _not_finite(self) -> NotFinite:
        numbers = str(self._denoiser.dtype).removeprefix("torch.")
        ways = {"float32": "its weights may be damaged", "float16": "use `dtype: bfloat16`, or float32"}
        way_out = ways.get(numbers, "use `dtype: float32`")
        return NotFinite(f"the model produced NaN or infinite values in {numbers}: {way_out}")

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
        """Model latents, or anything of their shape (B, C, h, w), in the shape that the pipeline passes around."""
        return latents

    def unpack(self, latents: Any, size: Sequence[int]) -> Any:
        """The reverse of `pack`, for `size` (h, w)."""
        return latents

    def shown(self, latents: Any, size: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Images of packed model latents of `size` (h, w); black where they are not finite."""
        black = np.zeros((size[0] * self.factor, size[1] * self.factor, 3), np.uint8)
        images = self.decode(self.from_model(self.unpack(latents, size)))
        return [black if isinstance(image, NotFinite) else image for image in images]

    def _statistics(self, like: Any) -> tuple[Any, Any]:
        mean, std = (self.vae.config.get(name) for name in ("latents_mean", "latents_std"))
        if mean is None or std is None:
            return None, None
        return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(std).view(1, -1, 1, 1)


class PackedCodec(Codec):
    """FLUX.1: patches of 2 × 2 latents are tokens, (B, h/2 · w/2, 4 C)."""

    def pack(self, latents: Any) -> Any:
        import torch

        return torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)

    def unpack(self, latents: Any, size: Sequence[int]) -> Any:
        import torch

        grid = latents.transpose(1, 2).unflatten(2, (size[0] // 2, size[1] // 2))
        return torch.nn.functional.pixel_shuffle(grid, 2)


class Flux2Codec(Codec):
    """FLUX.2: patches of 2 × 2 latents are channels, (B, 4 C, h/2, w/2), centred by the statistics of a batch norm."""

    def to_model(self, latents: Any) -> Any:
        import torch

        mean, std = self._norm(latents)
        return (torch.nn.functional.pixel_unshuffle(latents, 2) - mean) / std

    def from_model(self, latents: Any) -> Any:
        import torch

        mean, std = self._norm(latents.float())
        return torch.nn.functional.pixel_shuffle(latents.float() * std + mean, 2)

    def _norm(self, like: Any) -> tuple[Any, Any]:
        norm = self.vae.bn
        mean, variance = (v.view(1, -1, 1, 1).to(like) for v in (norm.running_mean, norm.running_var))
        return mean, (variance + self.vae.config.batch_norm_eps).sqrt()

    def pack(self, latents: Any) -> Any:
        return latents.flatten(2).transpose(1, 2)

    def unpack(self, latents: Any, size: Sequence[int]) -> Any:
        """The reverse of `pack`, for `size` (h, w) before patches were taken."""
        return latents.transpose(1, 2).unflatten(2, (size[0] // 2, size[1] // 2))


class QwenCodec(PackedCodec):
    """Qwen-Image: the VAE is made for video, so an image is a film of one frame."""

    def coded(self, pixels: Any) -> Any:
        return super().coded(pixels.unsqueeze(2)).squeeze(2)

    def pixels(self, latents: Any) -> Any:
        return super().pixels(latents.unsqueeze(2)).squeeze(2)


_CODECS: dict[CodecName, type[Codec]] = {
    "plain": Codec,
    "packed": PackedCodec,
    "flux2": Flux2Codec,
    "qwen": QwenCodec,
}


def codec_of(pipe: Any) -> Codec:
    """The codec of a loaded pipeline."""
    spec = spec_of(pipe)
    return _CODECS[spec.codec](pipe, spec.patch)
