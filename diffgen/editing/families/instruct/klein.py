"""FLUX.2 klein: the source's tokens follow the noisy ones.

By itself it would take several sources for views of one scene, crop each around its centre, and shrink it to a megapixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffgen.editing.editor import EditBatch
from diffgen.editing.pipelines.callbacks import from_noise
from diffgen.editing.pipelines.codecs import Codec
from diffgen.editing.pipelines.latents import noise
from diffgen.editing.pipelines.prompts import Prompts, has_second_pass
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.models.pipelines import spec_of


class Klein:
    def __init__(self, pipe: Any, codec: Codec) -> None:
        self._pipe, self._codec = pipe, codec
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)
        self._latents: Any = None
        # The only method replaced: it would make one sequence of all sources.
        pipe.prepare_image_latents = self._image_latents

    def edited(self, source: Any, batch: EditBatch, prompts: Sequence[str]) -> Any:
        """See `Adapter`."""
        from PIL import Image

        settings, pipe, codec = batch.settings, self._pipe, self._codec
        height, width = batch.size
        guided = has_second_pass(spec_of(pipe).second_pass, pipe, settings.guidance)
        negatives = [job.negative_prompt for job in batch.jobs] if guided else None
        self._latents = codec.to_model(source)
        start, generators = noise(batch.jobs, self._latents.shape[1:], batch.views, codec.multiple)
        pipe.scheduler = self._schedulers.get(settings)
        tokens = codec.pack(start).to(source.device)
        made = pipe(
            **from_noise(batch.watch, lambda latents: codec.shown(latents, source.shape[2:]), tokens),
            **self._prompts.embeds(prompts, negatives),
            image=Image.new("RGB", (64, 64)),  # unused: _image_latents has the sources
            latents=start,
            height=height,
            width=width,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance if guided else 1.0,
            generator=generators,
            output_type="latent",
        ).images
        return made.float()  # the pipeline itself undoes the centring and the patches

    def _image_latents(self, images: Any, batch_size: int, generator: Any, device: Any, dtype: Any) -> Any:
        """Tokens (B, n, 4 C) of each row's own source, and their positions."""
        ids = self._pipe._prepare_image_ids([self._latents[:1]]).repeat(batch_size, 1, 1)
        return self._codec.pack(self._latents).to(device, dtype), ids.to(device)
