"""The contract between the worker, which makes batches, and the families of pipelines, which edit them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffgen.dataset.geometry import View
from diffgen.editing.pipelines.callbacks import Watch
from diffgen.errors import NotFinite, TransientError
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models.model import Model


@dataclass(frozen=True, slots=True)
class EditBatch:
    """Images to edit in one go. The jobs share one Settings; prompts and seeds are each job's own.

    `images` are (H, W, 3) uint8 RGB, all of one size. For `text2img` they are blank: only their size counts.
    `masks`, (H, W) float32 in 0–1, say where the change has the settings' `object_strength` (1) instead of `strength` (0);
    for `inpaint`, where it paints (above 0).
    `views` say which part of a larger picture each image is: the parts of one picture share one field of noise. None:
    each image is a whole picture.
    `controls` are each image's control maps, as large as the image, in the order of the settings' `controls`.
    `watch` is shown the images at a few of the steps.

    Raises ValueError where these do not go together. Which sizes a model takes is its family's to check.
    """

    images: Sequence[NDArray[np.uint8]]
    jobs: Sequence[Job]
    masks: Sequence[NDArray[np.float32]] | None = None
    views: Sequence[View] | None = None
    controls: Sequence[Sequence[NDArray[np.uint8]]] | None = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        if not self.images or len(self.images) != len(self.jobs):
            raise ValueError(f"expected one job an image, got {len(self.images)} images and {len(self.jobs)} jobs")
        first = self.images[0].shape
        for image in self.images:
            if image.shape != first or image.shape[2:] != (3,) or image.dtype != "uint8":
                raise ValueError(f"expected uint8 images (H, W, 3) of one size, got {image.dtype} {image.shape}")
        if any(job.settings.digest != self.settings.digest for job in self.jobs):
            raise ValueError("jobs of one batch must share their settings")
        if self.masks is not None and [mask.shape for mask in self.masks] != [first[:2]] * len(self.images):
            raise ValueError("expected a mask as large as its image for each")
        if self.views is not None and len(self.views) != len(self.images):
            raise ValueError(f"expected one view an image, got {len(self.views)} for {len(self.images)}")
        wanted = len(self.settings.controls or ())
        for image, maps in zip(self.images, self.controls or ((),) * len(self.images), strict=True):
            if len(maps) != wanted or any(m.shape != image.shape or m.dtype != image.dtype for m in maps):
                shapes = [m.shape for m in maps]
                raise ValueError(f"expected {wanted} maps as large as the image {image.shape}, got {shapes}")

    @property
    def settings(self) -> Settings:
        """The settings that all jobs of the batch share."""
        return self.jobs[0].settings

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        height, width = self.images[0].shape[:2]
        return height, width

    def results(
        self, edited: Sequence[NDArray[np.uint8] | NotFinite], strength: float, object_strength: float | None = None
    ) -> list[Edited | TransientError]:
        """The edited images with the strengths that they really got; errors as they are.

        Raises AssertionError where an image has another size than its source, because labels would not fit.
        """
        made: list[Edited | TransientError] = []
        for image, source in zip(edited, self.images, strict=True):
            if isinstance(image, NotFinite):
                made.append(image)
                continue
            if image.shape != source.shape:
                raise AssertionError(f"the model made {image.shape} of {source.shape}: labels would not fit")
            made.append(Edited(image, strength, None if self.masks is None else object_strength))
        return made


@dataclass(frozen=True, slots=True)
class Edited:
    """One edited image, (H, W, 3) uint8 RGB, and the strength it really got: a whole number of steps is run.

    `object_strength` is that of the masked objects; None where there was no mask.
    """

    image: NDArray[np.uint8]
    strength: float
    object_strength: float | None = None


class Editor(Protocol):
    """A loaded model. Not thread-safe: the worker calls it from one thread."""

    def edit(self, batch: EditBatch) -> list[Edited | TransientError]:
        """The edited image for each image of the batch, in order, or NotFinite if it contained NaN or infinite values.

        Raises OutOfMemory if the batch does not fit on the device.
        """

    def round_trip(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image (H, W, 3) through the model's VAE and back, unedited. Raises OutOfMemory and NotFinite."""


@dataclass(frozen=True, slots=True)
class Family:
    """One way of editing, shared by all pipeline classes that can be used like this.

    `load` gives the editor for a model, on a device ("cpu", "cuda", "cuda:1", "mps") and with a number type ("float32",
    "float16", "bfloat16"); it is the only part that imports torch. `effective_strength` is the strength that an image
    with these settings really gets, 0 to 1; `effective_object_strength` that of its labelled objects, None where they get
    the scene's.
    """

    name: str
    load: Callable[[Model, str, str], Editor]
    effective_strength: Callable[[Settings], float]
    effective_object_strength: Callable[[Settings], float | None]
