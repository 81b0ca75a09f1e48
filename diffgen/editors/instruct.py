"""InstructPix2Pix and its SDXL form: the source conditions every step, a prompt says the change, noise is the start.

Strength: the latents move from the source's to the edited ones, z_source + s·(z_edited − z_source), after the last step;
0 is the VAE round trip and runs no step. A model that was taught severity in words gets the strength in its prompt instead.
Objects of a lower strength: s is a map then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.editors import Edited
from diffgen.editors.latents import Codec, check_batch, check_size, noise, pooled
from diffgen.editors.loading import choose_class, load_pipeline, memory_errors
from diffgen.editors.prompts import Prompts
from diffgen.editors.schedulers import Schedulers
from diffgen.editors.watching import Watch, step_end, watching
from diffgen.geometry import View
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models import Model

CLASSES = {
    "StableDiffusionInstructPix2PixPipeline": "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLInstructPix2PixPipeline": "StableDiffusionXLInstructPix2PixPipeline",
}

# The least percentage that is told; below it the latents are interpolated instead.
LEAST_SEVERITY = 5


def load(model: Model, device: str, dtype: str) -> Instruct:
    return Instruct(load_pipeline(choose_class(model, CLASSES), model, device, dtype))


def severity_and_share(strength: float) -> tuple[int, float]:
    """The percentage that a model is told, in steps of 5, and the share of the change that is then taken.

    Both together are continuous from 0 on and never shrink: below .05 the percentage stays 5 and the share falls to 0.
    """
    least = LEAST_SEVERITY / 100
    if strength < least:
        return LEAST_SEVERITY, strength / least
    return max(LEAST_SEVERITY, round(20 * strength) * 5), 1.0


def effective_strength(settings: Settings) -> float:
    """The strength that an image with these settings really gets."""
    if settings.severity is None:
        return settings.strength
    percent, share = severity_and_share(settings.strength)
    return percent / 100 if share == 1 else settings.strength


def effective_object_strength(settings: Settings) -> float | None:
    """The strength that objects really get; None where they get the scene's."""
    if settings.object_strength is None:
        return None
    return min(effective_strength(settings), settings.object_strength)


def resolved_prompt(prompt: str, settings: Settings) -> str:
    """What the model reads. The prompt goes in last, as it may hold braces of its own."""
    if settings.severity is None:
        return prompt
    percent, _ = severity_and_share(settings.strength)
    return settings.severity.replace("{percent}", str(percent)).replace("{prompt}", prompt)


class Instruct:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._codec = Codec(pipe)
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)
        self._xl = hasattr(pipe, "text_encoder_2")
        self._source: Any = None
        # The only method replaced: it would encode each source again, and take 4 channels for latents.
        pipe.prepare_image_latents = self._image_latents

    def edit(
        self,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        masks: Sequence[NDArray[np.float32]] | None = None,
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
        controls: Sequence[Sequence[NDArray[np.uint8]]] | None = None,
    ) -> list[Edited]:
        """See `diffgen.editors.Editor`."""
        import torch

        check_batch(images, jobs, self._codec.factor)
        settings = jobs[0].settings
        with memory_errors(len(jobs)), torch.inference_mode():
            source = self._codec.encode(images)
            if settings.strength > 0:
                edited = self._codec.from_model(self._denoise(source, images[0].shape, jobs, views, watch))
                share = severity_and_share(settings.strength)[1] if settings.severity else settings.strength
                if masks is not None and settings.object_strength is not None:
                    fall = 1 - settings.object_strength / settings.strength
                    share = share * (1 - max(0.0, fall) * pooled(masks, source))
                # lerp is exact at both ends, so that strength 1 is the whole edit to the last bit.
                source = torch.lerp(source, edited, share)
            made = self._codec.decode(source)
        check_size(made, images)
        strength = effective_strength(settings)
        held = None if masks is None else effective_object_strength(settings)
        return [Edited(image, strength, held) for image in made]

    def _denoise(
        self,
        source: Any,
        size: tuple[int, ...],
        jobs: Sequence[Job],
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
    ) -> Any:
        """Edited model latents (B, C, h, w) for source latents of that shape."""
        import torch

        settings, pipe = jobs[0].settings, self._pipe
        image_guidance = 1.5 if settings.image_guidance is None else settings.image_guidance
        guided = (
            settings.guidance > 1 and image_guidance >= 1
        )  # the pipeline's own rule; three rows an image instead of one
        negatives = [job.negative_prompt for job in jobs] if guided else None
        start, generators = noise(jobs, source.shape[1:], views, self._codec.factor)
        arguments = self._prompts.embeds([resolved_prompt(job.prompt, settings) for job in jobs], negatives)
        if self._xl:
            arguments |= {"height": size[0], "width": size[1]}
        pipe.scheduler = self._schedulers.get(settings.scheduler)
        self._source = source
        after = []
        if watch is not None:
            watch("pure noise, at any strength", self._look(start.to(source.device)))
            if not self._xl:  # its pipeline calls nobody back
                after.append(watching(watch, self._look))
        return pipe(
            **step_end(after),
            **arguments,
            image=torch.zeros(1, 3, 8, 8),  # unused: _image_latents knows the sources
            latents=start.to(pipe.unet.device, pipe.unet.dtype),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance if guided else 1.0,
            image_guidance_scale=image_guidance,
            generator=generators,
            output_type="latent",
        ).images

    def _look(self, latents: Any) -> list[NDArray[np.uint8]]:
        return self._codec.decode(self._codec.from_model(latents))

    def _image_latents(
        self, image: Any, batch_size: int, num_images_per_prompt: int, dtype: Any, device: Any, guided: bool, *_: Any
    ) -> Any:
        """Unscaled, as the model was trained with (CosXL: scaled). Under guidance [source, source, zeros], 3 B rows."""
        import torch

        latents = self._source.to(device, dtype)
        if getattr(self._pipe, "is_cosxl_edit", False):
            latents = latents * self._codec.vae.config.scaling_factor
        return torch.cat([latents, latents, torch.zeros_like(latents)]) if guided else latents
