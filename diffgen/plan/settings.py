"""A condition of the recipe met with the model: the settings of its jobs."""

from __future__ import annotations

from diffgen.dataset.dataset import Dataset
from diffgen.editing.families import check_class
from diffgen.editing.pipelines.schedulers import check_scheduler
from diffgen.errors import UsageError
from diffgen.models.model import Model
from diffgen.plan.select import Edit
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Condition
from diffgen.types import ControlInput, Settings


def edits_of(recipe: Recipe, model: Model, dataset: Dataset) -> tuple[Edit, ...]:
    """Every condition with its settings, as sources get them that it is meant for. Raises UsageError."""
    return tuple(
        (condition, _settings(recipe, condition, model, _classes(recipe, condition, model, dataset)))
        for condition in recipe.conditions
    )


def _classes(recipe: Recipe, condition: Condition, model: Model, dataset: Dataset) -> tuple[int, ...] | None:
    """Ids of the classes that the condition's task is about, None for all. Raises UsageError for a task that cannot be."""
    names = dataset.names
    if (condition.task is None) == (model.editor == "inpaint"):
        if condition.task is None:
            raise UsageError(
                f"conditions: '{condition.name}' has no task, and model '{model.name}' (inpaint) paints parts of a picture",
                "add `task: background`, remove or insert to it; for other conditions use an img2img or instruct model",
            )
        raise UsageError(
            f"conditions: '{condition.name}': task: {condition.task} is not for model '{model.name}' ({model.editor})",
            "use an inpaint model, such as sd15-inpaint, or any Stable Diffusion model with `editor: inpaint`",
        )
    if condition.task is None:
        return None
    if unknown := [name for name in condition.classes or () if name not in names]:
        raise UsageError(
            f"conditions: '{condition.name}': classes: the dataset has no class '{unknown[0]}'",
            f"its classes: {', '.join(names)}",
        )
    objects, detail = recipe.objects_for(condition), recipe.detail if condition.detail is None else condition.detail
    if objects.strength is not None or objects.detail or detail:
        raise UsageError(
            f"conditions: '{condition.name}': objects.strength, objects.detail and detail do nothing with a task",
            "remove them; what is not painted stays the source's own, objects.feather says how it fades",
        )
    if condition.task == "insert" and dataset.keypoints is not None:
        raise UsageError(
            f"conditions: '{condition.name}': nothing knows the keypoints of an object that is inserted",
            "use `task: insert` with datasets of boxes, segments or OBB",
        )
    if condition.task == "insert" and recipe.resolution.mode == "tile":
        raise UsageError(
            f"conditions: '{condition.name}': in tiles an object would be painted into each",
            "use `resolution: {mode: fit}` with `task: insert`",
        )
    return tuple(i for i, name in enumerate(names) if name in condition.classes) if condition.classes else None


def _settings(recipe: Recipe, condition: Condition, model: Model, classes: tuple[int, ...] | None = None) -> Settings:
    def pick(own: float | None, default: float) -> float:
        return default if own is None else own

    check_class(model)
    scheduler = condition.scheduler or model.scheduler
    if scheduler is not None:
        try:
            check_scheduler(scheduler, model.pipeline)
        except UsageError as error:
            raise UsageError(f"conditions: {condition.name}: {error.message}", error.hint) from None
    long_side = recipe.resolution.long_side
    image_guidance = pick(condition.image_guidance, model.image_guidance) if model.image_guidance is not None else None
    objects = recipe.objects_for(condition)
    held = objects.strength is not None and objects.strength < condition.strength
    detail = recipe.detail if condition.detail is None else condition.detail
    controls = _guides(recipe, condition, model)
    labeller = model.observers.detector if model.editor == "text2img" else None
    if recipe.text2img is not None:  # at the size that is asked for, and not at the model's own
        long_side = max(recipe.text2img.width or model.native, recipe.text2img.height or model.native)
    return Settings(
        # A condition without controls is what it would be in a recipe without them.
        editor="img2img" if model.editor == "controlnet" and not controls else model.editor,
        model=model.identity,
        condition=condition.name,
        strength=1.0 if labeller else float(condition.strength),  # from noise, whatever a preset says
        steps=condition.steps or model.steps,
        guidance=float(pick(condition.guidance, model.guidance)),
        image_guidance=None if image_guidance is None else float(image_guidance),
        scheduler=scheduler,
        severity=model.severity,
        long_side=long_side or model.native,
        smallest=None if long_side else model.smallest,
        mode=recipe.resolution.mode,
        multiple=model.multiple,
        image_format=recipe.image.format,
        quality=None if recipe.image.format == "png" else recipe.image.quality,
        object_strength=objects.strength if held else None,
        feather=objects.feather if held or objects.detail or condition.task else None,
        object_detail=objects.detail or None,
        detail=detail or None,
        loras=tuple((lora.digest, lora.weight) for lora in model.loras) or None,
        controls=controls or None,
        task=condition.task,
        classes=classes,
        annotator=labeller.identity if labeller else None,
    )


def _guides(recipe: Recipe, condition: Condition, model: Model) -> tuple[ControlInput, ...]:
    identities = {(network.name, network.role): network.identity for network in model.networks}
    return tuple(
        ControlInput(
            control.kind,
            identities[control.model, "controlnet"],
            float(control.weight),
            None if control.estimator is None else identities[control.estimator, control.kind],
            control.folder,
        )
        for control in recipe.controls_for(condition)
    )
