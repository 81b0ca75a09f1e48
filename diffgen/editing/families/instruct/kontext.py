"""FLUX.1 Kontext: the source's tokens after the noisy ones. By itself it would bring every picture to about a megapixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.dataset.geometry import View
from diffgen.editing.pipelines.callbacks import Watch, from_noise
from diffgen.editing.pipelines.latents import PackedCodec, noise
from diffgen.editing.pipelines.prompts import Prompts
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Kontext:
    def __init__(self, pipe: Any) -> None:
        self.codec = PackedCodec(pipe)
        self._pipe = pipe
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)

    def edited(
        self,
        source: Any,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        prompts: Sequence[str],
        views: Sequence[View] | None,
        watch: Watch | None,
    ) -> Any:
        """See `InstructPipeline`. Guidance is a number that the model reads; there is no second pass."""
        settings, pipe, codec = jobs[0].settings, self._pipe, self.codec
        height, width = images[0].shape[:2]
        start, generators = noise(jobs, source.shape[1:], views, codec.factor)
        pipe.scheduler = self._schedulers.get(settings.scheduler)
        tokens = codec.pack(start).to(source.device)
        made = pipe(
            **from_noise(watch, lambda latents: codec.shown(latents, source.shape[2:]), tokens),
            **self._prompts.embeds(prompts, None),
            image=codec.to_model(source),  # what has the latents' channels is taken as it is
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
