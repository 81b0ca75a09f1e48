"""Qwen-Image-Edit and its Plus form: a language model looks at the source, whose tokens stand after the noisy ones.

By itself it would bring every source to about a megapixel, another size than that of the edit. It takes one picture a call,
and its text embeddings depend on the picture, so nothing of them can be kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.dataset.geometry import View
from diffgen.editing.pipelines.callbacks import Watch, from_noise
from diffgen.editing.pipelines.latents import PackedCodec, noise
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class QwenCodec(PackedCodec):
    """A video autoencoder: pictures are films of one frame."""

    def coded(self, pixels: Any) -> Any:
        return super().coded(pixels.unsqueeze(2)).squeeze(2)

    def pixels(self, latents: Any) -> Any:
        return super().pixels(latents.unsqueeze(2)).squeeze(2)


class QwenEdit:
    def __init__(self, pipe: Any) -> None:
        self.codec = QwenCodec(pipe)
        self._pipe = pipe
        self._schedulers = Schedulers(pipe.scheduler)
        self._source: Any = None
        self._grid: tuple[int, int, int] = (1, 0, 0)
        # The only method replaced, and the one argument that it decides: both would be for the source at another size.
        pipe.prepare_latents = self._prepared
        pipe.transformer.register_forward_pre_hook(self._with_shapes, with_kwargs=True)
        logger.warning("this model edits pictures one at a time, whatever the batch size: %s", type(pipe).__name__)

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

        start, generators = noise(jobs, source.shape[1:], views, self.codec.factor)
        self._pipe.scheduler = self._schedulers.get(jobs[0].settings.scheduler)
        if len(images) > 1:
            watch = None  # it is told of batches, and these run one after another
        rows = [
            self._one(source[i : i + 1], start[i : i + 1], image, job, prompt, generator, watch)
            for i, (image, job, prompt, generator) in enumerate(zip(images, jobs, prompts, generators, strict=True))
        ]
        return torch.cat(rows)

    def _one(
        self,
        source: Any,
        start: Any,
        image: NDArray[np.uint8],
        job: Job,
        prompt: str,
        generator: Any,
        watch: Watch | None,
    ) -> Any:
        from PIL import Image

        from diffgen.models.load_network import quiet

        codec, guidance = self.codec, job.settings.guidance
        guided = guidance > 1
        height, width = image.shape[:2]
        self._source = codec.pack(codec.to_model(source))
        self._grid = (1, height // codec.multiple, width // codec.multiple)
        tokens = codec.pack(start).to(source.device)
        with quiet():
            made = self._pipe(
                **from_noise(watch, lambda latents: codec.shown(latents, source.shape[2:]), tokens),
                image=Image.fromarray(image),
                prompt=prompt,
                negative_prompt=(job.negative_prompt or " ") if guided else None,  # an empty one has no tokens
                true_cfg_scale=guidance if guided else 1.0,
                latents=tokens,
                height=height,
                width=width,
                num_inference_steps=job.settings.steps,
                generator=generator,
                output_type="latent",
            ).images
        return codec.from_model(codec.unpack(made, source.shape[2:]))

    def _prepared(
        self, _i: Any, _b: Any, _c: Any, _h: Any, _w: Any, dtype: Any, device: Any, _g: Any, latents: Any
    ) -> Any:
        return latents.to(device, dtype), self._source.to(device, dtype)

    def _with_shapes(self, _: Any, arguments: Any, named: dict[str, Any]) -> Any:
        return arguments, {**named, "img_shapes": [[self._grid, self._grid]]}
