"""Inpainting with Stable Diffusion and SDXL: masks say where the picture is repainted.

The UNet is either made for inpainting (9 channels: it sees the mask, and the source without what is masked) or a plain one.
With a plain one the pipeline resets the unmasked latents to the source's after every step (Avrahami, Fried and Lischinski,
Blended Latent Diffusion, 2023).
Strength is that of `img2img`, but 1 starts from pure noise. Outside the masks the picture comes back nearly, not exactly, as
it was, so the caller lays the source's pixels over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffgen.editing.editor import EditBatch, Edited, Family
from diffgen.editing.families.img2img import Img2Img
from diffgen.editing.levels import effective_object_strength, effective_strength
from diffgen.editing.pipelines.latents import pooled
from diffgen.editing.pipelines.loading import load_pipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diffgen.errors import TransientError
    from diffgen.models.model import Model

HIDDEN = np.float32(127.5)  # the middle of the range: what the UNet sees in place of the masked pixels


def load(model: Model, device: str, dtype: str) -> Inpaint:
    return Inpaint(load_pipeline("inpaint", model, device, dtype))


FAMILY = Family("inpaint", load, effective_strength, effective_object_strength)


class Inpaint(Img2Img):
    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        self._full = False  # whether the edit starts from pure noise
        self._images: Sequence[NDArray[np.uint8]] = ()
        self._painted: Sequence[NDArray[np.bool_]] = ()
        # The only methods replaced: they would encode each source again, one at a time, and sample from the VAE.
        pipe.prepare_latents = self._begin
        pipe.prepare_mask_latents = self._mask_latents

    def edit(self, batch: EditBatch) -> list[Edited | TransientError]:
        """See `Editor.edit`. The batch must have masks; it is painted wherever they are above 0."""
        if batch.masks is None:
            raise ValueError("expected a mask as large as its image for each")
        self._full = effective_strength(batch.settings) == 1
        self._images, self._painted = batch.images, [mask > 0 for mask in batch.masks]
        # Without the masks, which are no objects with a strength of their own here.
        return super().edit(replace(batch, masks=None))

    def _guidance(self, batch: EditBatch) -> dict[str, Any]:
        import torch

        # The tensors are unused: _begin and _mask_latents have the pictures and masks.
        unused = {"mask_image": torch.zeros(1, 1, 8, 8), "masked_image_latents": torch.zeros(1, 4, 8, 8)}
        height, width = batch.size
        return {**unused, "height": height, "width": width}

    def _begin(
        self, batch: int, channels: int, height: int, width: int, dtype: Any, device: Any, *_: Any,
        timestep: Any, is_strength_max: bool, return_image_latents: bool, **__: Any,
    ) -> Any:  # fmt: skip
        """Replaces the pipeline's `prepare_latents`: the latents to begin with, the noise and, for a plain UNet, the
        source's latents, (B, C, h, w) each. `timestep` is (B,)."""
        source, start = self._start
        if self._watch is not None:
            self._show_noising(self._watch, timestep)
        start, scheduler = start.to(device), self._pipe.scheduler
        noised = start * scheduler.init_noise_sigma if self._full else scheduler.add_noise(source, start, timestep)
        begin = noised.to(dtype), start.to(dtype)
        return (*begin, source.to(dtype)) if return_image_latents else begin

    def _mask_latents(
        self, mask: Any, masked: Any, batch: int, height: int, width: int, dtype: Any, device: Any, _: Any, guided: bool
    ) -> tuple[Any, Any]:
        """Replaces the pipeline's `prepare_mask_latents`: the masks (B, 1, h, w), 1 in every cell that is painted, and, for
        a UNet made for inpainting, the latents of the sources without what is masked. Twice as many rows under guidance."""
        rows = 2 if guided else 1
        source, _start = self._start
        cells = pooled([mask.astype(np.float32) for mask in self._painted], source).to(dtype).repeat(rows, 1, 1, 1)
        if self._pipe.unet.config.in_channels == source.shape[1]:
            return cells, None
        shown = [
            np.where(mask[..., None], HIDDEN, image) for mask, image in zip(self._painted, self._images, strict=True)
        ]
        latents = self._codec.to_model(self._codec.encode(shown)).to(dtype)
        return cells, latents.repeat(rows, 1, 1, 1)
