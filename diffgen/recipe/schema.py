"""The recipe as a whole, the rules between its keys, and its JSON Schema."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from diffgen.recipe.messages import Misplaced
from diffgen.recipe.presets import presets
from diffgen.recipe.sections import (
    EDGE_MAPS,
    Checks,
    CocoDataset,
    Condition,
    Control,
    FilePath,
    ImageFile,
    IsPath,
    LoraEntry,
    Objects,
    PathOrId,
    Require,
    Resolution,
    Section,
    Select,
    TextToImage,
    VocDataset,
)


def _dataset_form(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("format"))
    return value.format if isinstance(value, (CocoDataset, VocDataset)) else "yolo"


# Keys that need a source image, so they mean nothing with text2img.
_OF_SOURCES = ("select", "objects", "detail", "controls", "resolution", "clip", "include_sources")


class Recipe(Section):
    """A run: which dataset, which model, which conditions, which checks."""

    dataset: (
        Annotated[
            Annotated[FilePath, Tag("yolo")] | Annotated[CocoDataset, Tag("coco")] | Annotated[VocDataset, Tag("voc")],
            Discriminator(_dataset_form),
        ]
        | None
    ) = Field(None, description="data.yaml of a YOLO dataset, or a mapping with format: coco or voc")
    text2img: TextToImage | None = Field(
        None,
        description="instead of a dataset: generate images from text and label them with the `detector`, which is less "
        "reliable; see text-to-image.md",
    )
    output: str = Field(description="the run folder")
    model: Annotated[str | dict[str, Any], IsPath(or_id=True, or_alias=True, keys=("file", "config", "folder"))] = (
        Field("pocket", description="alias, hub id, folder, .safetensors file, or a mapping")
    )
    editor: str | None = Field(
        None, description="img2img, instruct, controlnet or inpaint; default: from the model's pipeline class"
    )
    loras: list[LoraEntry] | None = Field(
        None,
        min_length=1,
        description="LoRAs for the model: each a `file` or a `hub` id (with `weight_name`), and a `weight`; see "
        "models.md",
    )
    allow_unknown_words: bool = Field(
        False,
        description="accept words that a model with a small vocabulary (pocket) was not trained on; false: an error",
    )
    select: Select = Select()
    conditions: list[Condition] = Field(min_length=1, description="preset names, adjusted presets, or your own")
    assign: Literal["all", "one"] = Field(
        "all", description="all: every condition for each source; one: one of them for each source"
    )
    variants: int = Field(1, ge=1, le=1000, description="images per source and condition, with different seeds")
    attempts: int = Field(1, ge=1, le=10, description="maximum attempts per image; each retry uses less strength")
    objects: Objects = Objects()
    detail: float | None = Field(None, ge=0, le=1, description="share of the source's fine detail restored everywhere")
    controls: list[Control] = Field([], description="ControlNets and the maps that they follow; see below")
    resolution: Resolution = Resolution()
    detector: PathOrId | None = Field(
        None,
        description="Ultralytics weights file; its detections in source and edit are recorded. With text2img also an "
        "OWLv2 or Grounding DINO model, as hub id or folder",
    )
    clip: PathOrId | None = Field(
        None,
        description="CLIP model: folder, OWNER/NAME or OWNER/NAME@REVISION; its scores of source and edit are recorded",
    )
    checks: Checks = Checks()
    require: Require = Require()
    include_sources: Literal["copy", "link", "none"] = Field(
        "copy",
        description="the source images of the edited splits in the exported dataset: copy, link, or leave out (none)",
    )
    ratio: float | None = Field(
        None,
        gt=0,
        description="maximum number of synthetic images per real image of train: a fixed subset of the accepted ones, "
        "and a larger ratio only adds to it; default: all",
    )
    val_from_train: float | None = Field(
        None, gt=0, lt=1, description="share of train that becomes val, if the dataset has no val split"
    )
    image: ImageFile = ImageFile()
    seed: int = Field(0, ge=0, lt=2**63, description="random seed for the images and the selection")
    device: str = Field(
        "auto",
        description="auto, cpu, cuda, cuda:N or mps; `diffgen doctor RECIPE` checks that it is available",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="precision of the model; auto: half precision on a CUDA GPU, else float32"
    )
    memory: Literal["auto", "resident", "24gb", "16gb", "8gb"] = Field(
        "auto",
        description="how the model is placed on a GPU: resident (whole), or offloaded to fit a card of that size; see "
        "models.md",
    )
    batch_size: Literal["auto"] | int = Field("auto", description="images per batch; fixed once the run folder exists")

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|(cpu|cuda|mps)(:[0-9]+)?", value):
            raise ValueError(f"must be auto, cpu, cuda, cuda:N or mps, got '{value}'")
        return value

    @field_validator("batch_size")
    @classmethod
    def _some(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"must be 'auto' or at least 1, got {value}")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Recipe:
        if self.text2img is None:
            if self.dataset is None:
                raise ValueError("dataset: this key is missing (or use text2img, to generate images without a dataset)")
            return self
        if self.dataset is not None:
            raise ValueError(
                "give dataset or text2img, not both: either a dataset is edited, or images are generated from text"
            )
        if self.detector is None:
            raise ValueError(
                "text2img: the images need labels: set detector: to a model that knows these classes "
                "(Ultralytics weights, or an OWLv2 or Grounding DINO model)"
            )
        if self.editor not in (None, "text2img"):
            raise ValueError(f"editor '{self.editor}' edits images, but text2img generates them: remove editor:")
        fields = type(self).model_fields
        useless = [key for key in _OF_SOURCES if getattr(self, key) != fields[key].default]
        for condition in self.conditions:
            own = ("objects", "detail", "match", "controls", "task")
            useless += [f"conditions: '{condition.name}': {key}" for key in own if getattr(condition, key) is not None]
        if useless:
            raise ValueError(f"{useless[0]}: does nothing with text2img, which has no source images; remove it")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [condition.name for condition in self.conditions]
        if twice := [(i, name) for i, name in enumerate(names) if name in names[:i]]:
            i, name = twice[0]
            raise Misplaced(f"duplicate name '{name}'; give one of them another name", ("conditions", i))
        if self.detector is None and (unsure := [c.name for c in self.conditions if c.task == "insert"]):
            raise ValueError(
                f"conditions: '{unsure[0]}' inserts an object, which a detector must confirm: set detector: to weights "
                "that know its class"
            )
        restored = [c for c in self.conditions if self.checks_for(c).on_object_lost == "restore"]
        if restored and self.attempts == 1:
            own = restored[0].checks is not None and "on_object_lost" in restored[0].checks.model_fields_set
            above = ("conditions", self.conditions.index(restored[0])) if own else ()
            raise Misplaced(
                "restore edits a rejected image again, but attempts: 1 allows only one try; write attempts: 2 or more",
                (*above, "checks", "on_object_lost"),
            )
        return self

    def checks_for(self, condition: Condition) -> Checks:
        """The recipe's thresholds, overridden by those of the condition."""
        own = condition.checks
        return (
            self.checks.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
            if own
            else self.checks
        )

    @property
    def all_controls(self) -> list[Control]:
        """The control maps of all conditions, with repeats."""
        return [control for condition in self.conditions for control in self.controls_for(condition)]

    def objects_for(self, condition: Condition) -> Objects:
        """The recipe's object settings, overridden by those of the condition."""
        own = condition.objects
        return self.objects.model_copy(update={key: getattr(own, key) for key in own.model_fields_set} if own else {})

    def controls_for(self, condition: Condition) -> list[Control]:
        """The condition's controls, or the recipe's; edge maps are dropped if the condition says `edges: false`."""
        if condition.controls is not None:
            return condition.controls
        others = [control for control in self.controls if control.kind not in EDGE_MAPS]
        return self.controls if condition.edges or not others else others


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, with the short forms of a condition."""
    schema = Recipe.model_json_schema()
    schema["anyOf"] = [{"required": ["dataset"]}, {"required": ["text2img"]}]
    schema["$defs"]["ConditionName"] = {"enum": list(presets()), "description": "a preset"}
    adjusted = dict(schema["$defs"]["Condition"])
    adjusted.pop("required", None)
    schema["$defs"]["AdjustedPreset"] = {
        "type": "object",
        "properties": dict.fromkeys(presets(), adjusted),
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
    forms = ["ConditionName", "AdjustedPreset", "Condition"]
    schema["properties"]["conditions"]["items"] = {"anyOf": [{"$ref": f"#/$defs/{form}"} for form in forms]}
    return schema
