"""InstructPix2Pix on Stable Diffusion 1.x and SDXL, and CosXL Edit: the source's latents are further channels of the noisy
ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.editing.editor import EditBatch
from diffgen.editing.pipelines.callbacks import from_noise
from diffgen.editing.pipelines.codecs import Codec
from diffgen.editing.pipelines.latents import noise
from diffgen.editing.pipelines.prompts import Prompts, has_second_pass
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.models.pipelines import spec_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Pix2Pix:
    def __init__(self, pipe: Any, codec: Codec) -> None:
        self._pipe, self._codec = pipe, codec
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)
        self._xl = hasattr(pipe, "text_encoder_2")
        self._source: Any = None
        if self._xl and type(pipe.scheduler).__name__.startswith("EDM"):
            pipe.is_cosxl_edit = True  # the files cannot say so, but no other model of this class has such a schedule
        # The only method replaced: it would encode each source again, and take 4 channels for latents.
        pipe.prepare_image_latents = self._image_latents

    def edited(self, source: Any, batch: EditBatch, prompts: Sequence[str]) -> Any:
        """See `Adapter`."""
        import torch

        settings, pipe = batch.settings, self._pipe
        image_guidance = 1.5 if settings.image_guidance is None else settings.image_guidance
        # The pipeline's own rule. It then runs three rows an image instead of one.
        guided = has_second_pass(spec_of(pipe).second_pass, pipe, settings.guidance) and image_guidance >= 1
        negatives = [job.negative_prompt for job in batch.jobs] if guided else None
        start, generators = noise(batch.jobs, source.shape[1:], batch.views, self._codec.factor)
        arguments = self._prompts.embeds(prompts, negatives)
        if self._xl:
            height, width = batch.size
            arguments |= {"height": height, "width": width}
            if settings.native:
                arguments |= {"original_size": (settings.native, settings.native)}
        pipe.scheduler = self._schedulers.get(settings)
        self._source = source

        def look(latents: Any) -> list[NDArray[np.uint8]]:
            return self._codec.shown(latents, source.shape[2:])

        made = pipe(
            # The pipeline for SDXL has no step callbacks.
            **from_noise(batch.watch, look, start.to(source.device), calls_back=not self._xl),
            **arguments,
            image=torch.zeros(1, 3, 8, 8),  # unused: _image_latents has the sources
            latents=start.to(source.device, pipe.unet.dtype),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance if guided else 1.0,
            image_guidance_scale=image_guidance,
            generator=generators,
            output_type="latent",
        ).images
        return self._codec.from_model(made)

    def _image_latents(
        self, image: Any, batch_size: int, num_images_per_prompt: int, dtype: Any, device: Any, guided: bool, *_: Any
    ) -> Any:
        """Replaces the pipeline's `prepare_image_latents`: the sources' latents, unscaled as in training (CosXL: scaled).

        Under guidance [source, source, zeros], 3 B rows.
        """
        import torch

        latents = self._source.to(device, dtype)
        if getattr(self._pipe, "is_cosxl_edit", False):
            latents = latents * self._codec.vae.config.scaling_factor
        return torch.cat([latents, latents, torch.zeros_like(latents)]) if guided else latents
