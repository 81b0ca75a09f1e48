"""The families of diffusers pipelines, one file each, all behind the same call."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

from diffgen.editing.editor import Editor
from diffgen.errors import UsageError
from diffgen.models.model import pipeline_class
from diffgen.types import Settings

if TYPE_CHECKING:
    from diffgen.models.model import Model

FAMILIES = ("img2img", "instruct", "controlnet", "inpaint", "text2img")


def check_family(editor: str) -> None:
    """Raises UsageError for a family that there is no file for."""
    if editor not in FAMILIES:
        raise UsageError(f"editor '{editor}' is not known", f"use one of: {', '.join(FAMILIES)}")


def check_class(model: Model) -> None:
    """Raises UsageError where the model's class is known and its editor has no use for it."""
    check_family(model.editor)
    if model.pipeline is None:
        return
    classes = importlib.import_module(f"diffgen.editing.families.{model.editor}").CLASSES
    if model.pipeline not in classes and model.editor == "text2img":
        raise UsageError(
            f"text2img: model '{model.name}' is a {model.pipeline}, which makes no picture from a text alone",
            "use a text-to-image model, such as sd-turbo, sdxl-turbo, sdxl or flux1-schnell",
        )
    if model.pipeline not in classes:
        asked = "controls:" if model.editor == "controlnet" else "editor:"
        raise UsageError(
            f"model '{model.name}' is a {model.pipeline}, which the editor '{model.editor}' cannot use",
            f"remove `{asked}`, or use a model of class {' or '.join(sorted(classes))}",
        )


def load_editor(model: Model, device: str, dtype: str) -> Editor:
    """Load the model's pipeline; `device` "cpu", "cuda", "cuda:1", "mps"; `dtype` "float32", "float16", "bfloat16"."""
    check_family(model.editor)
    family = importlib.import_module(f"diffgen.editing.families.{model.editor}")
    editor: Editor = family.load(model, device, dtype)
    return editor


def effective_strength(settings: Settings) -> float:
    """The strength that an image with these settings really gets. Imports no torch, so that plans can ask."""
    check_family(settings.editor)
    return float(importlib.import_module(f"diffgen.editing.families.{settings.editor}").effective_strength(settings))


def effective_object_strength(settings: Settings) -> float | None:
    """The same of its labelled objects; None where they get the scene's."""
    check_family(settings.editor)
    found: float | None = importlib.import_module(
        f"diffgen.editing.families.{settings.editor}"
    ).effective_object_strength(settings)
    return found


def choose_class(model: Model, classes: dict[str, str]) -> str:
    """The class that edits with this model. `classes` maps the class its files name to the class that the editor uses."""
    own = pipeline_class(model)
    check_class(replace(model, pipeline=own))
    return classes[own]
