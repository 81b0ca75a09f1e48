"""Inpainting with Stable Diffusion and SDXL: the masks say where the picture is painted anew.

With a UNet made for it (9 channels: it sees the mask, and the source without what is masked) or any plain one: then the
pipeline holds the unmasked latents to the source's at every step (Avrahami, Fried and Lischinski, Blended Latent
Diffusion, 2023).
Strength as in `img2img`, but 1 begins from noise alone. What is outside the masks comes back nearly, not exactly, as it
was: the caller lays the source's pixels over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffgen.dataset.geometry import View
from diffgen.editing.editor import Edited
from diffgen.editing.families import choose_class
from diffgen.editing.families.img2img import Img2Img, effective_object_strength, effective_strength
from diffgen.editing.pipelines.callbacks import Watch
from diffgen.editing.pipelines.latents import pooled
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diffgen.models.model import Model

__all__ = ["Inpaint", "effective_object_strength", "effective_strength", "load"]

CLASSES = {
    f"StableDiffusion{xl}{kind}Pipeline": f"StableDiffusion{xl}InpaintPipeline"
    for xl in ("", "XL")
    for kind in ("", "Img2Img", "Inpaint")
}
HIDDEN = np.float32(127.5)  # what the UNet sees in place of what is masked: the middle of the range


def load(model: Model, device: str, dtype: str) -> Inpaint:
    return Inpaint(load_pipeline(choose_class(model, CLASSES), model, device, dtype))


class Inpaint(Img2Img):
    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        self._images: Sequence[NDArray[np.uint8]] = ()
        self._masks: Sequence[NDArray[np.float32]] = ()
        # The only methods replaced: they would encode each source again, one at a time, and sample from the VAE.
        pipe.prepare_latents = self._begin
        pipe.prepare_mask_latents = self._mask_latents

    def edit(
        self,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        masks: Sequence[NDArray[np.float32]] | None = None,
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
        controls: Sequence[Sequence[NDArray[np.uint8]]] | None = None,
    ) -> list[Edited]:
        """See `diffgen.editing.editor.Editor`. `masks` are needed, and say where to paint: wherever they are above 0."""
        if masks is None or [mask.shape for mask in masks] != [image.shape[:2] for image in images]:
            raise ValueError("expected a mask as large as its image for each")
        self._images, self._masks = images, masks
        return super().edit(images, jobs, None, views, watch, controls)

    def _guidance(self, settings: Settings) -> dict[str, Any]:
        import torch

        height, width = self._images[0].shape[:2]
        # Unused but for the size: _begin and _mask_latents know the pictures and masks.
        unused = {"mask_image": torch.zeros(1, 1, 8, 8), "masked_image_latents": torch.zeros(1, 4, 8, 8)}
        return {**unused, "height": height, "width": width}

    def _begin(
        self, batch: int, channels: int, height: int, width: int, dtype: Any, device: Any, *_: Any,
        timestep: Any, is_strength_max: bool, return_image_latents: bool, **__: Any,
    ) -> Any:  # fmt: skip
        """Latents to begin with, the noise and, for a plain UNet, what to hold to, (B, C, h, w) each; `timestep` is (B,)."""
        source, start = self._start
        if self._watch is not None:
            self._show_noising(self._watch, timestep)
        start, scheduler = start.to(device), self._pipe.scheduler
        noised = start * scheduler.init_noise_sigma if is_strength_max else scheduler.add_noise(source, start, timestep)
        begin = noised.to(dtype), start.to(dtype)
        return (*begin, source.to(dtype)) if return_image_latents else begin

    def _mask_latents(
        self, mask: Any, masked: Any, batch: int, height: int, width: int, dtype: Any, device: Any, _: Any, guided: bool
    ) -> tuple[Any, Any]:
        """The masks (B, 1, h, w), 1 in every cell that is painted, and, for a UNet made for it, the latents of the sources
        without what is masked; twice as many rows under guidance."""
        rows = 2 if guided else 1
        source, _start = self._start
        painted = [mask > 0 for mask in self._masks]
        cells = pooled([mask.astype(np.float32) for mask in painted], source).to(dtype).repeat(rows, 1, 1, 1)
        if self._pipe.unet.config.in_channels == source.shape[1]:
            return cells, None
        shown = [np.where(mask[..., None], HIDDEN, image) for mask, image in zip(painted, self._images, strict=True)]
        latents = self._codec.to_model(self._codec.encode(shown)).to(dtype)
        return cells, latents.repeat(rows, 1, 1, 1)
