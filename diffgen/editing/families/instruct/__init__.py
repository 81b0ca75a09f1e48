"""Instruction models: the source conditions every step, a prompt says the change, noise is the start.

Strength: the latents move from the source's to the edited ones, z_source + s·(z_edited − z_source), after the last step;
0 is the VAE round trip and runs no step. A model that was taught severity in words gets the strength in its prompt instead.
Objects of a lower strength: s is a map then. How a family is called, so that it neither crops nor scales, has a file each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from diffgen.dataset.geometry import View
from diffgen.editing.editor import Edited
from diffgen.editing.families import choose_class
from diffgen.editing.families.instruct.klein import Klein
from diffgen.editing.families.instruct.kontext import Kontext
from diffgen.editing.families.instruct.pix2pix import Pix2Pix
from diffgen.editing.families.instruct.qwen_edit import QwenEdit
from diffgen.editing.pipelines.callbacks import Watch
from diffgen.editing.pipelines.latents import Codec, check_batch, check_size, pooled
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.models.load_network import memory_errors
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models.model import Model


class InstructPipeline(Protocol):
    """How one family is called."""

    @property
    def codec(self) -> Codec: ...

    def edited(
        self,
        source: Any,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        prompts: Sequence[str],
        views: Sequence[View] | None,
        watch: Watch | None,
    ) -> Any:
        """The whole edit as source latents (B, C, h, w) float32, of `source` latents of that shape.

        `images` (H, W, 3) are what `source` was made of; `prompts` what the model reads for each job. `watch` is
        shown the noise at the start, and the images at a few steps where the pipeline allows it.
        """


PIPELINES: dict[str, Callable[[Any], InstructPipeline]] = {
    "StableDiffusionInstructPix2PixPipeline": Pix2Pix,
    "StableDiffusionXLInstructPix2PixPipeline": Pix2Pix,
    "FluxKontextPipeline": Kontext,
    "Flux2KleinPipeline": Klein,
    "QwenImageEditPipeline": QwenEdit,
    "QwenImageEditPlusPipeline": QwenEdit,
}
CLASSES = {name: name for name in PIPELINES}

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
        self._way = PIPELINES[type(pipe).__name__](pipe)
        self._codec = self._way.codec

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
            source = self._codec.encode(images)
            if settings.strength > 0:
                prompts = [resolved_prompt(job.prompt, settings) for job in jobs]
                edited = self._way.edited(source, images, jobs, prompts, views, watch)
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
