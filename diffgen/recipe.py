"""The recipe: a YAML file as the user writes it, checked, with every error naming file, line and the nearest right key.

Knows the presets and defaults; reads no dataset and no model.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from diffgen.annotate import LEAST_CONFIDENCE
from diffgen.errors import UsageError, did_you_mean, why
from diffgen.faults import Misplaced, readable
from diffgen.hub import HUB_ID
from diffgen.overrides import expand, override
from diffgen.yamltree import compose, construct


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Select(_Strict):
    """Which sources are edited. Chosen by hash, so the choice is stable as the dataset grows."""

    splits: list[str] = Field(default=["train"], description="splits that are edited; the others are carried over")
    classes: list[str] | None = Field(None, description="only sources that hold an object of one of these classes")
    share: float = Field(1.0, gt=0, le=1, description="share of the sources")
    max: int | None = Field(None, ge=1, description="at most this many sources")


class Checks(_Strict):
    """Thresholds over recorded facts; `null` turns one off. Changing them makes no image anew."""

    structure: float | None = Field(0.2, ge=-1, le=1, description="agreement of the objects (lower quartile), at least")
    registration: float | None = Field(3.0, ge=0, description="shift against the source in pixels, at most")
    contrast: float | None = Field(
        0.02, ge=0, le=1, description="deviation of the luminance, at least (degenerate image)"
    )
    happened: float | None = Field(
        0.1, ge=0, le=2, description="how far the picture moved the condition's way, at least; 1 is a plain case"
    )
    recall: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="share of what the detector finds in the source that it must find again, at half the confidence, in the "
        "picture or in a copy brought to the source's brightness; needs `detector`",
    )
    clip: float | None = Field(
        0.0,
        ge=-1,
        le=1,
        description="how much nearer to the prompt the edit brings the CLIP score, at least; needs `clip`",
    )
    confidence: float = Field(
        0.35,
        ge=LEAST_CONFIDENCE,
        le=1,
        description="text2img: a detection of this confidence or more becomes a label row; a picture without one of its "
        "own class is rejected",
    )
    review_below: float | None = Field(
        0.6, ge=0, le=1, description="text2img: pictures with a label row below this confidence are marked for review"
    )
    on_object_lost: Literal["reject", "drop_label", "restore"] = Field(
        "reject",
        description="where objects fall below `structure`: reject the image; drop_label: keep it without their rows; "
        "restore: make it again with the source's objects (needs attempts of 2 or more, and other images than `reject`)",
    )
    new_objects: int | None = Field(
        2, ge=0, description="confident detections where nothing was, at most; needs `detector`"
    )


class Objects(_Strict):
    """How the labelled objects are treated beside the scene."""

    strength: float | None = Field(
        None, ge=0, le=1, description="of the change inside labelled objects, at most the scene's; default: the scene's"
    )
    feather: int = Field(
        12, ge=0, le=512, description="pixels of the working size over which it fades into the scene's"
    )
    detail: float | None = Field(
        None, ge=0, le=1, description="share of the source's fine detail brought back inside objects"
    )


EDGE_MAPS = ("canny", "softedge")  # kinds of controls that hold shadows and kerbs, too
LEAST_TASK_STRENGTH = 0.8  # of remove and insert; a fifth of the source's amplitude is left there


class Control(_Strict):
    """A map of the source that a ControlNet holds the edit to."""

    kind: Literal["canny", "softedge", "depth", "segmentation", "own"] = Field(
        description="what the map shows; own: whatever the maps in `folder` show"
    )
    model: str = Field(description="the ControlNet: hub id (OWNER/NAME, also OWNER/NAME@REVISION) or folder")
    weight: float = Field(1.0, ge=0, le=2, description="how strongly it guides (conditioning scale); 0 is off")
    estimator: str | None = Field(
        None, description="depth and segmentation: the model that makes the maps, hub id or folder"
    )
    folder: str | None = Field(
        None, description="maps of your own instead: FOLDER/SPLIT/NAME.png or FOLDER/NAME.png per source"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Control:
        if self.estimator is not None and self.kind not in ("depth", "segmentation"):
            raise ValueError(f"'{self.kind}' takes no estimator; only depth and segmentation do")
        if self.estimator is not None and self.folder is not None:
            raise ValueError("give estimator or folder, not both")
        if self.kind == "own" and self.folder is None:
            raise ValueError("'own' needs a folder: that of your maps")
        if self.kind in ("depth", "segmentation") and self.estimator is None and self.folder is None:
            raise ValueError(
                f"'{self.kind}' needs an estimator (a {self.kind} model), or a folder with maps of your own"
            )
        return self


class Condition(_Strict):
    """A named change. A preset's fields fill what the recipe leaves out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="letters, digits, '.', '_' and '-'")
    prompt: str = Field(min_length=1, description="the wanted photograph; {objects} becomes the image's classes")
    instruction: str | None = Field(None, description="the change, for instruct editors; default: the prompt")
    negative_prompt: str | None = Field(None, description="what should not be seen")
    strength: float = Field(
        0.6,
        ge=0,
        le=1,
        description="0: the source itself, 1: as much change as the model can make; default with a task: 1",
    )
    task: Literal["background", "remove", "insert"] | None = Field(
        None,
        description="paint a part anew, with an inpaint model: background: all but the labelled objects; remove: objects, "
        "and their labels go; insert: an object more, with its label, which the `detector` must confirm",
    )
    classes: list[str] | None = Field(
        None, min_length=1, description="remove: what goes (default: every object); insert: what comes, one class"
    )
    share: float = Field(1.0, gt=0, le=1, description="share of the selected sources that get this condition")
    steps: int | None = Field(None, ge=1, le=200, description="denoising steps run; default: the model's")
    guidance: float | None = Field(None, ge=0, description="classifier-free guidance; default: the model's")
    image_guidance: float | None = Field(None, ge=0, description="guidance by the source, instruct editors only")
    scheduler: str | None = Field(None, description="diffusers scheduler; default: the model's")
    objects: Objects | None = Field(None, description="objects' settings that differ from the recipe's")
    detail: float | None = Field(None, ge=0, le=1, description="detail that differs from the recipe's")
    controls: list[Control] | None = Field(None, description="in place of the recipe's; [] for none")
    edges: bool = Field(
        True, description="false: of the recipe's controls leave out canny and softedge, where others are left"
    )
    checks: Checks | None = Field(None, description="thresholds that differ from the recipe's")

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, value: Any) -> Any:
        """`snow` and `{night: {strength: .7}}` become full mappings; a task paints from noise if nothing else is said."""
        if isinstance(value, str):
            return _preset(value)
        if isinstance(value, dict) and value.get("task") and "strength" not in value:
            return {**value, "strength": 1.0}
        if isinstance(value, dict) and len(value) == 1:
            (name, changes) = next(iter(value.items()))
            if isinstance(name, str) and name not in cls.model_fields:
                if changes is not None and not isinstance(changes, dict):
                    raise ValueError(f"the settings of '{name}' must be a mapping")
                return {**_preset(name), **(changes or {})}
        return value

    @model_validator(mode="after")
    def _whole_task(self) -> Condition:
        if self.classes is not None and self.task not in ("remove", "insert"):
            raise ValueError("classes: only for task: remove and task: insert; select.classes chooses the sources")
        if self.task == "insert" and (self.classes is None or len(self.classes) != 1):
            raise ValueError("task: insert needs classes: with exactly one class; write a condition for each class")
        if self.task in ("remove", "insert") and self.strength < LEAST_TASK_STRENGTH:
            raise ValueError(
                f"strength {self.strength:g} with task: {self.task}: below {LEAST_TASK_STRENGTH} what was there shows "
                "through, and the labels would not be true"
            )
        return self


class CocoSplit(_Strict):
    images: str = Field(description="folder that the annotations' file names are relative to")
    annotations: str = Field(description="instances .json")


class CocoDataset(_Strict):
    """COCO instances: boxes, or polygons for all objects when one has a polygon. Crowd regions are left out, and counted."""

    format: Literal["coco"]
    train: CocoSplit | None = None
    val: CocoSplit | None = None
    test: CocoSplit | None = None


class VocSplit(_Strict):
    images: str = Field(description="folder of images")
    annotations: str = Field(description="folder of .xml files, named like the images")
    list: str | None = Field(
        None, description="text file naming the split's images, one a line (ImageSets/Main/train.txt)"
    )


class VocDataset(_Strict):
    """Pascal VOC boxes. Classes are sorted by name over all splits."""

    format: Literal["voc"]
    one_based: bool = Field(True, description="pixels count from 1 and the last one is in the box, as in VOC itself")
    train: VocSplit | None = None
    val: VocSplit | None = None
    test: VocSplit | None = None


def _dataset_form(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("format"))
    return value.format if isinstance(value, (CocoDataset, VocDataset)) else "yolo"


class Resolution(_Strict):
    """The working size. Without `long_side` the model's native one; smaller sources keep their own size if it can."""

    mode: Literal["fit", "tile"] = Field(
        "fit",
        description="fit: the whole picture is scaled to the working size and back; tile: worked on at its own size, in "
        "overlapping tiles of the working size, for small objects in large pictures (slower)",
    )
    long_side: int | None = Field(None, ge=64, le=8192, description="pixels")


class ImageFile(_Strict):
    format: Literal["jpg", "png", "webp"] = Field("jpg", description="of the made images: jpg (4:4:4), png or webp")
    quality: int = Field(95, ge=1, le=100, description="jpg and webp only")


class Require(_Strict):
    accepted: float = Field(
        0.0, ge=0, le=1, description="share of planned images that must be accepted, else exit code 3"
    )


class LoraEntry(_Strict):
    """Low-rank changes to the model's weights, in safetensors: a file here, or one in a repository of the hub."""

    file: str | None = Field(None, description=".safetensors file")
    hub: str | None = Field(None, description="hub id, instead of a file")
    weight_name: str = Field("pytorch_lora_weights.safetensors", description="the file in the hub's repository")
    revision: str | None = Field(None, description="of the hub's repository")
    weight: float = Field(1.0, ge=-4, le=4, description="how much of the change is added; 1: as trained")

    @model_validator(mode="after")
    def _one_place(self) -> LoraEntry:
        if (self.file is None) == (self.hub is None):
            raise ValueError("give either file or hub")
        if self.hub is not None and not HUB_ID.fullmatch(self.hub):
            raise ValueError(f"'{self.hub}' is no hub id: write OWNER/NAME")
        return self


class TextToImage(_Strict):
    """Pictures made from noise and labelled by the `detector`, where there is no dataset. The weaker way."""

    classes: list[str] = Field(min_length=1, description="the made dataset's classes; the detector must know them")
    templates: list[str] = Field(
        ["a photo of {class}, {condition}"],
        min_length=1,
        description="prompts, taken in turn; {class} becomes 'a car', {condition} what the condition's prompt says after "
        "{objects} (all of it where that does not stand there)",
    )
    images: int = Field(ge=1, le=1_000_000, description="pictures for each class and condition")
    width: int | None = Field(None, ge=64, le=8192, description="pixels; default: the model's native size")
    height: int | None = Field(None, ge=64, le=8192, description="pixels; default: the model's native size")

    @model_validator(mode="after")
    def _whole(self) -> TextToImage:
        if twice := [name for name in self.classes if self.classes.count(name) > 1]:
            raise ValueError(f"classes: '{twice[0]}' stands twice")
        if empty := [name for name in self.classes if not name.strip()]:
            raise ValueError(f"classes: {empty[0]!r} is no name")
        for template in self.templates:
            if lacking := [word for word in ("{class}", "{condition}") if word not in template]:
                raise ValueError(f"templates: '{template}' lacks {lacking[0]}")
        return self


# What compares with a source, or treats one: of no meaning where pictures are made from noise.
_OF_SOURCES = ("select", "objects", "detail", "controls", "resolution", "clip", "include_sources")


class Recipe(_Strict):
    """A run: which dataset, which model, which conditions, which checks."""

    dataset: (
        Annotated[
            Annotated[str, Tag("yolo")] | Annotated[CocoDataset, Tag("coco")] | Annotated[VocDataset, Tag("voc")],
            Discriminator(_dataset_form),
        ]
        | None
    ) = Field(None, description="data.yaml of a YOLO dataset, or a mapping with format: coco or voc")
    text2img: TextToImage | None = Field(
        None,
        description="in place of a dataset: pictures made from noise, labelled by the `detector` (the weaker way): "
        "text-to-image.md",
    )
    output: str = Field(description="the run folder")
    model: str | dict[str, Any] = Field("pocket", description="alias, hub id, folder, .safetensors file, or a mapping")
    editor: str | None = Field(
        None, description="img2img, instruct, controlnet or inpaint; default: what the model's class says"
    )
    loras: list[LoraEntry] | None = Field(
        None,
        min_length=1,
        description="LoRAs added to the model: each a `file` or a `hub` id with `weight_name`, and a `weight`: models.md",
    )
    select: Select = Select()
    conditions: list[Condition] = Field(min_length=1, description="preset names, adjusted presets, or your own")
    assign: Literal["all", "one"] = Field("all", description="all: every condition for every source; one: one of them")
    variants: int = Field(1, ge=1, le=1000, description="images per source and condition, with different seeds")
    attempts: int = Field(
        1, ge=1, le=10, description="a rejected image is made again with less strength, so often in all"
    )
    objects: Objects = Objects()
    detail: float | None = Field(None, ge=0, le=1, description="share of the source's fine detail brought back")
    controls: list[Control] = Field([], description="maps that ControlNets hold the edit to; see below")
    resolution: Resolution = Resolution()
    detector: str | None = Field(
        None,
        description="Ultralytics weights, a file: what it finds in source and edited picture is recorded; with text2img "
        "also an OWLv2 or Grounding DINO model, hub id or folder",
    )
    clip: str | None = Field(
        None,
        description="a CLIP model, a folder, OWNER/NAME or OWNER/NAME@REVISION: its scores of source and edited picture are "
        "recorded",
    )
    checks: Checks = Checks()
    require: Require = Require()
    include_sources: Literal["copy", "link", "none"] = Field(
        "copy", description="the edited splits' own images in the exported dataset"
    )
    val_from_train: float | None = Field(
        None, gt=0, lt=1, description="share of train made val when the source has none"
    )
    image: ImageFile = ImageFile()
    seed: int = Field(0, ge=0, lt=2**63, description="another seed: other snow, other selection")
    device: str = Field(
        "auto",
        description="auto, cpu, cuda, cuda:N or mps; `diffgen doctor RECIPE` says whether it is here, `plan` does not",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field("auto", description="auto: float32 on a CPU")
    memory: Literal["auto", "resident", "16gb", "8gb"] = Field(
        "auto", description="how the model is laid out on a GPU: whole, or as fits a card; see models.md"
    )
    batch_size: Literal["auto"] | int = Field(
        "auto", description="images per batch; kept for the life of the run folder"
    )

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
                raise ValueError("dataset: this key is missing (or text2img, to make pictures without one)")
            return self
        if self.dataset is not None:
            raise ValueError("dataset and text2img exclude each other: a dataset is edited, or one is made from noise")
        if self.detector is None:
            raise ValueError(
                "text2img: nothing would label what is made: name a detector of these classes in detector: "
                "(Ultralytics weights, or an OWLv2 or Grounding DINO model)"
            )
        if self.editor not in (None, "text2img"):
            raise ValueError(f"editor '{self.editor}' edits pictures, and text2img makes them: remove editor:")
        fields = type(self).model_fields
        useless = [key for key in _OF_SOURCES if getattr(self, key) != fields[key].default]
        for condition in self.conditions:
            own = ("objects", "detail", "controls", "task")
            useless += [f"conditions: '{condition.name}': {key}" for key in own if getattr(condition, key) is not None]
        if useless:
            raise ValueError(f"{useless[0]}: of no meaning with text2img, which has no sources; remove it")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [condition.name for condition in self.conditions]
        if twice := [(i, name) for i, name in enumerate(names) if name in names[:i]]:
            i, name = twice[0]
            raise Misplaced(f"the name '{name}' stands twice; give one of them another name", ("conditions", i))
        if self.detector is None and (unsure := [c.name for c in self.conditions if c.task == "insert"]):
            raise ValueError(
                f"conditions: '{unsure[0]}' inserts an object, and nothing would see whether it is there: name the "
                "weights of a detector of that class in detector:"
            )
        restored = [c for c in self.conditions if self.checks_for(c).on_object_lost == "restore"]
        if restored and self.attempts == 1:
            own = restored[0].checks is not None and "on_object_lost" in restored[0].checks.model_fields_set
            above = ("conditions", self.conditions.index(restored[0])) if own else ()
            raise Misplaced(
                "restore makes a rejected image again, and attempts: 1 leaves no other try; write attempts: 2 or more",
                (*above, "checks", "on_object_lost"),
            )
        return self

    def checks_for(self, condition: Condition) -> Checks:
        """The recipe's thresholds, with those that the condition sets in their place."""
        own = condition.checks
        return (
            self.checks.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
            if own
            else self.checks
        )

    def objects_for(self, condition: Condition) -> Objects:
        """The recipe's treatment of objects, with what the condition sets in its place."""
        own = condition.objects
        return self.objects.model_copy(update={key: getattr(own, key) for key in own.model_fields_set} if own else {})

    def controls_for(self, condition: Condition) -> list[Control]:
        """The recipe's control maps, without edges for a condition that they do not suit, or its own in their place."""
        if condition.controls is not None:
            return condition.controls
        others = [control for control in self.controls if control.kind not in EDGE_MAPS]
        return self.controls if condition.edges or not others else others


class LoadedRecipe:
    """A recipe with the place it was read from and the text it was written in."""

    def __init__(self, recipe: Recipe, path: Path, raw: dict[str, Any]) -> None:
        self.recipe = recipe
        self.path = path
        self.raw = raw

    @property
    def base(self) -> Path:
        return self.path.parent

    @property
    def detector(self) -> Path | None:
        """The weights of the detector that compares with sources; that of text2img is one of the model's networks.

        Raises UsageError when there is no such file: Ultralytics would download it.
        """
        if self.recipe.detector is None or self.recipe.text2img is not None:
            return None
        path = self.base / os.path.expanduser(self.recipe.detector)
        if not path.is_file():
            raise UsageError(
                f"detector: there is no file {path}", "give an Ultralytics .pt file, its path relative to the recipe"
            )
        return path

    def _is_here(self, detector: str) -> bool:
        """Whether the detector is a path, and not the hub id of an open-vocabulary one."""
        return self.recipe.text2img is None or (self.base / os.path.expanduser(detector)).exists()

    @property
    def output(self) -> Path:
        return Path(os.path.realpath(self.base / self.recipe.output))  # which a loop of links does not break

    def to_yaml(self, folder: Path, names: Container[str] = ()) -> str:
        """The recipe with its defaults, as kept in the run folder: paths relative to it, `${ENV}` unexpanded.

        `names` are the models that go by a name, also where a folder of that name lies beside the recipe.
        """
        data = self.recipe.model_dump()
        for condition, fields in zip(self.recipe.conditions, data["conditions"], strict=True):
            for key, own in (("checks", condition.checks), ("objects", condition.objects)):
                if own is not None:  # what it leaves to the recipe must stay so
                    fields[key] = own.model_dump(exclude_unset=True)
        for path, value in list(_leaves(data)):
            written = _lookup(self.raw, path)
            if isinstance(written, str) and "${" in written and isinstance(value, (str, int, float)):
                _put(data, path, written)
        expanded = self.recipe.model_dump()["dataset"]
        if expanded is None:
            pass  # text2img
        elif isinstance(expanded, str):
            data["dataset"] = _rebase(str(data["dataset"]), expanded, self.base, folder)
        else:
            for keys, value in list(_leaves(expanded)):
                if keys[-1] in ("images", "annotations", "list") and value is not None:
                    _put(data["dataset"], keys, _rebase(str(_lookup(data["dataset"], keys)), value, self.base, folder))
        data["output"] = "."
        if (detector := self.recipe.detector) is not None and self._is_here(detector):
            data["detector"] = _rebase(str(data["detector"]), detector, self.base, folder)
        if (clip := self.recipe.clip) is not None and (self.base / os.path.expanduser(clip)).is_dir():
            data["clip"] = _rebase(str(data["clip"]), clip, self.base, folder)
        for i, lora in enumerate(self.recipe.loras or ()):
            if lora.file is not None:
                data["loras"][i]["file"] = _rebase(str(data["loras"][i]["file"]), lora.file, self.base, folder)
        spec = self.recipe.model
        if isinstance(spec, str) and spec not in names and (self.base / spec).exists():
            data["model"] = _rebase(str(data["model"]), spec, self.base, folder)
        elif isinstance(self.recipe.model, dict):
            for key in ("file", "config", "folder"):
                if isinstance(place := self.recipe.model.get(key), str):
                    data["model"][key] = _rebase(str(data["model"][key]), place, self.base, folder)
        written = [data["controls"], *(fields["controls"] for fields in data["conditions"])]
        meant = [self.recipe.controls, *(condition.controls for condition in self.recipe.conditions)]
        for texts, controls in zip(written, meant, strict=True):
            for text, control in zip(texts or (), controls or (), strict=True):
                for key in ("model", "estimator", "folder"):
                    value = getattr(control, key)
                    if value is not None and (key == "folder" or (self.base / value).exists()):
                        text[key] = _rebase(str(text[key]), value, self.base, folder)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


@lru_cache(maxsize=1)
def presets() -> dict[str, dict[str, Any]]:
    """The presets of conditions.yaml, by name."""
    data: dict[str, dict[str, Any]] = yaml.safe_load((files("diffgen") / "conditions.yaml").read_text("utf-8"))
    return data


def _preset(name: str) -> dict[str, Any]:
    if name not in presets():
        raise ValueError(f"there is no preset '{name}'{did_you_mean(name, presets())}; 'diffgen conditions' lists them")
    return {"name": name, **presets()[name]}


def load_recipe(path: Path, sets: Sequence[str] = (), output: Path | None = None) -> LoadedRecipe:
    """Read and check a recipe file, or the recipe of a run folder. `sets` are `key=value` overrides, the value as YAML.

    Raises UsageError naming the file, the line and what to do.
    """
    if path.is_dir():
        folder, path = path, path / "recipe.yaml"
        if not path.is_file():
            raise UsageError(
                f"{folder} is not a run folder: it has no recipe.yaml", "give a recipe, or the folder of a run"
            )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe: {why(error)}", "give the path of a recipe file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the recipe is not UTF-8 text", "save it as UTF-8") from None
    root = compose(text, path)
    raw = construct(root, path)
    if not isinstance(raw, dict):
        raise UsageError(
            f"{path}: a recipe is a mapping, this {_kind(raw)}", "see 'diffgen schema' or configs/quickstart.yaml"
        )
    for item in sets:
        override(raw, item)
    if output is not None:
        raw["output"] = str(output.absolute())
    return _checked(raw, path, root)


def overridden(loaded: LoadedRecipe, sets: Sequence[str]) -> LoadedRecipe:
    """The same recipe with more `key=value` overrides. Raises UsageError as `load_recipe` does."""
    raw = copy.deepcopy(loaded.raw)
    for item in sets:
        override(raw, item)
    return _checked(raw, loaded.path, None)


def _checked(raw: dict[str, Any], path: Path, root: Any) -> LoadedRecipe:
    try:
        recipe = Recipe.model_validate(expand(raw, path))
    except ValidationError as error:
        raise readable(error, path, root, Recipe) from None
    except UnicodeEncodeError as error:  # pydantic cannot hand on a fault whose words hold a byte that is not UTF-8
        text = error.object
        raise UsageError(f"{path}: {text}", "write it out, as UTF-8 text") from None
    return LoadedRecipe(recipe, path.absolute(), raw)


def _kind(value: Any) -> str:
    if value is None:
        return "is empty"
    return f"is a {({list: 'list', str: 'text', bool: 'yes or no'}).get(type(value), 'number')}"


# --- the copy in the run folder -------------------------------------------------------------------------------------


def _leaves(value: Any, path: tuple[int | str, ...] = ()) -> Iterable[tuple[tuple[int | str, ...], Any]]:
    items: Iterable[tuple[int | str, Any]]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, item in items:
        yield from _leaves(item, (*path, key))


def _lookup(raw: Any, path: Sequence[int | str]) -> Any:
    for part in path:
        if isinstance(raw, dict) and part not in raw and len(raw) == 1:
            raw = next(iter(raw.values()))  # a preset's own level
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _put(data: Any, path: Sequence[int | str], value: Any) -> None:
    for part in path[:-1]:
        data = data[part]
    data[path[-1]] = value


def _rebase(written: str, expanded: str, base: Path, folder: Path) -> str:
    """A path as seen from the run folder; absolute ones (also through `${ENV}`) stay as they were written."""
    if Path(expanded).is_absolute() or expanded.startswith("~"):
        return written
    return Path(os.path.relpath(base / written, folder)).as_posix()


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
