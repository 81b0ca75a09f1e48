"""Text to image: from pure noise to the prompt, at any size. The models of `img2img`, by their text-to-image classes.

There is no source, so nothing says where the objects are: a detector has to label what was made (`checks.auto_labels`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from diffgen.editing.editor import EditBatch, Edited, Family
from diffgen.editing.pipelines.callbacks import from_noise
from diffgen.editing.pipelines.codecs import codec_of
from diffgen.editing.pipelines.latents import noise
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.editing.pipelines.prompts import Prompts, has_second_pass
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.errors import TransientError
from diffgen.models.load_network import memory_errors
from diffgen.models.pipelines import spec_of
from diffgen.types import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models.model import Model


def load(model: Model, device: str, dtype: str) -> Text2Img:
    return Text2Img(load_pipeline("text2img", model, device, dtype))


def effective_strength(_: Settings) -> float:
    """Always 1, because there is no source to keep anything of."""
    return 1.0


def effective_object_strength(_: Settings) -> float | None:
    """Always None, because there are no labelled objects yet."""
    return None


FAMILY = Family("text2img", load, effective_strength, effective_object_strength)


class Text2Img:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._codec = codec_of(pipe)
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)

    def round_trip(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Editor.round_trip`."""
        return self._codec.round_trip(image)

    def edit(self, batch: EditBatch) -> list[Edited | TransientError]:
        """See `Editor.edit`. Only the size of the images counts. Raises ValueError for sides that do not divide by the
        model's `multiple`."""
        import torch

        self._codec.check_images(batch.images)
        with memory_errors(len(batch.jobs)), torch.inference_mode():
            made = self._codec.decode(self._codec.from_model(self._denoised(batch)))
        return batch.results(made, 1.0)

    def _denoised(self, batch: EditBatch) -> Any:
        """Model latents (B, C, h, w) of pictures of the batch's size."""
        import torch

        settings, pipe, codec = batch.settings, self._pipe, self._codec
        height, width = batch.size
        size = height // codec.factor, width // codec.factor
        start, generators = noise(batch.jobs, (int(pipe.vae.config.latent_channels), *size), batch.views, codec.factor)
        pipe.scheduler = self._schedulers.get(settings)
        guided = has_second_pass(spec_of(pipe).second_pass, pipe, settings.guidance)
        negatives = [job.negative_prompt for job in batch.jobs] if guided else None
        arguments = self._prompts.embeds([job.prompt for job in batch.jobs], negatives)
        embeds = arguments["prompt_embeds"]
        # Z-Image, whose embeddings are lists, keeps its latents in float32.
        dtype = torch.float32 if isinstance(embeds, list) else embeds.dtype
        packed = codec.pack(start.to(pipe._execution_device, dtype))
        made = pipe(
            **from_noise(batch.watch, partial(codec.shown, size=size), packed),
            **arguments,
            height=height,
            width=width,
            latents=packed,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generators,
            output_type="latent",
        ).images
        return codec.unpack(made, size)
