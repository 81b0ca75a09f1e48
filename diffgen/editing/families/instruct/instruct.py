"""Instruction models: the source conditions every step, the prompt says what to change, and pure noise is the start.

Strength: after the last step the latents move from the source's towards the edited ones, z_source + s·(z_edited − z_source);
0 runs no step and is the VAE round trip. A model that learned severity in words is told the strength in its prompt instead.
Where objects have a lower strength, s is a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from diffgen.editing.editor import EditBatch, Edited, Family
from diffgen.editing.families.instruct.klein import Klein
from diffgen.editing.families.instruct.kontext import Kontext
from diffgen.editing.families.instruct.longcat import LongCat
from diffgen.editing.families.instruct.pix2pix import Pix2Pix
from diffgen.editing.families.instruct.qwen_edit import QwenEdit
from diffgen.editing.pipelines.codecs import codec_of
from diffgen.editing.pipelines.latents import pooled
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.errors import TransientError
from diffgen.models.load_network import memory_errors
from diffgen.models.pipelines import AdapterName, spec_of
from diffgen.types import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.editing.pipelines.codecs import Codec
    from diffgen.models.model import Model


class Adapter(Protocol):
    """Calls one kind of pipeline such that it neither crops nor scales. Made from the pipeline and its codec."""

    def edited(self, source: Any, batch: EditBatch, prompts: Sequence[str]) -> Any:
        """The whole edit as source latents (B, C, h, w) float32, for `source` latents of that shape.

        `source` was encoded from the batch's images; `prompts` are what the model reads for each job. The batch's `watch`
        is shown the noise at the start, and the images at a few steps where the pipeline allows it.
        """


_ADAPTERS: dict[AdapterName, Callable[[Any, Codec], Adapter]] = {
    "pix2pix": Pix2Pix,
    "kontext": Kontext,
    "klein": Klein,
    "qwen_edit": QwenEdit,
    "longcat": LongCat,
}

# The lowest percentage that a model is told. Below it the latents are interpolated instead.
LEAST_SEVERITY = 5


def load(model: Model, device: str, dtype: str) -> Instruct:
    return Instruct(load_pipeline("instruct", model, device, dtype))


def severity_and_share(strength: float) -> tuple[int, float]:
    """The percentage that a model is told, in steps of 5, and the share of the change that is then taken.

    Together they never fall as the strength rises from 0: below .05 the percentage stays 5 and the share falls to 0.
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


FAMILY = Family("instruct", load, effective_strength, effective_object_strength)


def resolved_prompt(prompt: str, settings: Settings) -> str:
    """What the model reads. The prompt is put in last, because it may contain braces."""
    if settings.severity is None:
        return prompt
    percent, _ = severity_and_share(settings.strength)
    return settings.severity.replace("{percent}", str(percent)).replace("{prompt}", prompt)


class Instruct:
    def __init__(self, pipe: Any) -> None:
        adapter = spec_of(pipe).adapter
        assert adapter is not None
        self._pipe = pipe
        self._codec = codec_of(pipe)
        self._adapter = _ADAPTERS[adapter](pipe, self._codec)

    def round_trip(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Editor.round_trip`."""
        return self._codec.round_trip(image)

    def edit(self, batch: EditBatch) -> list[Edited | TransientError]:
        """See `Editor.edit`. Raises ValueError for sides that do not divide by the model's `multiple`."""
        import torch

        self._codec.check_images(batch.images)
        settings = batch.settings
        with memory_errors(len(batch.jobs)), torch.inference_mode():
            source = self._codec.encode(batch.images)
            if settings.strength > 0:
                prompts = [resolved_prompt(job.prompt, settings) for job in batch.jobs]
                edited = self._adapter.edited(source, batch, prompts)
                share = severity_and_share(settings.strength)[1] if settings.severity else settings.strength
                if batch.masks is not None and settings.object_strength is not None:
                    fall = 1 - settings.object_strength / settings.strength
                    share = share * (1 - max(0.0, fall) * pooled(batch.masks, source))
                # lerp is exact at both ends, so that strength 1 is the whole edit to the last bit.
                source = torch.lerp(source, edited, share)
            made = self._codec.decode(source)
        return batch.results(made, effective_strength(settings), effective_object_strength(settings))
