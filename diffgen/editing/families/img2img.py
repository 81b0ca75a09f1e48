"""Image to image: add noise to the source part of the way, then denoise it towards the prompt. Stable Diffusion 1 to 3.5,
SDXL, FLUX.1, Z-Image.

Strength is the level of the model's own schedule at which denoising begins (`editing.levels`); 0 runs no step and is the VAE
round trip. Objects with a lower strength are kept at their source, with each level's noise, until their own start (Levin and
Fried, Differential Diffusion: Giving Each Pixel Its Strength, 2023).
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

from diffgen.editing.editor import EditBatch, Edited, Family
from diffgen.editing.levels import effective_object_strength, effective_strength, levels, object_steps
from diffgen.editing.pipelines.callbacks import Watch, shown_steps, step_end, watching
from diffgen.editing.pipelines.codecs import codec_of
from diffgen.editing.pipelines.latents import noise, pooled
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.editing.pipelines.prompts import Prompts, has_second_pass
from diffgen.editing.pipelines.schedulers import Schedulers, noised
from diffgen.errors import TransientError
from diffgen.models.load_network import memory_errors
from diffgen.models.pipelines import spec_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models.model import Model


def load(model: Model, device: str, dtype: str) -> Img2Img:
    return Img2Img(load_pipeline("img2img", model, device, dtype))


FAMILY = Family("img2img", load, effective_strength, effective_object_strength)


class Img2Img:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._spec = spec_of(pipe)
        self._codec = codec_of(pipe)
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)
        self._start: tuple[Any, Any] = (None, None)
        self._levels: tuple[float, ...] = ()  # of the batch in hand
        self._watch: Watch | None = None
        # The only method replaced: it would encode each source again, one at a time, and sample from the VAE. Its parameters
        # differ between the pipeline classes.
        self._own_prepare = pipe.prepare_latents
        self._arguments = inspect.signature(pipe.prepare_latents)
        pipe.prepare_latents = self._noised

    def round_trip(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Editor.round_trip`."""
        return self._codec.round_trip(image)

    def edit(self, batch: EditBatch) -> list[Edited | TransientError]:
        """See `Editor.edit`. Raises ValueError for sides that do not divide by the model's `multiple`."""
        import torch

        self._codec.check_images(batch.images)
        settings = batch.settings
        with memory_errors(len(batch.jobs)), torch.inference_mode():
            latents = self._codec.encode(batch.images)
            if settings.strength > 0:
                latents = self._codec.from_model(self._denoise(latents, batch))
            edited = self._codec.decode(latents)
        return batch.results(edited, effective_strength(settings), effective_object_strength(settings))

    def _denoise(self, source: Any, batch: EditBatch) -> Any:
        """Edited model latents (B, C, h, w) for source latents of that shape."""
        import torch

        settings, pipe, codec = batch.settings, self._pipe, self._codec
        guided = has_second_pass(self._spec.second_pass, pipe, settings.guidance)
        negatives = [job.negative_prompt for job in batch.jobs] if guided else None
        start, generators = noise(batch.jobs, source.shape[1:], batch.views, codec.factor)
        pipe.scheduler = self._schedulers.at_levels(settings)
        self._levels = levels(settings)
        total = len(self._levels)
        arguments = self._prompts.embeds([job.prompt for job in batch.jobs], negatives)
        if self._spec.flow:
            arguments |= {"height": source.shape[2] * codec.factor, "width": source.shape[3] * codec.factor}
        if self._spec.reader is not None and self._spec.reader.name == "sdxl" and settings.native:
            # SDXL is told how large the picture was that it was cut from, and makes a blurred one where that is small
            # (Podell et al., SDXL, 2023, 2.2).
            arguments |= {"original_size": (settings.native, settings.native)}
        self._start = (codec.to_model(source), start)
        self._watch = batch.watch
        callbacks = []
        if batch.masks is not None and settings.object_strength is not None:
            # Steps of each cell: in the feather they pass through all numbers between the object's and the scene's.
            least, held = object_steps(settings), pooled(batch.masks, source)
            steps = torch.floor(total - held * (total - least) + 1e-4)
            callbacks.append(self._hold((total - steps) * pipe.scheduler.order))
        if batch.watch is not None:
            callbacks.append(watching(batch.watch, self._shown))
        made = pipe(
            **step_end(callbacks),
            **arguments,
            image=torch.zeros(1, 3, codec.multiple, codec.multiple),  # unused: _noised has the sources
            **self._guidance(batch),
            strength=1.0,  # all of the levels, which begin at the strength
            num_inference_steps=total,
            guidance_scale=settings.guidance,
            generator=generators,
            output_type="latent",
        ).images
        return codec.unpack(made, source.shape[2:])

    def _guidance(self, batch: EditBatch) -> dict[str, Any]:
        """Extra pipeline arguments, for families that are guided by more than a prompt."""
        return {}

    def _hold(self, begins: Any) -> Any:
        """A step callback that keeps each cell at its source, with the noise of the level, until the level where it begins.

        `begins` (B, 1, h, w) are indices into the schedule. After step i the latents are at the next level.
        """
        import torch

        source, start = self._start
        begins = self._codec.pack(begins.expand_as(source))

        def callback(pipe: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            levels = pipe.scheduler.timesteps
            level = len(levels) - pipe.num_timesteps + i + 1
            kept = source
            if level < len(levels):
                kept = noised(pipe.scheduler, source, start.to(source.device), levels[level].repeat(len(source)))
            latents = kwargs["latents"]
            kept = self._codec.pack(kept).to(latents.dtype)
            return {**kwargs, "latents": torch.where(begins >= level, kept, latents)}

        return callback

    def _noised(self, *args: Any, **kwargs: Any) -> Any:
        """Replaces the pipeline's `prepare_latents`: the sources' model latents, noised to the first level in float32."""
        given = self._arguments.bind(*args, **kwargs).arguments
        source, start = self._start
        if self._watch is not None:
            self._show_noising(self._watch, given["timestep"])
        latents = noised(self._pipe.scheduler, source, start.to(given["device"]), given["timestep"])
        latents = self._codec.pack(latents).to(given["dtype"])
        if "latents" in self._arguments.parameters:  # passed on, with the positions of their tokens
            return self._own_prepare(**{**given, "latents": latents})
        return latents

    def _show_noising(self, watch: Watch, first: Any) -> None:
        """Show `watch` the sources at a few levels of noise, up to the level at which denoising begins (`first`, (B,))."""
        source, start = self._start
        scheduler = copy.deepcopy(self._pipe.scheduler)
        times, order = scheduler.timesteps, scheduler.order
        for k in shown_steps(int((times <= first[0]).sum())):
            at = len(times) - k
            if hasattr(scheduler, "set_begin_index"):  # schedulers that have it ignore the level they are given
                scheduler.set_begin_index(at)
            latents = noised(scheduler, source, start.to(source.device), times[at].repeat(len(source)))
            level = self._levels[(at + order - 1) // order]
            watch(f"noise of strength {level:.2f}", self._shown(self._codec.pack(latents)))

    def _shown(self, latents: Any) -> list[NDArray[np.uint8]]:
        """Images of model latents in the pipeline's own shape."""
        return self._codec.shown(latents, self._start[0].shape[2:])
