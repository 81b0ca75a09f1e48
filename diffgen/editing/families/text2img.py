"""Text to image: from noise alone to the prompt, at any size. The models of `img2img`, by their plain classes.

There is no source, so nothing says where things are: a detector has to find what was made (see diffgen.annotators).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from diffgen.dataset.geometry import View
from diffgen.editing.editor import Edited
from diffgen.editing.families import choose_class, img2img
from diffgen.editing.families.img2img import dialect_of
from diffgen.editing.pipelines.callbacks import Watch, from_noise
from diffgen.editing.pipelines.latents import check_batch, check_size, noise
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.editing.pipelines.prompts import Prompts
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.models.load_network import memory_errors
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models.model import Model

# The class that a model's files name -> the one that begins at noise. Latent consistency models sample in their own.
CLASSES = {name: name.replace("Img2ImgPipeline", "Pipeline") for name in img2img.CLASSES}


def load(model: Model, device: str, dtype: str) -> Text2Img:
    return Text2Img(load_pipeline(choose_class(model, CLASSES), model, device, dtype))


def effective_strength(_: Settings) -> float:
    """Always 1: there is no source that less would leave something of."""
    return 1.0


def effective_object_strength(_: Settings) -> None:
    """There are no labelled objects yet."""


class Text2Img:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._dialect = dialect_of(type(pipe).__name__)
        self._codec = self._dialect.codec(pipe)
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)

    def edit(
        self,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        masks: Sequence[NDArray[np.float32]] | None = None,
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
        controls: Sequence[Sequence[NDArray[np.uint8]]] | None = None,
    ) -> list[Edited]:
        """See `diffgen.editing.editor.Editor`. Of `images` only the size counts: they are blank."""
        import torch

        check_batch(images, jobs, self._codec.multiple)
        with memory_errors(len(jobs)), torch.inference_mode():
            height, width = images[0].shape[:2]
            made = self._codec.decode(self._codec.from_model(self._denoised(jobs, height, width, views, watch)))
        check_size(made, images)
        return [Edited(image, 1.0) for image in made]

    def _denoised(
        self, jobs: Sequence[Job], height: int, width: int, views: Sequence[View] | None, watch: Watch | None
    ) -> Any:
        """Model latents (B, C, h, w) of pictures of `height` and `width` pixels."""
        import torch

        settings, pipe, codec = jobs[0].settings, self._pipe, self._codec
        size = height // codec.factor, width // codec.factor
        start, generators = noise(jobs, (int(pipe.vae.config.latent_channels), *size), views, codec.factor)
        pipe.scheduler = self._schedulers.get(settings.scheduler)
        guided = self._dialect.guided(pipe, settings.guidance)
        arguments = self._prompts.embeds(
            [job.prompt for job in jobs], [job.negative_prompt for job in jobs] if guided else None
        )
        embeds = arguments["prompt_embeds"]
        # Z-Image, which takes lists, keeps its latents in float32.
        dtype = torch.float32 if isinstance(embeds, list) else embeds.dtype
        packed = codec.pack(start.to(pipe._execution_device, dtype))
        made = pipe(
            **from_noise(watch, partial(codec.shown, size=size), packed),
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
