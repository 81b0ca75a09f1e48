"""The values that travel through a run. All frozen; none knows about files, torch or the recipe."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

# Raised when the meaning of a job's fields changes, and when our own pixels change for the same fields. Both make every
# image anew, so both are headlines of the changelog.
ID_SCHEMA = 1
EDIT_VERSION = 2


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, floats by `repr`; None left out, so that a later optional field keeps old ids."""
    return json.dumps(_without_none(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return value


def digest_of(*parts: str | bytes) -> str:
    """sha256 over the parts, each followed by a zero byte except the last, as 64 hex digits."""
    raw = [p.encode() if isinstance(p, str) else p for p in parts]
    return hashlib.sha256(b"\0".join(raw)).hexdigest()


def unit(*parts: str | int) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


@dataclass(frozen=True, slots=True)
class Source:
    """One image of the input dataset with its label file.

    `name` is unique in its split and is the path, without suffix, that the export gives it.
    `width` and `height` are upright pixels (after the EXIF orientation).
    `path` is absolute. `label` is the path of a YOLO label file, or YOLO text as bytes where the dataset's format has no
    such file; None is an image without objects. `size` is of the image file, in bytes.
    `problem` says why the source is carried over unedited; None means that it may be edited.
    `text` is set where there is no picture to begin with: the template of its prompt, and `path` is empty; see
    diffgen.imagined.
    """

    split: str
    name: str
    path: str
    label: str | bytes | None
    digest: str
    width: int
    height: int
    counts: tuple[tuple[int, int], ...] = ()  # (class id, how many objects), by class id
    # Of each label row, in file order: its class id, and of its box in upright pixels the shorter side and the square
    # root of the area.
    classes: tuple[int, ...] = ()
    smallest: tuple[float, ...] = ()
    sides: tuple[float, ...] = ()
    problem: str | None = None
    image_digest: str = ""  # of the image alone, to find the same picture in two splits
    size: int = 0
    maps: tuple[tuple[str, str, str], ...] = ()  # the user's own control maps: folder as in the recipe, path, digest
    text: str | None = None

    def read_label(self) -> bytes | None:
        """The label text. Raises OSError when its file is away."""
        return Path(self.label).read_bytes() if isinstance(self.label, str) else self.label

    @property
    def key(self) -> str:
        return f"{self.split}/{self.name}"


@dataclass(frozen=True, slots=True)
class ControlInput:
    """A ControlNet's part in an edit: what its map shows, whose weights read it (an identity), how strongly (0 to 2).

    The map is the `estimator`'s (an identity), or the user's own in `folder` (as the recipe writes it), or computed here.
    """

    kind: str
    model: str
    weight: float
    estimator: str | None = None
    folder: str | None = None


@dataclass(frozen=True)
class Settings:
    """Everything about an edit that does not depend on the source. Jobs that share it can share a batch.

    `strength` is 0 (the source's VAE round trip) to 1; `steps` are steps run; `long_side`, `multiple`, `smallest` give
    the working size in pixels (geometry.canvas_of); `quality` is for lossy formats only. Optional fields that are None
    do not enter the id.
    """

    editor: str
    model: str  # identity: hub id @ revision, or sha256 of local weights
    condition: str  # a name for people; not part of the id
    strength: float
    steps: int
    guidance: float
    long_side: int
    multiple: int
    image_format: str
    quality: int | None
    image_guidance: float | None = None
    scheduler: str | None = None
    severity: str | None = None  # template that tells a model the strength in words (the embedded model)
    mode: str = "fit"
    smallest: int | None = None
    object_strength: float | None = None  # of labelled objects, at most `strength`; None: as strong as the scene
    feather: int | None = None  # pixels of the working size over which the objects' strength fades into the scene's
    object_detail: float | None = None  # share of the source's fine detail brought back: inside objects …
    detail: float | None = None  # … and in the scene; see diffgen.detail
    loras: tuple[tuple[str, float], ...] | None = None  # sha256 of each file, and its weight
    controls: tuple[ControlInput, ...] | None = None
    task: str | None = None  # "background", "remove" or "insert": only a part is painted anew; see diffgen.tasks
    classes: tuple[int, ...] | None = None  # of the objects that the task removes (None: all) or inserts
    annotator: str | None = None  # identity of the detector that labels what is made from noise

    @cached_property
    def digest(self) -> str:
        fields = {k: v for k, v in asdict(self).items() if k != "condition"}
        for guide in fields["controls"] or ():
            # Where own maps lie is no part of an id. That there are some is; what is in them enters the job's.
            guide["folder"] = True if guide["folder"] is not None else None
        return digest_of(canonical(fields))


@dataclass(frozen=True, slots=True)
class Job:
    """One source × condition × variant × attempt: everything needed to make one image. Its id is the hash of that.

    `source` is the digest of image and label bytes; where the files lie is not the job's business. `maps` are the digests
    of the user's own control maps, in the order of the settings' `controls`. `place` is the box (x0, y0, x1, y1 in shares
    of the picture) that the task `insert` paints an object into.
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
    id: str = field(init=False, default="")

    def __post_init__(self) -> None:
        edit = _edit_digest(self.settings.digest, self.prompt, self.negative_prompt)
        text = " ".join((edit, self.source, str(self.seed), *self.maps))
        if self.place is not None:
            text += f" {canonical(self.place)}"
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:32])


@lru_cache(maxsize=65536)
def _edit_digest(settings: str, prompt: str, negative_prompt: str | None) -> str:
    """What the jobs of one condition have in common; hashed once, because half a million jobs are planned at once."""
    return digest_of(canonical([ID_SCHEMA, EDIT_VERSION, settings, prompt, negative_prompt]))


@dataclass(frozen=True, slots=True)
class Item:
    """A place in the plan: this source under this condition, and the job that makes it.

    Sources with equal digests share a job; each of them has its own item, and its own image in the export.
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

    `status` is "made" or "failed". A failure has `kind` "source" (final) or "transient" (tried again) and `error`.
    `facts` holds measured values only, never a decision.
    """

    id: str
    status: str
    facts: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    kind: str | None = None
    error: str | None = None
    seconds: float | None = None
    environment: str | None = None

    def to_json(self) -> str:
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Raises ValueError when the line is not a record."""
        data = json.loads(line)
        if (
            not isinstance(data, dict)
            or not isinstance(data.get("id"), str)
            or data.get("status") not in ("made", "failed")
        ):
            raise ValueError("not a record")
        known = {k: data[k] for k in cls.__dataclass_fields__ if k in data}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker returns for one job: its record and, when made, the encoded image."""

    record: Record
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted, or rejected with a one-word reason that can be counted."""

    accepted: bool
    reason: str | None = None
