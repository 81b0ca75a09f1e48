"""Image to image: noise the source part of the way, denoise to the prompt. Stable Diffusion 1 to 3.5, SDXL, FLUX.1, Z-Image.

Strength is the share of the schedule that is run; 0 is the VAE round trip and runs no step. Objects of a lower strength
are held to their source at each level's noise until their own start (Levin and Fried, Differential Diffusion: Giving Each
Pixel Its Strength, 2023).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from diffgen.dataset.geometry import View
from diffgen.editing.editor import Edited
from diffgen.editing.families import choose_class
from diffgen.editing.pipelines.callbacks import Watch, moments, step_end, watching
from diffgen.editing.pipelines.latents import Codec, PackedCodec, check_batch, check_size, noise, pooled
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.editing.pipelines.prompts import Prompts
from diffgen.editing.pipelines.schedulers import Schedulers, noised
from diffgen.models.load_network import memory_errors
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models.model import Model


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the classes of pipelines that do this.

    `guided` is the pipeline's own rule for a second pass with the negative prompt, given its guidance scale.
    """

    codec: Callable[[Any], Codec]
    guided: Callable[[Any, float], bool]
    flow: bool = True  # trained by flow matching: sizes are given, N − int(N − N·s) steps run instead of int(N·s)


def _above_one(pipe: Any, guidance: float) -> bool:
    # Models distilled with guidance (LCM) take it as a number, in one pass.
    return guidance > 1 and pipe.unet.config.time_cond_proj_dim is None


_UNET = Dialect(Codec, _above_one, flow=False)
DIALECTS = {  # of all others: _UNET
    "StableDiffusion3Img2ImgPipeline": Dialect(partial(Codec, patch=2), lambda _, guidance: guidance > 1),
    # Guidance is a number that the model reads (dev), or nothing (schnell).
    "FluxImg2ImgPipeline": Dialect(PackedCodec, lambda *_: False),
    # Its scale counts from 0: 0 is off, 4 is what the others call 5.
    "ZImageImg2ImgPipeline": Dialect(partial(Codec, patch=2), lambda _, guidance: guidance > 0),
}

CLASSES = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionImg2ImgPipeline",
    # The same parts; the scheduler is what differs, and this class gives it the source at any level.
    "LatentConsistencyModelPipeline": "StableDiffusionImg2ImgPipeline",
    "LatentConsistencyModelImg2ImgPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3Img2ImgPipeline",
    "StableDiffusion3Img2ImgPipeline": "StableDiffusion3Img2ImgPipeline",
    "FluxPipeline": "FluxImg2ImgPipeline",
    "FluxImg2ImgPipeline": "FluxImg2ImgPipeline",
    "ZImagePipeline": "ZImageImg2ImgPipeline",
    "ZImageImg2ImgPipeline": "ZImageImg2ImgPipeline",
}

TRAIN_STEPS = 1000


def dialect_of(cls: str) -> Dialect:
    """Of a pipeline's class, be it for pictures or for texts alone."""
    return DIALECTS.get(CLASSES.get(cls, cls), _UNET)


def load(model: Model, device: str, dtype: str) -> Img2Img:
    return Img2Img(load_pipeline(choose_class(model, CLASSES), model, device, dtype))


def schedule(strength: float, steps: int, train_steps: int = TRAIN_STEPS) -> tuple[int, float]:
    """How many steps to ask for, and the pipeline's `strength`, so that exactly `steps` of them run.

    The start level steps/N is the nearest to the strength (in 0–1, above 0) that whole steps allow; between two equally near
    the lower. A schedule cannot be finer than the model's training steps, which bounds the level from below.
    """
    near = min(max(steps / strength, steps), max(train_steps, steps))
    total = min(
        (int(near) + 1, int(near)), key=lambda n: (abs(steps / n - strength), steps / n) if n <= train_steps else (2, 0)
    )
    # The pipelines run int(N · strength) steps; half a step more is safe from rounding.
    return total, min(1.0, (steps + 0.5) / total)


def effective_strength(settings: Settings) -> float:
    """The strength that an image with these settings really gets."""
    if settings.strength <= 0:
        return 0.0
    return settings.steps / schedule(settings.strength, settings.steps, most_steps(settings))[0]


def object_steps(settings: Settings) -> int:
    """How many of the schedule's steps run inside objects."""
    if settings.strength <= 0:
        return 0
    total, _ = schedule(settings.strength, settings.steps, most_steps(settings))
    return min(settings.steps, round(total * (settings.object_strength or 0.0)))


def effective_object_strength(settings: Settings) -> float | None:
    """The strength that objects really get; None where they get the scene's."""
    if settings.object_strength is None or settings.strength <= 0:
        return None
    return object_steps(settings) / schedule(settings.strength, settings.steps, most_steps(settings))[0]


def most_steps(settings: Settings) -> int:
    """The longest schedule that the settings' scheduler makes: LCM's has 50 levels (diffusers' original_inference_steps)."""
    return 50 if settings.scheduler in ("lcm", "LCMScheduler") else TRAIN_STEPS - 1


class Img2Img:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._dialect = dialect_of(type(pipe).__name__)
        self._codec = self._dialect.codec(pipe)
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)
        self._start: tuple[Any, Any] = (None, None)
        self._watch: Watch | None = None
        self._own_prepare = pipe.prepare_latents
        self._arguments = inspect.signature(pipe.prepare_latents)
        # The only method replaced: it would encode each source again, one at a time, and sample from the VAE.
        pipe.prepare_latents = self._noised

    def edit(
        self,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        masks: Sequence[NDArray[np.float32]] | None = None,
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
        controls: Sequence[Sequence[NDArray[np.uint8]]] | None = None,
    ) -> list[Edited]:
        """See `diffgen.editing.editor.Editor`."""
        import torch

        check_batch(images, jobs, self._codec.multiple)
        settings = jobs[0].settings
        with memory_errors(len(jobs)), torch.inference_mode():
            latents = self._codec.encode(images)
            if settings.strength > 0:
                held = None if settings.object_strength is None or masks is None else pooled(masks, latents)
                latents = self._codec.from_model(self._denoise(latents, jobs, held, views, watch))
            made = self._codec.decode(latents)
        check_size(made, images)
        strength = effective_strength(settings)
        objects = None if masks is None else effective_object_strength(settings)
        return [Edited(image, strength, objects) for image in made]

    def _denoise(
        self,
        source: Any,
        jobs: Sequence[Job],
        held: Any = None,
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
    ) -> Any:
        """Edited model latents (B, C, h, w) for source latents of that shape; `held` (B, 1, h, w) in 0–1 is the objects."""
        import torch

        settings, pipe, codec = jobs[0].settings, self._pipe, self._codec
        guided = self._dialect.guided(pipe, settings.guidance)
        negatives = [job.negative_prompt for job in jobs] if guided else None
        start, generators = noise(jobs, source.shape[1:], views, codec.factor)
        pipe.scheduler = self._schedulers.get(settings.scheduler)
        total, share = schedule(settings.strength, settings.steps, most_steps(settings))
        arguments = self._prompts.embeds([job.prompt for job in jobs], negatives)
        if self._dialect.flow:
            share = (settings.steps - 0.5) / total
            arguments |= {"height": source.shape[2] * codec.factor, "width": source.shape[3] * codec.factor}
        self._start = (codec.to_model(source), start)
        self._watch = watch
        after = []
        if held is not None:
            least = object_steps(settings)
            # Steps of each cell: the feather passes through all numbers between the object's and the scene's.
            steps = torch.floor(settings.steps - held * (settings.steps - least) + 1e-4)
            after.append(self._hold((total - steps) * pipe.scheduler.order))
        if watch is not None:
            after.append(watching(watch, self._look))
        made = pipe(
            **step_end(after),
            **arguments,
            image=torch.zeros(1, 3, codec.multiple, codec.multiple),  # unused: _noised knows the sources
            **self._guidance(settings),
            strength=share,
            num_inference_steps=total,
            guidance_scale=settings.guidance,
            generator=generators,
            output_type="latent",
        ).images
        return codec.unpack(made, source.shape[2:])

    def _guidance(self, settings: Settings) -> dict[str, Any]:
        """What a family that is guided by more than a prompt gives its pipeline besides."""
        return {}

    def _hold(self, begins: Any) -> Any:
        """A callback that keeps each cell at its source, with the noise of the level, until the level at which it begins.

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
        """The sources' model latents, noised in float32 to the first level that is run; what the class's own gives else."""
        given = self._arguments.bind(*args, **kwargs).arguments
        source, start = self._start
        if self._watch is not None:
            self._show_noising(self._watch, given["timestep"])
        latents = noised(self._pipe.scheduler, source, start.to(given["device"]), given["timestep"])
        latents = self._codec.pack(latents).to(given["dtype"])
        if "latents" in self._arguments.parameters:  # it passes them on, with the positions of their tokens
            return self._own_prepare(**{**given, "latents": latents})
        return latents

    def _show_noising(self, watch: Watch, first: Any) -> None:
        """The sources at a few levels of noise, from little to that at which denoising begins (`first`, (B,))."""
        source, start = self._start
        scheduler = copy.deepcopy(self._pipe.scheduler)
        levels = scheduler.timesteps
        for k in moments(int((levels <= first[0]).sum())):
            if hasattr(scheduler, "set_begin_index"):  # those that have it go by it, whatever level they are told
                scheduler.set_begin_index(len(levels) - k)
            latents = noised(scheduler, source, start.to(source.device), levels[-k].repeat(len(source)))
            watch(f"noise of strength {k / len(levels):.2f}", self._look(self._codec.pack(latents)))

    def _look(self, latents: Any) -> list[NDArray[np.uint8]]:
        """Images of model latents as the pipeline has them."""
        return self._codec.shown(latents, self._start[0].shape[2:])
