"""Editors: one file a family of diffusers pipelines, all behind the same call.

An editor gets upright images that already have the model's working size (sides divisible by `multiple`) and returns
images of exactly that size, in the same order. It knows nothing about files, labels or datasets.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffgen.editors.watching import Watch
from diffgen.errors import UsageError
from diffgen.geometry import View
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models import Model

FAMILIES = ("img2img", "instruct", "controlnet", "inpaint", "text2img")


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


def check_family(editor: str) -> None:
    """Raises UsageError for a family that there is no file for."""
    if editor not in FAMILIES:
        raise UsageError(f"editor '{editor}' is not known", f"use one of: {', '.join(FAMILIES)}")


def check_class(model: Model) -> None:
    """Raises UsageError where the model's class is known and its editor has no use for it."""
    check_family(model.editor)
    if model.pipeline is None:
        return
    classes = importlib.import_module(f"diffgen.editors.{model.editor}").CLASSES
    if model.pipeline not in classes:
        asked = "controls:" if model.editor == "controlnet" else "editor:"
        raise UsageError(
            f"model '{model.name}' is a {model.pipeline}, which the editor '{model.editor}' cannot use",
            f"remove `{asked}`, or use a model of class {' or '.join(sorted(classes))}",
        )


def load_editor(model: Model, device: str, dtype: str) -> Editor:
    """Load the model's pipeline; `device` "cpu", "cuda", "cuda:1", "mps"; `dtype` "float32", "float16", "bfloat16"."""
    check_family(model.editor)
    family = importlib.import_module(f"diffgen.editors.{model.editor}")
    editor: Editor = family.load(model, device, dtype)
    return editor


def effective_strength(settings: Settings) -> float:
    """The strength that an image with these settings really gets. Imports no torch, so that plans can ask."""
    check_family(settings.editor)
    return float(importlib.import_module(f"diffgen.editors.{settings.editor}").effective_strength(settings))


def effective_object_strength(settings: Settings) -> float | None:
    """The same of its labelled objects; None where they get the scene's."""
    check_family(settings.editor)
    found: float | None = importlib.import_module(f"diffgen.editors.{settings.editor}").effective_object_strength(
        settings
    )
    return found
