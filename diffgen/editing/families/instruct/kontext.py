"""FLUX.1 Kontext: the source's tokens follow the noisy ones. By itself it would resize each picture to about a megapixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffgen.editing.editor import EditBatch
from diffgen.editing.pipelines.callbacks import from_noise
from diffgen.editing.pipelines.codecs import Codec
from diffgen.editing.pipelines.latents import noise
from diffgen.editing.pipelines.prompts import Prompts
from diffgen.editing.pipelines.schedulers import Schedulers


class Kontext:
    def __init__(self, pipe: Any, codec: Codec) -> None:
        self._pipe, self._codec = pipe, codec
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)

    def edited(self, source: Any, batch: EditBatch, prompts: Sequence[str]) -> Any:
        """See `Adapter`. The model reads the guidance scale as a number; there is no second pass."""
        settings, pipe, codec = batch.settings, self._pipe, self._codec
        height, width = batch.size
        start, generators = noise(batch.jobs, source.shape[1:], batch.views, codec.factor)
        pipe.scheduler = self._schedulers.get(settings)
        tokens = codec.pack(start).to(source.device)
        made = pipe(
            **from_noise(batch.watch, lambda latents: codec.shown(latents, source.shape[2:]), tokens),
            **self._prompts.embeds(prompts, None),
            image=codec.to_model(source),  # tensors with the latents' channels are used as they are
            latents=tokens,
            height=height,
            width=width,
            max_area=height * width,
            _auto_resize=False,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generators,
            output_type="latent",
        ).images
        return codec.from_model(codec.unpack(made, source.shape[2:]))
