"""The sections of a recipe: selection, checks, objects, conditions, dataset formats, image files, LoRAs.

Long because every key has its bounds here, and the description that docs/recipe.md is generated from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
    model_validator,
)

from diffgen.recipe.presets import preset_fields

LEAST_CONFIDENCE = 0.05  # detections below this are not recorded

OLD_NAMES = {"happened": "effect"}  # renamed keys of `checks`: old name -> new name

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class IsPath:
    """Marks a key that holds a path relative to the recipe; the run folder's copy of the recipe rewrites it.

    With `or_id` or `or_alias` the text may also be a hub id or a model's alias; it counts as a path if it exists relative to
    the recipe (and is not an alias). If the value is a mapping, `keys` names its entries that are paths.
    """

    or_id: bool = False
    or_alias: bool = False
    keys: tuple[str, ...] = ()


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] >= value[1]:
        raise ValueError(f"a range starts with its lower end, got [{value[0]:g}, {value[1]:g}]")
    return value


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of a number, or of both ends of a range. pydantic adds the tags to its error locations; recipe.messages
    drops them."""

    low: float
    high: float

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> Any:
        number: Any = Annotated[float, Field(ge=self.low, le=self.high)]
        ends: Any = Annotated[tuple[number, number], AfterValidator(_rising), Tag("range")]
        kind = Discriminator(lambda value: "range" if isinstance(value, (list, tuple)) else "number")
        return handler.generate_schema(Annotated[Annotated[number, Tag("number")] | ends, kind])


Ranged = float | tuple[float, float]

FilePath = Annotated[str, IsPath()]
PathOrId = Annotated[str, IsPath(or_id=True)]


class Select(Section):
    """Which sources are edited. Chosen by hash, so that the choice stays the same while the dataset grows."""

    splits: list[str] = Field(default=["train"], description="splits to edit; the others are copied unchanged")
    classes: list[str] | None = Field(None, description="only sources with an object of one of these classes")
    share: float = Field(1.0, gt=0, le=1, description="share of the sources")
    max: int | None = Field(None, ge=1, description="at most this many sources")
    backgrounds: float | None = Field(
        None,
        ge=0,
        description="pictures without objects to edit, per picture with objects (against false positives): 0.1 is one "
        "for ten; default: those that the other keys select",
    )


class Checks(Section):
    """Thresholds for measured values; `null` turns one off. Changing them needs no new images."""

    structure: float | None = Field(
        0.2,
        ge=-1,
        le=1,
        description="minimum structural agreement of the labelled objects with the source (lower quartile)",
    )
    registration: float | None = Field(3.0, ge=0, description="maximum shift from the source, in pixels")
    contrast: float | None = Field(
        0.02, ge=0, le=1, description="minimum standard deviation of the luminance (below it the image is degenerate)"
    )
    change: float | None = Field(
        2.5,
        ge=0,
        description="minimum distance of the image from its source, in multiples of the distance that the "
        "autoencoder's round trip alone makes; an edit that did nothing scores about 1",
    )
    brightened: float | None = Field(
        0.12,
        ge=0,
        le=1,
        description="maximum luminance (0 to 1) added to a night source whose edges changed: the model then invented "
        "what shows in the dark",
    )
    effect: float | None = Field(
        0.3,
        ge=0,
        le=2,
        validation_alias=AliasChoices("effect", *OLD_NAMES),
        description="minimum effect: how far the image statistics moved towards the condition; 1 is typical",
    )
    recall: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="minimum share of labelled objects found again: of those that the `detector` finds in the source, "
        "at half the confidence, in the image or in a copy of it at the source's brightness",
    )
    clip: float | None = Field(
        0.0,
        ge=-1,
        le=1,
        description="minimum gain in CLIP similarity to the prompt, from the source to the edit; needs `clip`",
    )
    confidence: float = Field(
        0.35,
        ge=LEAST_CONFIDENCE,
        le=1,
        description="text2img: detections of at least this confidence become label rows; an image without a row of its "
        "own class is rejected",
    )
    review_below: float | None = Field(
        0.6, ge=0, le=1, description="text2img: images with a label row below this confidence are marked for review"
    )
    on_object_lost: Literal["reject", "drop_label", "restore"] = Field(
        "reject",
        description="when objects fall below `structure`: reject: reject the image; drop_label: keep it without their "
        "label rows; restore: retry with the source's objects kept (needs attempts: 2 or more; the retries differ from "
        "`reject`'s)",
    )
    new_objects: int | None = Field(
        2, ge=0, description="maximum number of confident detections where the source has none; needs `detector`"
    )


class Objects(Section):
    """How the labelled objects are edited, compared with the rest of the scene."""

    strength: float | None = Field(
        None, ge=0, le=1, description="strength inside labelled objects, at most the scene's; default: the scene's"
    )
    feather: int = Field(
        12,
        ge=0,
        le=512,
        description="width of the transition from objects.strength to the scene's, in pixels of the working size",
    )
    detail: float | None = Field(
        None, ge=0, le=1, description="share of the source's fine detail restored inside objects"
    )
    restore: float | None = Field(
        None,
        ge=0,
        le=1,
        description="objects that keep less structure than this are restored: the source's pixels, relit to match the "
        "edit",
    )


class Matching(Section):
    """Colour and tone of your own unlabelled pictures: each edit moves towards those of one of them."""

    folder: FilePath = Field(description="folder of pictures, or a glob pattern such as night/*.jpg")
    method: Literal["histogram", "reinhard", "fourier"] = Field(
        "histogram",
        description="what is matched: histogram: that of each channel; reinhard: mean and standard deviation in "
        "CIELAB; fourier: the amplitudes of the lowest frequencies",
    )
    amount: float = Field(0.5, gt=0, le=1, description="share of the change that is applied; 1: all of it")


class Lamps(Section):
    """Lamps for night images: headlamps or tail lamps on labelled vehicles, and the lit lens of labelled traffic lights."""

    share: float = Field(0.9, gt=0, le=1, description="share of the vehicles, parked ones aside, whose lamps are lit")
    brightness: float = Field(
        1.0, gt=0, le=4, description="factor on the brightness of the lamps; 1: as on real nights"
    )


class Camera(Section):
    """What a camera adds to the finished image. Each key is a number or a range `[low, high]` to draw from."""

    exposure: Annotated[Ranged, Within(-4, 2)] = Field(0.0, description="exposure change in stops")
    noise: Annotated[Ranged, Within(0, 0.3)] = Field(
        0.0, description="standard deviation of the sensor noise at full light, in linear light; 0.03 is grainy"
    )
    blur: Annotated[Ranged, Within(0, 0.01)] = Field(
        0.0, description="length of the motion blur, as a share of the picture's width"
    )
    glare: Annotated[Ranged, Within(0, 0.5)] = Field(
        0.0, description="share of the light scattered in the lens (veiling glare)"
    )


EDGE_MAPS = ("canny", "softedge")  # these also keep shadows and kerbs
STRENGTH_LEVELS = 5  # levels of a range; few, because a batch holds images of one strength only
LEAST_TASK_STRENGTH = 0.8  # for remove and insert: at 0.8 a fifth of the source's amplitude is left


class Control(Section):
    """A map of the source that a ControlNet makes the edit follow."""

    kind: Literal["canny", "softedge", "depth", "segmentation", "own"] = Field(
        description="kind of map; own: your own maps in `folder`, of any kind"
    )
    model: PathOrId = Field(description="the ControlNet: hub id (OWNER/NAME, also OWNER/NAME@REVISION) or folder")
    weight: float = Field(1.0, ge=0, le=2, description="ControlNet conditioning scale; 0 is off")
    estimator: PathOrId | None = Field(
        None, description="depth and segmentation: the model that makes the maps, hub id or folder"
    )
    folder: FilePath | None = Field(
        None, description="your own maps instead: FOLDER/SPLIT/NAME.png or FOLDER/NAME.png for each source"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Control:
        if self.estimator is not None and self.kind not in ("depth", "segmentation"):
            raise ValueError(f"'{self.kind}' takes no estimator; only depth and segmentation do")
        if self.estimator is not None and self.folder is not None:
            raise ValueError("give estimator or folder, not both")
        if self.kind == "own" and self.folder is None:
            raise ValueError("'own' needs `folder`, the folder of your maps")
        if self.kind in ("depth", "segmentation") and self.estimator is None and self.folder is None:
            raise ValueError(f"'{self.kind}' needs an estimator (a {self.kind} model), or a folder with your own maps")
        return self


class Condition(Section):
    """A named change. A preset supplies the fields that the recipe leaves out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="letters, digits, '.', '_' and '-'")
    prompt: str = Field(
        min_length=1, description="describes the wanted photograph; {objects} is replaced by the image's classes"
    )
    instruction: str | None = Field(None, description="describes the change, for instruct editors; default: the prompt")
    negative_prompt: str | None = Field(None, description="describes what should not be visible")
    strength: Annotated[Ranged, Within(0, 1)] = Field(
        0.6,
        description="0: the source itself, 1: as much change as the model can make; default with a task: 1. "
        "`[0.3, 0.9]`: a range; each picture gets one of five evenly spaced levels",
    )
    instruction_strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="strength for instruct editors (except pocket, which uses `strength`); default: `strength`; in "
        "presets 1, unless the recipe sets `strength`",
    )
    task: Literal["background", "remove", "insert"] | None = Field(
        None,
        description="repaint a part with an inpaint model: background: all but the labelled objects; remove: objects, "
        "and their labels; insert: add an object and its label, which the `detector` must confirm",
    )
    classes: list[str] | None = Field(
        None, min_length=1, description="remove: which objects (default: all); insert: the one class to add"
    )
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the selected sources that get this condition; with `assign: one`, its weight among the "
        "conditions",
    )
    steps: int | None = Field(None, ge=1, le=200, description="number of denoising steps; default: the model's")
    guidance: float | None = Field(None, ge=0, description="classifier-free guidance; default: the model's")
    image_guidance: float | None = Field(None, ge=0, description="image guidance scale (instruct editors only)")
    scheduler: str | dict[str, str | int | float | bool | None] | None = Field(
        None,
        description="diffusers scheduler; default: the model's. With settings: "
        "`{name: euler, timestep_spacing: trailing}`",
    )
    objects: Objects | None = Field(None, description="overrides keys of the recipe's `objects`")
    detail: float | None = Field(None, ge=0, le=1, description="overrides the recipe's `detail`")
    match: Matching | None = Field(None, description="colour and tone of your own pictures; see below")
    lights: Lamps | None = Field(None, description="lamps on labelled vehicles and in traffic lights; see below")
    sensor: Camera | None = Field(None, description="what a camera adds to the finished image; see below")
    controls: list[Control] | None = Field(None, description="replaces the recipe's `controls`; [] for none")
    edges: bool = Field(True, description="false: leave out the recipe's canny and softedge controls, if it has others")
    skip_if: list[Literal["dark", "foggy", "snowy", "no-sky"]] = Field(
        [],
        description="pictures that do not get this condition, because they show it already or it would not show: dark, "
        "foggy, snowy (white ground), no-sky (no bright sky in the upper third); presets set it, `[]` edits all "
        "pictures",
    )
    checks: Checks | None = Field(None, description="overrides keys of the recipe's `checks`")

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, value: Any) -> Any:
        """`snow` and `{night: {strength: .7}}` become full mappings; a task starts from pure noise by default."""
        if isinstance(value, str):
            return preset_fields(value, {})
        if isinstance(value, dict) and value.get("task") and "strength" not in value:
            return {**value, "strength": 1.0}
        if isinstance(value, dict) and len(value) == 1:
            (name, changes) = next(iter(value.items()))
            if isinstance(name, str) and name not in cls.model_fields:
                if changes is not None and not isinstance(changes, dict):
                    raise ValueError(f"the settings of '{name}' must be a mapping")
                return preset_fields(name, changes or {})
        return value

    @model_validator(mode="after")
    def _whole_task(self) -> Condition:
        if self.classes is not None and self.task not in ("remove", "insert"):
            raise ValueError("classes: only for task: remove and task: insert; select.classes chooses the sources")
        if self.task == "insert" and (self.classes is None or len(self.classes) != 1):
            raise ValueError("task: insert needs classes: with exactly one class; write a condition for each class")
        if self.task in ("remove", "insert") and self.strengths[0] < LEAST_TASK_STRENGTH:
            raise ValueError(
                f"strength {self.strengths[0]:g} with task: {self.task}: below {LEAST_TASK_STRENGTH} the source shows "
                "through, and the labels would be wrong"
            )
        return self

    @property
    def strengths(self) -> tuple[float, ...]:
        """The levels of the strength, weakest first: one, or STRENGTH_LEVELS of a range."""
        if not isinstance(self.strength, tuple):
            return (float(self.strength),)
        low, high = self.strength
        return tuple(round(low + (high - low) * i / (STRENGTH_LEVELS - 1), 4) for i in range(STRENGTH_LEVELS))


class CocoSplit(Section):
    images: FilePath = Field(description="folder that the file names in the annotations are relative to")
    annotations: FilePath = Field(description="COCO instances file (.json)")


class CocoDataset(Section):
    """COCO instances: boxes, or polygons for all objects if any has one. Crowd regions are left out and counted."""

    format: Literal["coco"]
    train: CocoSplit | None = None
    val: CocoSplit | None = None
    test: CocoSplit | None = None


class VocSplit(Section):
    images: FilePath = Field(description="folder of images")
    annotations: FilePath = Field(description="folder of .xml files, named like the images")
    list: FilePath | None = Field(
        None, description="text file with the split's images, one per line (ImageSets/Main/train.txt)"
    )


class VocDataset(Section):
    """Pascal VOC boxes. Classes are sorted by name over all splits."""

    format: Literal["voc"]
    one_based: bool = Field(
        True, description="pixel coordinates start at 1 and a box includes its last pixel, as in VOC itself"
    )
    train: VocSplit | None = None
    val: VocSplit | None = None
    test: VocSplit | None = None


class Resolution(Section):
    """The working size. Without `long_side`: the area that the model was trained at, in the picture's aspect ratio."""

    mode: Literal["fit", "tile"] = Field(
        "fit",
        description="fit: the whole image is scaled to the working size and back; tile: edited at its own size, in "
        "overlapping tiles of the working size, for small objects in large images (slower)",
    )
    long_side: int | None = Field(
        None,
        ge=64,
        le=8192,
        description="long side of the working size, in pixels; default: from the model's native area",
    )


class ImageFile(Section):
    format: Literal["jpg", "png", "webp"] = Field(
        "jpg", description="format of the edited images: jpg (4:4:4), png or webp"
    )
    quality: int = Field(95, ge=1, le=100, description="jpg and webp only")


class Require(Section):
    accepted: float = Field(
        0.0, ge=0, le=1, description="minimum share of planned images that are accepted; below it the exit code is 3"
    )


class LoraEntry(Section):
    """A LoRA in safetensors: a local file, or one in a hub repository."""

    file: FilePath | None = Field(None, description=".safetensors file")
    hub: str | None = Field(None, description="hub id, instead of a file")
    weight_name: str = Field("pytorch_lora_weights.safetensors", description="file name in the hub repository")
    revision: str | None = Field(None, description="revision of the hub repository")
    weight: float = Field(1.0, ge=-4, le=4, description="scale of the LoRA; 1 is as trained")

    @model_validator(mode="after")
    def _one_place(self) -> LoraEntry:
        if (self.file is None) == (self.hub is None):
            raise ValueError("give either file or hub")
        if self.hub is not None and not HUB_ID.fullmatch(self.hub):
            raise ValueError(f"'{self.hub}' is not a hub id: write OWNER/NAME")
        return self


class TextToImage(Section):
    """Images generated from text and labelled by the `detector`, without a dataset. Their labels are less reliable."""

    classes: list[str] = Field(min_length=1, description="classes of the new dataset; the detector must know them")
    templates: list[str] = Field(
        ["a photo of {class}, {condition}"],
        min_length=1,
        description="prompts, used in turn; {class} becomes e.g. 'a car', and {condition} the part of the condition's "
        "prompt after {objects} (or all of it)",
    )
    images: int = Field(ge=1, le=1_000_000, description="images per class and condition")
    width: int | None = Field(None, ge=64, le=8192, description="pixels; default: the model's native size")
    height: int | None = Field(None, ge=64, le=8192, description="pixels; default: the model's native size")

    @model_validator(mode="after")
    def _whole(self) -> TextToImage:
        if twice := [name for name in self.classes if self.classes.count(name) > 1]:
            raise ValueError(f"classes: '{twice[0]}' is listed twice")
        if empty := [name for name in self.classes if not name.strip()]:
            raise ValueError(f"classes: {empty[0]!r} is not a name")
        for template in self.templates:
            if lacking := [word for word in ("{class}", "{condition}") if word not in template]:
                raise ValueError(f"templates: '{template}' has no {lacking[0]}")
        return self
