"""Edits by pipelines that take one picture a call, because their language model reads the picture with the prompt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.editing.editor import EditBatch
from diffgen.editing.pipelines.callbacks import Watch
from diffgen.editing.pipelines.codecs import Codec
from diffgen.editing.pipelines.latents import noise
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class OneAtATime:
    """The loop over a batch's pictures. Subclasses call their pipeline in `_one`."""

    def __init__(self, pipe: Any, codec: Codec) -> None:
        self._pipe, self._codec = pipe, codec
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
        raise NotImplementedError
