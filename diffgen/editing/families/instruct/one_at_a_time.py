"""Edits by pipelines that take one picture a call, because their language model reads the picture with the prompt.

By themselves they would bring every source to about a megapixel, which is another size than that of the edit.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.editing.editor import EditBatch
from diffgen.editing.pipelines.callbacks import Watch, from_noise
from diffgen.editing.pipelines.codecs import Codec
from diffgen.editing.pipelines.latents import noise
from diffgen.editing.pipelines.prompts import has_second_pass
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.models.load_network import quiet
from diffgen.models.pipelines import spec_of
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class OneAtATime(ABC):
    """The loop over a batch's pictures, and the call for each. Subclasses name the arguments of their own."""

    calls_back = True  # whether the pipeline has step callbacks

    def __init__(self, pipe: Any, codec: Codec) -> None:
        self._pipe, self._codec = pipe, codec
        self._source: Any = None  # the source latents of the picture in hand, (1, C, h, w), as the model takes them
        self._schedulers = Schedulers(pipe.scheduler)
        logger.warning("this model edits pictures one at a time, whatever the batch size: %s", type(pipe).__name__)

    def edited(self, source: Any, batch: EditBatch, prompts: Sequence[str]) -> Any:
        """See `Adapter`."""
        import torch

        start, generators = noise(batch.jobs, source.shape[1:], batch.views, self._codec.factor)
        self._pipe.scheduler = self._schedulers.get(batch.settings)
        watch = batch.watch if len(batch.jobs) == 1 else None  # it expects whole batches, and here pictures run in turn
        rows = [
            self._one(source[i : i + 1], start[i : i + 1], batch.images[i], job, prompts[i], generators[i], watch)
            for i, job in enumerate(batch.jobs)
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
        """The edit of one picture as source latents, for `source` latents and `start` noise, all (1, C, h, w)."""
        from PIL import Image

        pipe, codec, guidance = self._pipe, self._codec, job.settings.guidance
        guided = has_second_pass(spec_of(pipe).second_pass, pipe, guidance)
        self._source = codec.to_model(source)
        tokens = codec.pack(start).to(source.device)
        with quiet():
            made = pipe(
                **from_noise(watch, lambda latents: codec.shown(latents, source.shape[2:]), tokens, self.calls_back),
                image=Image.fromarray(image),
                prompt=self._fitted(prompt),
                latents=tokens,
                num_inference_steps=job.settings.steps,
                generator=generator,
                output_type="latent",
                **self._arguments(image, job.negative_prompt or "", guidance if guided else None),
            ).images
        return codec.from_model(codec.unpack(made, source.shape[2:]))

    def _fitted(self, text: str) -> str:
        """The text without what is too long for the model."""
        return text

    @abstractmethod
    def _arguments(self, image: NDArray[np.uint8], negative: str, guidance: float | None) -> dict[str, Any]:
        """The pipeline's arguments for the negative prompt, the guidance (None: no second pass) and the size."""
