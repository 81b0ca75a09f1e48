"""A dataset of any format as a list of sources. Reads headers and labels; decodes no image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import SPLITS, Listing
from diffgen.dataset.formats.coco import read_coco
from diffgen.dataset.formats.voc import read_voc
from diffgen.dataset.formats.yolo import read_yolo
from diffgen.dataset.labels import LabelSchema, Shape
from diffgen.dataset.leakage import identical
from diffgen.dataset.sources import read_sources
from diffgen.dataset.targets import Target, read_targets
from diffgen.errors import UsageError
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import CocoDataset, VocDataset
from diffgen.types import Source

LOOKED_AT = 20  # labelled sources, whose rows say what a detector learns from them


@dataclass(frozen=True, slots=True)
class Dataset:
    """The dataset that a recipe's `dataset` names, or the one that its `text2img` makes.

    `path` is the file that describes it (data.yaml, annotations). `names` are the class names by id, gaps filled. `extra`
    are keys of a data.yaml that the export copies unchanged. `sources` are in plan order: by split, then by path.
    `keypoints` is Ultralytics' `kpt_shape`, (points, values per point), for pose labels. `folders` were searched for
    images. `notes` are examples of omitted or changed content, by the words of `formats.NOTES`.
    """

    path: Path
    names: tuple[str, ...]
    extra: dict[str, Any]
    sources: tuple[Source, ...]
    keypoints: tuple[int, int] | None = None
    folders: tuple[Path, ...] = ()
    notes: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, tuple[Shape, ...]] = field(default_factory=dict)  # by a source's digest; see with_shapes
    outlined: bool = False  # whether any of the shapes is a polygon
    targets: dict[str, tuple[Target, ...]] = field(default_factory=dict)  # by condition; see with_targets

    @property
    def schema(self) -> LabelSchema:
        """What is needed to parse its label rows."""
        return LabelSchema(self.names, self.keypoints)

    @property
    def task(self) -> str:
        """What a detector learns from the labels, in Ultralytics' words: pose, obb, segment or detect. By the rows of the
        first labelled sources: four corners each are oriented boxes, other outlines are segments."""
        if self.keypoints is not None:
            return "pose"
        columns: set[int] = set()
        labelled = (source for source in self.sources if source.counts and source.problem is None)
        for source in islice(labelled, LOOKED_AT):
            with suppress(OSError):
                columns |= {len(row.split()) for row in (source.read_label() or b"").splitlines() if row.strip()}
        if not columns or min(columns) <= 5:
            return "detect"
        return "obb" if columns == {9} else "segment"

    @property
    def target_paths(self) -> dict[str, str]:
        """The path of each target picture, by its digest."""
        return {target.digest: target.path for targets in self.targets.values() for target in targets}

    def split(self, name: str) -> list[Source]:
        return [source for source in self.sources if source.split == name]

    @property
    def splits(self) -> list[str]:
        """The splits that have sources."""
        used = {source.split for source in self.sources}
        return [split for split in SPLITS if split in used]


def read_dataset(spec: str | CocoDataset | VocDataset, base: Path, cache: FileCache) -> Dataset:
    """Read a dataset: header, label and digest of every image; from the cache for unchanged files.

    Paths in `spec` are relative to `base`. Raises UsageError if the dataset as a whole cannot be used; a single bad file
    becomes the `problem` of its source.
    """
    listing = _listing(spec, base, cache)
    for name in listing.names:
        try:
            name.encode()
        except UnicodeEncodeError:  # a lone surrogate, from an escape such as "\ud800" in YAML or JSON
            raise UsageError(
                f"{listing.path}: the class name {name!a} is not valid Unicode (a lone surrogate)",
                "write it as UTF-8 text",
            ) from None
    sources = _without_leaks(read_sources(listing, cache))
    notes = listing.notes | ({"outside": outside} if (outside := _outside(listing)) else {})
    return Dataset(listing.path, listing.names, listing.extra, sources, listing.keypoints, listing.folders, notes)


def require_confined(dataset: Dataset) -> None:
    """Raises UsageError if a name in the dataset leads to a picture outside of its own folders."""
    if outside := dataset.notes.get("outside"):
        raise UsageError(
            f"{dataset.path}: paths or links lead out of the dataset, such as to {outside[0]}",
            "move those files into the dataset, or run without --confined",
        )


def _outside(listing: Listing) -> list[str]:
    """The folders that names with '..' and absolute paths lead to, with how many pictures."""
    roots = [os.path.join(os.path.abspath(root), "") for root in listing.roots]
    folders = Counter(os.path.join(os.path.dirname(entry.image), "") for entry in listing.found)
    away = {folder: count for folder, count in folders.items() if not any(folder.startswith(root) for root in roots)}
    return [f"{folder}: {count}" for folder, count in sorted(away.items())]


def _without_leaks(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """A file that is in several splits is not edited, as what is made of a val picture may not land in train."""
    shared: dict[Source, str] = {}
    for group in identical(sources):
        files = [(file.st_dev, file.st_ino) for file in (os.stat(source.path) for source in group)]
        splits: dict[tuple[int, int], set[str]] = {}
        for source, file in zip(group, files, strict=True):
            splits.setdefault(file, set()).add(source.split)
        for source, file in zip(group, files, strict=True):
            others = splits[file] - {source.split}
            if others and source.problem is None:
                shared[source] = f"leak: the same file is in {' and '.join(sorted(others))}"
    return tuple(replace(s, problem=shared[s]) if s in shared else s for s in sources) if shared else sources


def with_shapes(dataset: Dataset, splits: Collection[str]) -> Dataset:
    """The dataset with the `shapes` of the sources in `splits`, for tasks and masks, which need positions of objects."""
    shapes = {}
    for source in dataset.sources:
        if source.split in splits and source.problem is None:
            try:
                raw = source.read_label()
            except OSError:
                continue  # deleted since it was listed: the worker records the failure
            shapes[source.digest] = dataset.schema.parse(raw)
    outlined = any(shape.outline is not None for objects in shapes.values() for shape in objects)
    return replace(dataset, shapes=shapes, outlined=outlined)


def with_targets(dataset: Dataset, recipe: Recipe, base: Path, cache: FileCache) -> Dataset:
    """The dataset with the `targets` of the conditions that have `match`. Raises UsageError for one without a picture."""
    targets = {
        condition.name: read_targets(base / Path(condition.match.folder).expanduser(), cache)
        for condition in recipe.conditions
        if condition.match is not None
    }
    return replace(dataset, targets=targets) if targets else dataset


def _listing(spec: str | CocoDataset | VocDataset, base: Path, cache: FileCache) -> Listing:
    if isinstance(spec, str):
        return read_yolo(Path(os.path.abspath(base / spec)))
    splits = {split: part for split in SPLITS if (part := getattr(spec, split)) is not None}
    if isinstance(spec, CocoDataset):
        return read_coco(
            {split: (_under(base, p.images), _under(base, p.annotations)) for split, p in splits.items()}, cache
        )
    folders = {
        split: (_under(base, p.images), _under(base, p.annotations), _under(base, p.list) if p.list else None)
        for split, p in splits.items()
    }
    return read_voc(folders, spec.one_based, cache)


def _under(base: Path, path: str) -> Path:
    return Path(os.path.abspath(base / path))
