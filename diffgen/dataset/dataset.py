"""A dataset of any format to sources: names for the export, digests, label facts. Reads headers; decodes nothing."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.forked import can_fork, forked
from diffgen.dataset.formats import SPLITS, Found, Listing
from diffgen.dataset.formats.coco import read_coco
from diffgen.dataset.formats.voc import read_voc
from diffgen.dataset.formats.yolo import read_yolo
from diffgen.dataset.images import SUFFIXES, read_size
from diffgen.dataset.labels import LabelError, LabelSchema, Shape, parse_labels
from diffgen.errors import SourceError, UsageError, why
from diffgen.files import stamp
from diffgen.recipe.sections import CocoDataset, VocDataset
from diffgen.types import Source, digest_of

LEAST_SIDE = 10  # pixels; Ultralytics drops smaller images
MANY = 2000  # sources to read; starting other processes pays from here
FACTS_VERSION = 5  # of what _read_facts finds; raised with it, so that no older cache is taken for it


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a recipe's `dataset` describes, or its `text2img`.

    `names` by class id, gaps filled; `extra` are keys to hand on as they are; `sources` are in plan order: by split, then
    by path; `keypoints` is `kpt_shape`, for pose labels; `folders` are those searched for images.
    """

    path: Path
    names: tuple[str, ...]
    extra: dict[str, Any]
    sources: tuple[Source, ...]
    keypoints: tuple[int, int] | None = None
    folders: tuple[Path, ...] = ()
    notes: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, tuple[Shape, ...]] = field(default_factory=dict)  # by a source's digest; see with_shapes
    outlined: bool = False  # some of them have outlines

    @property
    def schema(self) -> LabelSchema:
        """How the label rows of its sources are read."""
        return LabelSchema(self.names, self.keypoints)

    def split(self, name: str) -> list[Source]:
        return [source for source in self.sources if source.split == name]

    @property
    def splits(self) -> list[str]:
        found = {source.split for source in self.sources}
        return [split for split in SPLITS if split in found]


def read_dataset(spec: str | CocoDataset | VocDataset, base: Path, cache: FileCache) -> Dataset:
    """Read a dataset and every image's header, label and digest (the latter from the cache when nothing changed).

    Paths in `spec` are relative to `base`. Raises UsageError for what makes the dataset unusable; a single bad file is
    the `problem` of its source.
    """
    listing = _listing(spec, base, cache)
    for name in listing.names:
        try:
            name.encode()
        except UnicodeEncodeError:  # what an escape such as "\ud800" in YAML or JSON leaves
            raise UsageError(
                f"{listing.path}: the class name {name!a} holds half a character",
                "write the name out, as UTF-8 text",
            ) from None
    sources = _read_sources(listing, cache)
    return Dataset(
        listing.path, listing.names, listing.extra, sources, listing.keypoints, listing.folders, listing.notes
    )


def with_shapes(dataset: Dataset, splits: Collection[str]) -> Dataset:
    """The dataset with the labelled objects of the sources that may be edited, for what asks where they stand."""
    found = {}
    for source in dataset.sources:
        if source.split in splits and source.problem is None:
            try:
                raw = source.read_label()
            except OSError:
                continue  # gone since it was read: no image of it will be made, and the worker says so
            found[source.digest] = dataset.schema.parse(raw)
    outlined = any(shape.outline is not None for shapes in found.values() for shape in shapes)
    return replace(dataset, shapes=found, outlined=outlined)


def _listing(spec: str | CocoDataset | VocDataset, base: Path, cache: FileCache) -> Listing:
    if isinstance(spec, str):
        return read_yolo(Path(os.path.abspath(base / spec)))
    splits = {split: part for split in SPLITS if (part := getattr(spec, split)) is not None}
    if isinstance(spec, CocoDataset):
        return read_coco({split: (_under(base, p.images), _under(base, p.annotations)) for split, p in splits.items()})
    folders = {
        split: (_under(base, p.images), _under(base, p.annotations), _under(base, p.list) if p.list else None)
        for split, p in splits.items()
    }
    return read_voc(folders, spec.one_based, cache)


def _under(base: Path, path: str) -> Path:
    return Path(os.path.abspath(base / path))


def _named(found: tuple[Found, ...]) -> Iterator[tuple[str, Found]]:
    """Names for the export, unique in their split without suffix and case; no folder of them is called images."""
    taken: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    for entry in found:
        key = (entry.split, entry.image)
        if key in seen:
            continue
        seen.add(key)
        base = name = _base_name(entry)
        n = 1
        while (entry.split, name.casefold()) in taken:
            n += 1
            name = f"{base}-{_suffix(entry.image)[1:]}{n if n > 2 else ''}"
        taken.add((entry.split, name.casefold()))
        yield name, entry


def _base_name(entry: Found) -> str:
    """The path below the folder it was found in, as a name that stays below the export's folder and is found there."""
    folder, _, file = entry.image.rpartition(os.sep)
    stem, _ = os.path.splitext(_encodable(file))
    return f"{_folder_name(folder, entry.folder)}{'_' if stem.startswith('.') else ''}{stem}"


@lru_cache(maxsize=4096)  # many images lie in few folders
def _folder_name(folder: str, above: str) -> str:
    inside = os.path.relpath(_encodable(folder) or os.sep, _encodable(above))
    return "".join(f"{_tame(part)}/" for part in inside.split(os.sep) if part != ".")


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _tame(folder: str) -> str:
    if folder.lower() in ("images", "labels"):
        return f"{folder}_"
    if folder == "..":
        return "up_"
    return f"_{folder}" if folder.startswith(".") else folder  # Ultralytics looks into no hidden folder


def _read_sources(listing: Listing, cache: FileCache) -> tuple[Source, ...]:
    """Only what the cache does not know is read, side by side."""
    kind = f"source/{FACTS_VERSION}/{len(listing.names)}/{listing.keypoints}"
    named = list(_named(listing.found))
    known: dict[str, tuple[str, str]] = {}
    for folder in _tops({entry.image.rpartition(os.sep)[0] for _, entry in named}):
        known |= cache.below(kind, folder)
    marks = [_mark(entry) for _, entry in named]
    rows = [known.get(entry.image) for _, entry in named]
    valid = [row[1] if row and row[0] == mark else "null" for row, mark in zip(rows, marks, strict=True)]
    facts: list[dict[str, Any] | None] = json.loads(f"[{','.join(valid)}]")  # in one go: twice as fast
    missing = [i for i, fields in enumerate(facts) if fields is None]

    def read(i: int) -> dict[str, Any]:
        return _read_facts(named[i][1], len(listing.names), listing.keypoints)

    def keep(i: int, fields: dict[str, Any]) -> None:
        facts[i] = fields
        if fields["digest"]:
            cache.put(kind, named[i][1].image, marks[i], json.dumps(fields))

    if len(missing) > MANY and can_fork():
        for i, fields in forked(read, missing):
            keep(i, fields)
        missing = [i for i in missing if facts[i] is None]
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        for i, fields in zip(missing, pool.map(read, missing), strict=True):
            keep(i, fields)
    cache.flush()
    return tuple(
        _source(name, entry, fields) for (name, entry), fields in zip(named, facts, strict=True) if fields is not None
    )


def _mark(entry: Found) -> str:
    """Changes when the image or the label changes."""
    if isinstance(entry.label, str):
        return stamp([entry.image, entry.label])
    return f"{stamp([entry.image])};{digest_of(entry.label or b'-', str(entry.size), str(entry.problem))[:16]}"


def _tops(folders: set[str]) -> list[str]:
    """The folders that are below no other of them."""
    tops: list[str] = []
    for folder in sorted(folders, key=lambda folder: f"{folder}{os.sep}"):
        if not tops or not folder.startswith(f"{tops[-1]}{os.sep}"):
            tops.append(folder)
    return tops


def _source(name: str, entry: Found, fields: dict[str, Any]) -> Source:
    return Source(
        split=entry.split,
        name=name,
        path=entry.image,
        label=entry.label if fields["labelled"] else None,
        digest=fields["digest"],
        width=fields["width"],
        height=fields["height"],
        counts=tuple(sorted(Counter(fields["classes"]).items())),
        classes=tuple(fields["classes"]),
        smallest=tuple(fields["smallest"]),
        sides=tuple(fields["sides"]),
        problem=fields["problem"],
        image_digest=fields["image_digest"],
        size=fields["size"],
    )


def _read_facts(entry: Found, classes: int, keypoints: tuple[int, int] | None) -> dict[str, Any]:
    """The facts of one image and its label, as they go into the cache. `problem` is "word: text"."""
    fields: dict[str, Any] = {
        "digest": "", "image_digest": "", "width": 0, "height": 0, "labelled": False, "problem": entry.problem, "size": 0,
        "classes": [], "smallest": [], "sides": [],
    }  # fmt: skip
    try:
        raw = _read(entry.image)
        text = _read_label(entry.label) if isinstance(entry.label, str) else entry.label
    except OSError as error:
        return {**fields, "problem": f"missing: {why(error)}"}
    fields.update(labelled=text is not None, size=len(raw))
    digest = hashlib.sha256(raw)
    fields["image_digest"] = digest.hexdigest()[:32]
    digest.update(b"\0" + (text or b""))
    fields["digest"] = digest.hexdigest()
    if entry.problem is not None:
        return fields
    try:
        shapes = parse_labels(text or b"", classes, keypoints)
    except LabelError as error:
        return {**fields, "problem": f"{error.reason}: {error}"}
    if _suffix(entry.image) not in SUFFIXES:
        return {**fields, "problem": f"format: {_suffix(entry.image)} is carried over unedited"}
    try:
        width, height = read_size(raw)
    except SourceError as error:
        return {**fields, "problem": f"unreadable: {error.message}"}
    boxes = [((s.box[2] - s.box[0]) * width, (s.box[3] - s.box[1]) * height) for s in shapes]
    fields.update(
        width=width,
        height=height,
        classes=[shape.class_id for shape in shapes],
        smallest=[round(min(box), 1) for box in boxes],
        sides=[round(math.sqrt(max(0.0, w * h)), 2) for w, h in boxes],
    )
    if entry.size is not None and entry.size != (width, height):
        fields["problem"] = f"size: annotated as {entry.size[0]}×{entry.size[1]}, the image is {width}×{height}"
    elif min(width, height) < LEAST_SIDE:
        fields["problem"] = f"tiny: {width}×{height} pixels, under {LEAST_SIDE}"
    return fields


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def _read_label(path: str) -> bytes | None:
    """None where there is no such file: no label, or a folder of that name."""
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
