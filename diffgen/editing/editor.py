"""The contract between the worker and a family of pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffgen.dataset.geometry import View
from diffgen.editing.pipelines.callbacks import Watch
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Edited:
    """One edited image, (H, W, 3) uint8 RGB, and the strength it really got (steps are whole; see DESIGN of strength)."""

    image: NDArray[np.uint8]
    strength: float
    object_strength: float | None = None  # the same of the masked objects; None where there was no mask


class Editor(Protocol):
    """A loaded model. Not thread-safe: the worker calls it from one thread."""

    def edit(
        self,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        masks: Sequence[NDArray[np.float32]] | None = None,
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
        controls: Sequence[Sequence[NDArray[np.uint8]]] | None = None,
    ) -> list[Edited]:
        """Edit a batch: `images` all (H, W, 3) uint8 of one size, `jobs` sharing one Settings, prompts and seeds their own.

        `masks`, (H, W) in 0–1 each, say where the change has the settings' `object_strength` (1) instead of `strength` (0);
        for `inpaint`, where it paints (above 0) and where not. For `text2img` the images are blank: only their size counts.
        `views` say which part of a larger picture each image is: the parts of one picture share one field of noise.
        `watch` is shown the images at a few steps of the way (noised, and denoised again).
        `controls` are each image's maps, as large as it, in the order of the settings' `controls`; None where those are.
        Raises OutOfMemory when the device has no room for this many.
        """
