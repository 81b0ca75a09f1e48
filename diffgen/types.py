"""The values that travel through a run. All are frozen and independent of torch and the recipe.

Long because a job's id hangs on them together: what enters it is to be seen at one place.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, why

# Raise the first when the meaning of a job's fields changes, the second when our own pixels change for the same fields. Both
# invalidate every image, so both need a headline in the changelog.
ID_SCHEMA = 1
EDIT_VERSION = 3


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, floats by `repr`, and without None, so that a new optional field keeps old ids."""
    return json.dumps(_without_none(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return value


def digest_of(*parts: str | bytes) -> str:
    """sha256 of the parts joined by zero bytes, as 64 hex digits."""
    raw = [p.encode() if isinstance(p, str) else p for p in parts]
    return hashlib.sha256(b"\0".join(raw)).hexdigest()


def unit(*parts: str | int) -> float:
    """A pseudo-random number in [0, 1) that depends on the parts alone."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


# First words of a problem for which a picture is left out of the export: its file is missing, its annotation cannot be read,
# or was made for a picture of another shape. (Ultralytics decides on a broken YOLO label file, so it is copied.)
LEFT_OUT = frozenset({"missing", "annotation", "size"})


@dataclass(frozen=True, slots=True)
class Source:
    """One image of the input dataset with its label file.

    `name` is unique in its split; it is the source's path in the export, without suffix. `width` and `height` are upright
    pixels (after the EXIF orientation). `path` is absolute. `label` is the path of a YOLO label file, or YOLO text as bytes
    if the dataset's format has no such file; None: no objects. `size` is the image file's, in bytes. `problem` says why the
    source is not edited ("word: text"), None: it may be. For images made from noise, `text` is the template of the prompt
    and `path` is empty; see diffgen.plan.text2img.
    """

    split: str
    name: str
    path: str
    label: str | bytes | None
    digest: str
    width: int
    height: int
    counts: tuple[tuple[int, int], ...] = ()  # (class id, how many objects), by class id
    # Per label row, in file order: class id, and the box's shorter side and square root of the area in upright pixels.
    classes: tuple[int, ...] = ()
    smallest: tuple[float, ...] = ()
    sides: tuple[float, ...] = ()
    problem: str | None = None
    image_digest: str = ""  # without the label, to find an image that is in two splits
    size: int = 0
    maps: tuple[tuple[str, str, str], ...] = ()  # the user's own control maps: folder as in the recipe, path, digest
    looks: tuple[str, ...] = ()  # what the picture looks like already, if that was asked for; see diffgen.checks.looks
    text: str | None = None

    def read_label(self) -> bytes | None:
        """The label text. Raises OSError if its file is missing."""
        return Path(self.label).read_bytes() if isinstance(self.label, str) else self.label

    @property
    def key(self) -> str:
        return f"{self.split}/{self.name}"

    @property
    def left_out(self) -> bool:
        """Whether its own picture may not stand in the exported dataset."""
        return not self.digest or (self.problem or "").partition(":")[0] in LEFT_OUT


@dataclass(frozen=True, slots=True)
class ControlInput:
    """One ControlNet's input: the `kind` of map, the identity of the ControlNet `model`, and its `weight` (0 to 2).

    The map comes from the `estimator` (an identity), from the user's `folder` (as in the recipe), or is computed.
    """

    kind: str
    model: str
    weight: float
    estimator: str | None = None
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class Sensor:
    """What a camera adds to an edit. Each field is a range (low, high) that a job draws one value from; (0, 0): nothing.

    `exposure` is in stops. `noise` is a standard deviation, at full light, of linear light from 0 to 1. `blur` is the length
    of the motion as a share of the picture's width. `glare` is the share of the light that is scattered over the picture.
    """

    exposure: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    blur: tuple[float, float] = (0.0, 0.0)
    glare: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Match:
    """How much of the colour and tone of a target picture an edit takes on: a `method` of diffgen.editing.levers.match, and
    an `amount` from 0 to 1."""

    method: str
    amount: float


@dataclass(frozen=True, slots=True)
class Lights:
    """Whose lamps are lit at night, by class id: a `share` of the driving vehicles, 0 to 1, and all traffic lights that show
    a colour. `brightness` 1 is that of real nights."""

    share: float
    brightness: float
    vehicles: tuple[int, ...]
    two_wheelers: tuple[int, ...]
    signals: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """Everything about an edit that does not depend on the source. Jobs with equal settings can share a batch.

    `strength` is 0 (the source's VAE round trip) to 1. `steps` are the steps that run, at most. The working size in pixels
    is that of `long_side`, `multiple` and `smallest` (geometry.canvas_of); without `long_side`, the area of `native` ×
    `native`. `quality` is for lossy formats only. Optional fields that are None do not enter the id.
    """

    editor: str
    model: str  # identity: hub id @ revision, or sha256 of local weights
    condition: str  # a name for people; not part of the id
    strength: float
    steps: int
    guidance: float
    long_side: int | None
    multiple: int
    image_format: str
    quality: int | None
    image_guidance: float | None = None
    scheduler: str | None = None
    scheduler_options: tuple[tuple[str, Any], ...] | None = None  # its settings that the recipe or the alias names
    severity: str | None = None  # template that states the strength in the prompt (pocket)
    mode: str = "fit"
    smallest: int | None = None
    native: int | None = None  # side of the model's training pictures, where it is told or its levels depend on it
    levels: int | None = None  # how many noise levels a distilled model knows; None: any
    object_strength: float | None = None  # of labelled objects, at most `strength`; None: that of the scene
    feather: int | None = None  # pixels of the working size over which the objects' strength fades into the scene's
    object_detail: float | None = None  # share of the source's fine detail that is restored inside objects, 0 to 1
    object_restore: float | None = None  # objects with less structure are restored; see diffgen.editing.levers.restore
    detail: float | None = None  # the same in the scene; see diffgen.editing.levers.detail_transfer
    loras: tuple[tuple[str, float], ...] | None = None  # sha256 of each file, and its weight
    controls: tuple[ControlInput, ...] | None = None
    task: str | None = None  # "background", "remove" or "insert": repaints a part only; see diffgen.editing.tasks
    classes: tuple[int, ...] | None = None  # of the objects that the task removes (None: all) or inserts
    match: Match | None = None  # colour and tone of a picture of the user's target
    lights: Lights | None = None  # lamps that are put on the labelled vehicles
    sensor: Sensor | None = None  # what a camera adds to the edit
    annotator: str | None = None  # identity of the detector that labels images made from noise
    edit_version: int = EDIT_VERSION  # of the diffgen that makes the images, or made those of the run folder

    @property
    def tile_side(self) -> int:
        """The side of a tile, in pixels: the working size of a square picture."""
        side = self.long_side or self.native
        assert side is not None
        return side

    @cached_property
    def digest(self) -> str:
        fields = {k: v for k, v in asdict(self).items() if k not in ("condition", "edit_version")}
        for control in fields["controls"] or ():
            # Only whether there are own maps is part of this id, not their folder. Their content is part of the job's.
            control["folder"] = True if control["folder"] is not None else None
        return digest_of(canonical(fields))


@dataclass(frozen=True, slots=True)
class Job:
    """One source × condition × variant × attempt: everything needed to make one image. `id` is the hash of that.

    `source` is the digest of image and label bytes, independent of their paths. `maps` are the digests of the user's own
    control maps, in the order of the settings' `controls`. `place` is the box (x0, y0, x1, y1 as fractions of the picture)
    into which the task `insert` paints. `target` is the digest of the picture that it is matched with.
    """

    source: str
    settings: Settings
    prompt: str
    negative_prompt: str | None
    seed: int
    variant: int = 0
    attempt: int = 0
    maps: tuple[str, ...] = ()
    place: tuple[float, float, float, float] | None = None
    target: str | None = None
    id: str = field(init=False, default="")

    def __post_init__(self) -> None:
        edit = _edit_digest(self.settings.edit_version, self.settings.digest, self.prompt, self.negative_prompt)
        text = " ".join((edit, self.source, str(self.seed), *self.maps))
        if self.place is not None:
            text += f" {canonical(self.place)}"
        if self.target is not None:
            text += f" target {self.target}"
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:32])


@lru_cache(maxsize=65536)
def _edit_digest(edit_version: int, settings: str, prompt: str, negative_prompt: str | None) -> str:
    """Hash of what the jobs of one condition share; cached, because half a million jobs are planned at once."""
    return digest_of(canonical([ID_SCHEMA, edit_version, settings, prompt, negative_prompt]))


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of the plan: a source and the job that makes its image.

    Sources with equal digests share a job, but each has its own item and its own image in the export.
    """

    source: Source
    job: Job


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that run together: same settings, same working size."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """The facts of a finished job.

    `status` is "made" or "failed". A failure has `error`, and as `kind` "source" (final) or "transient" (tried again).
    `facts` are measured values only, never a decision.
    """

    id: str
    status: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    kind: str | None = None
    error: str | None = None
    seconds: float | None = None
    environment: str | None = None

    def to_json(self) -> str:
        fields = {key: getattr(self, key) for key in self.__dataclass_fields__}
        return canonical({**fields, "facts": dict(self.facts)})

    @classmethod
    def from_json(cls, line: str | bytes, facts: Mapping[str, Any] | None = None) -> Record:
        """The record of a line; with `facts` in place of its own. Raises ValueError if the line is not a record."""
        data = json.loads(line)
        if (
            not isinstance(data, dict)
            or not isinstance(data.get("id"), str)
            or data.get("status") not in ("made", "failed")
        ):
            raise ValueError("not a record")
        texts = [data.get(key) for key in ("sha256", "kind", "error", "environment")]
        seconds = data.get("seconds")
        valid = isinstance(data.get("facts", {}), dict) and all(isinstance(text, str | None) for text in texts)
        if not valid or not isinstance(seconds, int | float | None) or isinstance(seconds, bool):
            raise ValueError("a record of other types")
        environment = data.get("environment")
        return cls(
            data["id"],
            data["status"],
            data.get("facts", {}) if facts is None else facts,
            data.get("sha256"),
            data.get("kind"),
            data.get("error"),
            seconds,
            environment and sys.intern(environment),  # one text for all records: there may be millions
        )


@contextmanager
def reading_facts(record: Record) -> Iterator[None]:
    """Turns whatever odd facts raise in the block into a DiffgenError that names the record: somebody else wrote it."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise DiffgenError(
            f"the record of image {record.id} holds impossible measurements: {why(error)}",
            "delete the image from images/: the next run makes it and its record again",
        ) from error


@dataclass(frozen=True, slots=True)
class Result:
    """A worker's result for one job: its record, and the encoded image unless it failed."""

    record: Record
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted, or rejected with a one-word `reason` to count by."""

    accepted: bool
    reason: str | None = None
