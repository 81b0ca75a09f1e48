"""InstructPix2Pix on Stable Diffusion 1.x and SDXL, and CosXL Edit: the source's latents beside the noisy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.dataset.geometry import View
from diffgen.editing.pipelines.callbacks import Watch, from_noise
from diffgen.editing.pipelines.latents import Codec, noise
from diffgen.editing.pipelines.prompts import Prompts
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Pix2Pix:
    def __init__(self, pipe: Any) -> None:
        self.codec = Codec(pipe)
        self._pipe = pipe
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)
        self._xl = hasattr(pipe, "text_encoder_2")
        self._source: Any = None
        if self._xl and type(pipe.scheduler).__name__.startswith("EDM"):
            pipe.is_cosxl_edit = True  # the files cannot say it, but no other model of this class has such a schedule
        # The only method replaced: it would encode each source again, and take 4 channels for latents.
        pipe.prepare_image_latents = self._image_latents

    def edited(
        self,
        source: Any,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        prompts: Sequence[str],
        views: Sequence[View] | None,
        watch: Watch | None,
    ) -> Any:
        """See `InstructPipeline`."""
        import torch

        settings, pipe = jobs[0].settings, self._pipe
        image_guidance = 1.5 if settings.image_guidance is None else settings.image_guidance
        guided = (
            settings.guidance > 1 and image_guidance >= 1
        )  # the pipeline's own rule; three rows an image instead of one
        negatives = [job.negative_prompt for job in jobs] if guided else None
        start, generators = noise(jobs, source.shape[1:], views, self.codec.factor)
        arguments = self._prompts.embeds(prompts, negatives)
        if self._xl:
            arguments |= {"height": images[0].shape[0], "width": images[0].shape[1]}
        pipe.scheduler = self._schedulers.get(settings.scheduler)
        self._source = source

        def look(latents: Any) -> list[NDArray[np.uint8]]:
            return self.codec.shown(latents, source.shape[2:])

        made = pipe(
            # The pipeline of SDXL calls nobody back.
            **from_noise(watch, look, start.to(source.device), calls_back=not self._xl),
            **arguments,
            image=torch.zeros(1, 3, 8, 8),  # unused: _image_latents knows the sources
            latents=start.to(source.device, pipe.unet.dtype),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance if guided else 1.0,
            image_guidance_scale=image_guidance,
            generator=generators,
            output_type="latent",
        ).images
        return self.codec.from_model(made)

    def _image_latents(
        self, image: Any, batch_size: int, num_images_per_prompt: int, dtype: Any, device: Any, guided: bool, *_: Any
    ) -> Any:
        """Unscaled, as the model was trained with (CosXL: scaled). Under guidance [source, source, zeros], 3 B rows."""
        import torch

        latents = self._source.to(device, dtype)
        if getattr(self._pipe, "is_cosxl_edit", False):
            latents = latents * self.codec.vae.config.scaling_factor
        return torch.cat([latents, latents, torch.zeros_like(latents)]) if guided else latents
