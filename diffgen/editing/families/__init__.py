"""The families of diffusers pipelines: one file each, all with the same contract (`editing.editor.Family`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffgen.editing.editor import Editor, Family
from diffgen.editing.families import controlnet, img2img, inpaint, text2img
from diffgen.editing.families.instruct import instruct
from diffgen.errors import UsageError
from diffgen.models.pipelines import class_to_load
from diffgen.types import Settings

if TYPE_CHECKING:
    from diffgen.models.model import Model

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (img2img.FAMILY, instruct.FAMILY, controlnet.FAMILY, inpaint.FAMILY, text2img.FAMILY)
}


def family_of(editor: str) -> Family:
    """The family that a recipe or a model calls `editor`. Raises UsageError when there is none."""
    if editor not in FAMILIES:
        raise UsageError(f"editor '{editor}' is not known", f"use one of: {', '.join(FAMILIES)}")
    return FAMILIES[editor]


def check_class(model: Model) -> None:
    """Raises UsageError where the model's class is known and its family cannot use it."""
    family = family_of(model.editor)
    if model.pipeline is not None:
        class_to_load(family.name, model.pipeline, model.name)


def load_editor(model: Model, device: str, dtype: str) -> Editor:
    """Load the model; see `Family.load`. Raises UsageError or DiffgenError when it cannot be loaded."""
    return family_of(model.editor).load(model, device, dtype)


def effective_strength(settings: Settings) -> float:
    """The strength, 0 to 1, that an image with these settings really gets. Imports no torch, so that plans can ask."""
    return family_of(settings.editor).effective_strength(settings)


def effective_object_strength(settings: Settings) -> float | None:
    """The same for its labelled objects; None where they get the scene's."""
    return family_of(settings.editor).effective_object_strength(settings)
