"""The settings of a condition's jobs, from the recipe and the model."""

from __future__ import annotations

from dataclasses import replace

from diffgen.dataset.dataset import Dataset
from diffgen.editing.edit_version_2 import EDIT_VERSION_2, STEPS
from diffgen.editing.families import check_class
from diffgen.editing.levers.lights import lights_for
from diffgen.editing.pipelines.schedulers import Options, chosen_scheduler
from diffgen.errors import UsageError
from diffgen.models.model import Model
from diffgen.plan.select import Edit
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Condition
from diffgen.types import EDIT_VERSION, ControlInput, Lights, Match, Sensor, Settings

LCM_LEVELS = 50  # of latent consistency models (diffusers' original_inference_steps)


def edits_of(recipe: Recipe, model: Model, dataset: Dataset, edit_version: int = EDIT_VERSION) -> tuple[Edit, ...]:
    """Every condition with the settings of its jobs for this model. For a range of strengths these are the strongest
    settings; see `levels_of`. Raises UsageError when a condition does not suit the model."""
    edits = []
    for condition in recipe.conditions:
        old = edit_version == EDIT_VERSION_2
        strength = _strength(condition, model, instructed=not old)
        carried_out = condition.model_copy(update={"strength": strength} | ({"skip_if": []} if old else {}))
        classes = _classes(recipe, condition, model, dataset)
        settings = replace(_settings(recipe, carried_out, model, classes), lights=_lights(condition, dataset))
        edits.append((carried_out, _as_in_version_2(settings, condition, model) if old else settings))
    return tuple(edits)


def levels_of(edit: Edit) -> tuple[Settings, ...]:
    """The settings of each level of the condition's strength, weakest first."""
    condition, strongest = edit
    if not isinstance(condition.strength, tuple):
        return (strongest,)
    objects = strongest.object_strength
    levels = []
    for strength in condition.strengths:
        weaker_objects = objects is not None and objects < strength
        levels.append(
            replace(
                strongest,
                strength=strength,
                object_strength=objects if weaker_objects else None,
                feather=strongest.feather if weaker_objects or strongest.object_detail or strongest.task else None,
            )
        )
    return tuple(levels)


def _as_in_version_2(settings: Settings, condition: Condition, model: Model) -> Settings:
    """The settings that diffgen 0.1 had for the same recipe, so that its images are found."""
    return replace(
        settings,
        edit_version=EDIT_VERSION_2,
        steps=condition.steps or STEPS.get(model.name, model.steps),
        long_side=settings.long_side or model.native,
        native=None,
        levels=None,
    )


def _classes(recipe: Recipe, condition: Condition, model: Model, dataset: Dataset) -> tuple[int, ...] | None:
    """Ids of the classes that the condition's task is about; None for all. Raises UsageError for an impossible task."""
    names, task, where = dataset.names, condition.task, f"conditions: '{condition.name}'"
    if task is None:
        if model.editor == "inpaint":
            raise UsageError(
                f"{where} has no task, but model '{model.name}' (inpaint) only repaints parts of a picture",
                "add `task: background`, remove or insert to it; for other conditions use an img2img or instruct model",
            )
        return None
    if model.editor != "inpaint":
        raise UsageError(
            f"{where}: task: {task} does not work with model '{model.name}' ({model.editor})",
            "use an inpaint model, such as sd15-inpaint, or any Stable Diffusion model with `editor: inpaint`",
        )
    if unknown := [name for name in condition.classes or () if name not in names]:
        raise UsageError(
            f"{where}: classes: the dataset has no class '{unknown[0]}'", f"its classes: {', '.join(names)}"
        )
    objects = recipe.objects_for(condition)
    if any(
        (objects.strength is not None, objects.detail, objects.restore, _detail(recipe, condition), condition.sensor)
    ):
        raise UsageError(
            f"{where}: objects.strength, objects.detail, objects.restore, detail, match, lights and sensor do nothing "
            "with a task",
            "remove them: a task leaves the rest of the picture unchanged, and objects.feather sets the blending",
        )
    if task == "insert" and dataset.keypoints is not None:
        raise UsageError(
            f"{where}: `task: insert` cannot label the keypoints of an inserted object",
            "use it with datasets of boxes, segments or OBB",
        )
    if task == "insert" and recipe.resolution.mode == "tile":
        raise UsageError(
            f"{where}: with tiles, an object would be inserted into each tile",
            "use `resolution: {mode: fit}` with `task: insert`",
        )
    return tuple(i for i, name in enumerate(names) if name in condition.classes) if condition.classes else None


def _detail(recipe: Recipe, condition: Condition) -> float | None:
    return recipe.detail if condition.detail is None else condition.detail


def _settings(recipe: Recipe, condition: Condition, model: Model, classes: tuple[int, ...] | None) -> Settings:
    def guidance(value: float | None, default: float) -> float:
        return float(default if value is None else value)

    check_class(model)
    scheduler, options = _scheduler(condition, model)
    long_side = recipe.resolution.long_side
    objects, strength = recipe.objects_for(condition), condition.strengths[-1]
    weaker_objects = objects.strength is not None and objects.strength < strength
    controls = _control_inputs(recipe, condition, model)
    labeller = model.observers.detector if model.editor == "text2img" else None
    if recipe.text2img is not None:
        long_side = max(recipe.text2img.width or model.native, recipe.text2img.height or model.native)
    return Settings(
        # A condition without controls gives the same job ids as in a recipe without controls.
        editor="img2img" if model.editor == "controlnet" and not controls else model.editor,
        model=model.identity,
        condition=condition.name,
        strength=strength,
        steps=condition.steps or model.steps,
        guidance=guidance(condition.guidance, model.guidance),
        image_guidance=(
            None if model.image_guidance is None else guidance(condition.image_guidance, model.image_guidance)
        ),
        scheduler=scheduler,
        scheduler_options=options,
        severity=model.severity,
        # A model that takes small pictures as they are has no area that it was trained for.
        long_side=long_side or (model.native if model.smallest else None),
        smallest=None if long_side else model.smallest,
        native=None if model.smallest else model.native,
        levels=model.levels or (LCM_LEVELS if scheduler in ("lcm", "LCMScheduler") else None),
        mode=recipe.resolution.mode,
        multiple=model.multiple,
        image_format=recipe.image.format,
        quality=None if recipe.image.format == "png" else recipe.image.quality,
        object_strength=objects.strength if weaker_objects else None,
        feather=objects.feather if weaker_objects or objects.detail or condition.task else None,
        object_detail=objects.detail or None,
        object_restore=objects.restore or None,
        detail=_detail(recipe, condition) or None,
        loras=tuple((lora.identity, lora.weight) for lora in model.loras) or None,
        controls=controls or None,
        task=condition.task,
        classes=classes,
        match=None if condition.match is None else Match(condition.match.method, float(condition.match.amount)),
        sensor=_sensor(condition),
        annotator=labeller.identity if labeller else None,
    )


def _strength(condition: Condition, model: Model, instructed: bool) -> float | tuple[float, float]:
    """The scene's strength. Instructions state the change itself, so presets apply them in full if `instructed`; pocket
    gets the strength in its prompt. Text-to-image always starts from noise."""
    if model.editor == "text2img":
        return 1.0
    tells = instructed and model.editor == "instruct" and model.severity is None
    wanted = condition.instruction_strength if tells else None
    return condition.strength if wanted is None else wanted


def _lights(condition: Condition, dataset: Dataset) -> Lights | None:
    if condition.lights is None:
        return None
    lights = lights_for(dataset.names, condition.lights.share, condition.lights.brightness)
    if not (lights.vehicles or lights.two_wheelers or lights.signals):
        raise UsageError(
            f"conditions: '{condition.name}': lights: the dataset has no class that is a vehicle or traffic light",
            f"remove it; its classes: {', '.join(dataset.names)}",
        )
    return lights


def _sensor(condition: Condition) -> Sensor | None:
    if condition.sensor is None:
        return None
    values = {key: getattr(condition.sensor, key) for key in type(condition.sensor).model_fields}
    sensor = Sensor(**{key: v if isinstance(v, tuple) else (float(v), float(v)) for key, v in values.items()})
    return None if sensor == Sensor() else sensor


def _scheduler(condition: Condition, model: Model) -> tuple[str | None, Options | None]:
    wanted = condition.scheduler or model.scheduler
    if wanted is None:
        return None, None
    try:
        return chosen_scheduler(dict(wanted) if isinstance(wanted, tuple) else wanted, model.pipeline)
    except UsageError as error:
        raise UsageError(f"conditions: {condition.name}: {error.message}", error.hint) from None


def _control_inputs(recipe: Recipe, condition: Condition, model: Model) -> tuple[ControlInput, ...]:
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
