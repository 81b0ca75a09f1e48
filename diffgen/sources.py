"""A YOLO data.yaml, in every form that Ultralytics accepts, to sources. Reads headers and labels; decodes nothing.

Path rules are Ultralytics' own (8.4: `check_det_dataset`, `get_img_files`, `img2label_paths`), with one difference:
where two different existing folders could be meant, it takes one silently and we refuse.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffgen.cache import FileCache, stamp
from diffgen.errors import SourceError, UsageError
from diffgen.geometry import SUFFIXES, read_size
from diffgen.labels import LabelError, parse_labels
from diffgen.types import Source

# Every suffix Ultralytics loads; those outside geometry.SUFFIXES are carried over unedited.
LOADED = SUFFIXES | {".heic", ".heif", ".avif", ".dng", ".jp2"}
SPLITS = ("train", "val", "test")
LEAST_SIDE = 10  # pixels; Ultralytics drops smaller images
# Keys of a data.yaml that the export does not hand on: ours to write, executed by Ultralytics (`download`), or folders
# that the export does not have.
OWN_KEYS = frozenset({"path", "names", "nc", "download", "minival", "masks_dir", "validation", *SPLITS})


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a data.yaml describes.

    `names` by class id, gaps filled; `extra` are keys to hand on as they are; `sources` are in plan order: by split, then
    by path; `keypoints` is `kpt_shape`, for pose labels.
    """

    path: Path
    names: tuple[str, ...]
    extra: dict[str, Any]
    sources: tuple[Source, ...]
    keypoints: tuple[int, int] | None = None
    folders: tuple[Path, ...] = ()  # that are searched for images

    def split(self, name: str) -> list[Source]:
        return [source for source in self.sources if source.split == name]

    @property
    def splits(self) -> list[str]:
        return [split for split in SPLITS if any(source.split == split for source in self.sources)]


def read_dataset(path: Path, cache: FileCache) -> Dataset:
    """Read a data.yaml and every image's header, label and digest (the latter from the cache when nothing changed).

    Raises UsageError for what makes the dataset unusable; a single bad file is the `problem` of its source.
    """
    data = _read_yaml(path)
    names = _names(data, path)
    keypoints = _keypoints(data, path)
    root = _root(data, path)
    found: list[tuple[str, str, Path]] = []
    folders: list[Path] = []
    for split in SPLITS:
        if data.get(split):
            places = list(_places(data[split], root, path, split))
            folders += [place for place in places if place.is_dir()]
            images = [image for place in places for image in _images(place)]
            if not images:
                raise UsageError(
                    f"{path}: {split}: no images in {data[split]}", "check the path; images need a known suffix"
                )
            found += [(split, name, image) for name, image in _named(images, root)]
    if not found:
        raise UsageError(f"{path}: names no split with images", "it needs at least 'train:' and 'val:'")

    sources = _read_sources(found, len(names), keypoints, cache)
    extra = {key: value for key, value in data.items() if key not in OWN_KEYS}
    return Dataset(path, names, extra, sources, keypoints, tuple(folders))


# --- the yaml file --------------------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: there is no such dataset file", "give the path of a data.yaml, relative to the recipe"
        ) from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", f"name the file: {path}/data.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot read the dataset file: {str(error).splitlines()[0]}", "it must be YAML text"
        ) from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a data.yaml is a mapping", "it needs 'train:', 'val:' and 'names:'")
    if data.get("channels") not in (None, 1, 3):
        raise UsageError(f"{path}: channels: {data['channels']}: only pictures of 1 or 3 channels can be edited")
    if "val" not in data and "validation" in data:
        data["val"] = data["validation"]
    return data


def _names(data: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = data.get("names")
    if names is None and isinstance(data.get("nc"), int) and 0 < data["nc"] < 100_000:
        return tuple(f"class_{i}" for i in range(data["nc"]))
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    if isinstance(names, dict) and names:
        try:
            by_id = {int(key): str(value) for key, value in names.items()}
        except (TypeError, ValueError):
            raise UsageError(
                f"{path}: names: class ids must be whole numbers", "write 'names: {0: car, 1: person}'"
            ) from None
        if min(by_id) < 0 or max(by_id) >= 100_000:
            raise UsageError(f"{path}: names: class ids must be 0 or more, and under 100000", "number them from 0")
        return tuple(by_id.get(i, f"unused{i}") for i in range(max(by_id) + 1))
    raise UsageError(f"{path}: 'names' is missing or empty", "write 'names: {0: car, 1: person}'")


def _keypoints(data: dict[str, Any], path: Path) -> tuple[int, int] | None:
    shape = data.get("kpt_shape")
    if shape is None:
        return None
    if (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(n) is int for n in shape)
        and shape[0] > 0
        and shape[1] in (2, 3)
    ):
        return shape[0], shape[1]
    raise UsageError(
        f"{path}: kpt_shape: {shape!r} is not [number of points, 2 or 3]", "for example kpt_shape: [17, 3]"
    )


def _root(data: dict[str, Any], path: Path) -> Path:
    """The folder that split paths are relative to: `path` absolute, else found in one of three places."""
    written = data.get("path")
    if not written:
        return path.parent
    if not isinstance(written, str):
        raise UsageError(f"{path}: path: must be text", "take the key out: splits are then relative to the file")
    if Path(written).is_absolute():
        return Path(written)
    candidates = [Path.cwd() / written, path.parent / written]
    if (datasets := _ultralytics_datasets()) is not None:
        candidates.append(datasets / written)
    existing = list(dict.fromkeys(place.resolve() for place in candidates if place.is_dir()))
    if not existing:
        tried = ", ".join(str(place) for place in candidates)
        raise UsageError(
            f"{path}: path: '{written}' is not there (tried {tried})", "make it absolute, or take the key out"
        )
    if len(existing) > 1:
        raise UsageError(
            f"{path}: path: '{written}' could be {existing[0]} or {existing[1]}",
            "make it absolute, or take the key out",
        )
    return existing[0]


def _ultralytics_datasets() -> Path | None:
    """`datasets_dir` of Ultralytics' settings file, read without importing it."""
    folder = os.environ.get("YOLO_CONFIG_DIR")
    places = [Path(folder)] if folder else [Path.home() / ".config" / "Ultralytics"]
    for place in places:
        try:
            value = json.loads((place / "settings.json").read_text("utf-8")).get("datasets_dir")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(value, str):
            return Path(value)
    return None


def _places(value: Any, root: Path, path: Path, split: str) -> Iterator[Path]:
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str):
            raise UsageError(f"{path}: {split}: must be a path or a list of paths", "for example train: images/train")
        place = root / item
        if not place.exists() and item.startswith("../") and (root / item[3:]).exists():
            place = root / item[3:]  # as Ultralytics does for exports that point one folder too high
        if not place.exists():
            raise UsageError(f"{path}: {split}: {place} is not there", "check 'path:' and the split's own path")
        yield Path(os.path.abspath(place))


# --- images and labels ----------------------------------------------------------------------------------------------


def _images(place: Path) -> list[tuple[Path, Path]]:
    """(image, folder it was found below), sorted by path, as Ultralytics finds them."""
    if place.is_dir():
        found = []
        for folder, dirs, names in os.walk(place, followlinks=True):
            dirs[:] = [name for name in dirs if not name.startswith(".") and not _leads_back(Path(folder, name))]
            found += [os.path.join(folder, name) for name in names if _is_image(name)]
        return [(Path(image), place) for image in sorted(found)]
    try:
        lines = place.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{place}: cannot read the list of images: {error}", "it must be text, one path a line"
        ) from None
    images = []
    for line in (line.strip() for line in lines):
        if not line:
            continue
        image = place.parent / line[2:] if line.startswith("./") else Path(os.path.abspath(line))
        if _is_image(image.name):
            images.append(image)
    common = Path(os.path.commonpath([image.parent for image in images])) if images else place.parent
    return sorted((image, common) for image in images)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in LOADED


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that holds it: following it would never end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def label_path(image: Path) -> Path:
    """Where Ultralytics looks for an image's labels: the last folder called `images` becomes `labels`."""
    sep = os.sep
    head, found, tail = str(image).rpartition(f"{sep}images{sep}")
    moved = f"{head}{sep}labels{sep}{tail}" if found else str(image)
    return Path(moved).with_suffix(".txt")


def _named(images: list[tuple[Path, Path]], root: Path) -> Iterator[tuple[str, Path]]:
    """Names for the export, unique without suffix and case: below `images/<split>/` no folder is called images."""
    taken: set[str] = set()
    seen: set[Path] = set()
    for image, folder in images:
        if image in seen:
            continue
        seen.add(image)
        parts = [
            f"{part}_" if part.lower() in ("images", "labels") else part
            for part in image.relative_to(folder).parent.parts
        ]
        base = "/".join([*parts, image.stem])
        name, n = base, 1
        while name.casefold() in taken:
            n += 1
            name = f"{base}-{image.suffix[1:].lower()}" if n == 2 else f"{base}-{image.suffix[1:].lower()}{n}"
        taken.add(name.casefold())
        yield name, image


def _read_sources(
    found: list[tuple[str, str, Path]], classes: int, keypoints: tuple[int, int] | None, cache: FileCache
) -> tuple[Source, ...]:
    """Sources of (split, name, image); only those that the cache does not know are read, side by side."""
    kind = f"source/{classes}/{keypoints}"
    known: dict[str, tuple[str, str]] = {}
    for folder in _tops({image.parent for _, _, image in found}):
        known |= cache.below(kind, folder)
    labels = [label_path(image) for _, _, image in found]
    marks = [stamp([image, label]) for (_, _, image), label in zip(found, labels, strict=True)]
    facts: list[dict[str, Any] | None] = []
    for (_, _, image), mark in zip(found, marks, strict=True):
        entry = known.get(str(image))
        facts.append(json.loads(entry[1]) if entry and entry[0] == mark else None)
    missing = [i for i, fields in enumerate(facts) if fields is None]

    def read(chunk: list[int]) -> None:
        for i in chunk:
            image = found[i][2]
            facts[i] = fields = _read_source(image, labels[i], classes, keypoints)
            if fields["digest"]:
                cache.put(kind, image, marks[i], json.dumps(fields))

    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        list(pool.map(read, (missing[i : i + 64] for i in range(0, len(missing), 64))))
    cache.flush()
    return tuple(
        _source(split, name, image, label, fields or {})
        for (split, name, image), label, fields in zip(found, labels, facts, strict=True)
    )


def _tops(folders: set[Path]) -> list[Path]:
    """The folders that are below no other of them."""
    tops: list[Path] = []
    for folder in sorted(folders):
        if not tops or not folder.is_relative_to(tops[-1]):
            tops.append(folder)
    return tops


def _source(split: str, name: str, image: Path, label: Path, fields: dict[str, Any]) -> Source:
    return Source(
        split=split,
        name=name,
        path=image,
        label=label if fields["labelled"] else None,
        digest=fields["digest"],
        width=fields["width"],
        height=fields["height"],
        counts=tuple((i, n) for i, n in fields["counts"]),
        smallest=tuple(fields["smallest"]),
        problem=fields["problem"],
    )


def _read_source(image: Path, label: Path, classes: int, keypoints: tuple[int, int] | None) -> dict[str, Any]:
    """The facts of one image and its label, as they go into the cache. `problem` is "word: text"."""
    fields: dict[str, Any] = {
        "digest": "", "width": 0, "height": 0, "labelled": False, "counts": [], "smallest": [], "problem": None
    }  # fmt: skip
    try:
        pixels = image.read_bytes()
        text = label.read_bytes() if label.is_file() else None
    except OSError as error:
        return {**fields, "problem": f"unreadable: {error.strerror or error}"}
    fields["labelled"] = text is not None
    fields["digest"] = hashlib.sha256(pixels + b"\0" + (text or b"")).hexdigest()
    try:
        shapes = parse_labels(text or b"", classes, keypoints)
    except LabelError as error:
        return {**fields, "problem": f"{error.reason}: {error}"}
    if image.suffix.lower() not in SUFFIXES:
        return {**fields, "problem": f"format: {image.suffix.lower()} is carried over unedited"}
    try:
        width, height = read_size(pixels)
    except SourceError as error:
        return {**fields, "problem": f"unreadable: {error.message}"}
    counts: dict[int, int] = {}
    for shape in shapes:
        counts[shape.class_id] = counts.get(shape.class_id, 0) + 1
    sides = [min((s.box[2] - s.box[0]) * width, (s.box[3] - s.box[1]) * height) for s in shapes]
    fields.update(
        width=width, height=height, counts=sorted(counts.items()), smallest=[round(side, 1) for side in sides]
    )
    if min(width, height) < LEAST_SIDE:
        fields["problem"] = f"tiny: {width}×{height} pixels, under {LEAST_SIDE}"
    return fields
