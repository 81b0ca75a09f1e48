"""COCO instances JSON to YOLO rows.

Class ids are contiguous, in the order of the category ids of all splits. Crowd regions are left out and counted. If one
object of a split has a polygon, all of its objects get one, because Ultralytics accepts no label file that mixes boxes and
polygons.

What other tools write is read where its meaning is certain: numbers as text, no sizes (the pictures' own), a box as a
mapping, a mask without a box (the box around it), `iscrowd` on every annotation (none is a crowd then), Windows separators.
A picture with any other annotation is left out of the dataset, with the reason. Annotations in which two images share an id,
or two names lead to one file, are refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import Found, Listing, is_image, reaches_out
from diffgen.dataset.formats.coco_objects import Size, number, polygons_of, sides_of, yolo_row
from diffgen.dataset.formats.sizes import header_size
from diffgen.errors import UsageError, why
from diffgen.files import read_regular
from diffgen.recipe.yaml_reader import is_whole


def read_coco(splits: Mapping[str, tuple[Path, Path]], cache: FileCache) -> Listing:
    """The listing of (image folder, annotations file) by split. Raises UsageError, which names the file that is not COCO."""
    if not splits:
        raise UsageError("dataset: a coco dataset needs a train split", "add 'train: {images: …, annotations: …}'")
    loaded = {split: _load(path) for split, (_, path) in splits.items()}
    first = next(iter(splits.values()))[1]
    categories = _categories({splits[split][1]: data for split, data in loaded.items()})
    if not categories:
        raise UsageError(f"{first}: names no categories", "give the instances .json of a COCO dataset")
    order = {identity: i for i, identity in enumerate(categories)}
    entries = {split: _rows(data, "annotations", splits[split][1]) for split, data in loaded.items()}
    notes: dict[str, list[str]] = {}
    if roots := _unused_roots(loaded.values(), entries.values()):
        notes["root"] = roots
    every = [entry for annotations in entries.values() for entry in annotations]
    if every and all(map(_is_crowd, every)):
        notes["all crowd"] = [f"annotation {entry.get('id')}" for entry in every]
        for entry in every:
            entry["iscrowd"] = 0
    found: list[Found] = []
    for split, (folder, path) in splits.items():
        found += _split(split, folder, path, loaded[split], order, notes, cache)
    cache.flush()
    folders = tuple(folder for folder, _ in splits.values())
    return Listing(first, tuple(categories.values()), tuple(found), folders=folders, notes=notes, roots=folders)


def _categories(files: Mapping[Path, dict[str, Any]]) -> dict[str, str]:
    """The names by id, over all splits, in the order of the ids as numbers."""
    names: dict[str, str] = {}
    for path, data in files.items():
        for category in _rows(data, "categories", path):
            identity, name = _identity(category.get("id")), _identity(category.get("name"))
            if identity is None or name is None:
                raise UsageError(
                    f"{path}: a category has no id or name: {category!r:.80}",
                    "give the instances .json of a COCO dataset",
                )
            if names.setdefault(identity, name) != name:
                raise UsageError(
                    f"{path}: category {identity} is '{name}', in another split '{names[identity]}'",
                    "use annotation files of one dataset",
                )
    return {identity: names[identity] for identity in sorted(names, key=_in_order)}


def _in_order(identity: str) -> tuple[float, str]:
    try:
        return float(identity), ""
    except ValueError:
        return math.inf, identity


def _unused_roots(files: Iterable[dict[str, Any]], entries: Iterable[list[dict[str, Any]]]) -> list[str]:
    """The categories without an annotation that others name as supercategory, as Roboflow writes one. Each is a class here,
    but in that project's YOLO export it is none, so the other classes have other ids there."""
    used = {_identity(entry.get("category_id")) for annotations in entries for entry in annotations}
    categories = [category for data in files for category in data["categories"]]
    above = {category.get("supercategory") for category in categories if isinstance(category.get("supercategory"), str)}
    names = {
        category["name"]: _identity(category["id"]) for category in categories if isinstance(category["name"], str)
    }
    selfmade = {category["name"] for category in categories if category.get("supercategory") == category["name"]}
    return [f"'{name}'" for name, identity in names.items() if name in above - selfmade and identity not in used]


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_regular(path))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot read the annotations: {why(error)}", "check 'annotations:' of the split"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {why(error)}", "it must be a COCO instances file") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: not COCO instances JSON", "it must hold 'images', 'annotations' and 'categories'")
    return data


def _rows(data: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    rows = data.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: '{key}' is not a list of mappings", "give the instances .json of a COCO dataset")
    return rows


def _split(
    split: str,
    folder: Path,
    path: Path,
    data: dict[str, Any],
    order: dict[str, int],
    notes: dict[str, list[str]],
    cache: FileCache,
) -> list[Found]:
    """The images of one split, sorted by path. `order` is the class id by category id."""
    if not folder.is_dir():
        raise UsageError(f"{path}: the image folder {folder} does not exist", "check 'images:' of the split")

    def note(word: str, text: str) -> None:
        notes.setdefault(word, []).append(f"{split}: {text}")

    objects: dict[str | None, list[dict[str, Any]]] = {}
    for entry in data["annotations"]:
        objects.setdefault(_identity(entry.get("image_id")), []).append(entry)
    outlines = any(polygons_of(entry) for entries in objects.values() for entry in entries if not _is_crowd(entry))
    images = _images(data, path)
    places: dict[str, str] = {}  # by file: where it should be
    found: dict[str, Found] = {}
    for identity, (name, size) in images.items():
        file, place = _file(folder, name)
        if not is_image(os.path.basename(file)):
            note("format", name)
            continue
        if places.setdefault(file, place) != place:
            raise UsageError(
                f"{path}: {places[file]} and {place} both lead to {file}",
                "give each image its own path below the image folder",
            )
        one = Found(split, file, str(folder), b"", size)
        if entries := objects.get(identity):
            one = _labelled(one, entries, name, order, outlines, note, cache)
        if file in found:
            note("listed twice", name)
            one = _merged(found[file], one)
        found[file] = one
    for image_id, entries in objects.items():
        if image_id not in images:
            for entry in entries:
                note("no image", f"annotation {entry.get('id')}: image_id {entry.get('image_id')!r:.40}")
    if not found:
        raise UsageError(f"{path}: names no images", "give the instances .json of a COCO dataset")
    return sorted(found.values(), key=lambda entry: entry.image)


def _images(data: dict[str, Any], path: Path) -> dict[str, tuple[str, Size | None]]:
    """(file_name, stated size) by id. An id may be repeated only for the same image."""
    images: dict[str, tuple[str, Size | None]] = {}
    for image in _rows(data, "images", path):
        identity, name = _identity(image.get("id")), image.get("file_name")
        if not name and isinstance(
            image.get("coco_url"), str
        ):  # LVIS: http://images.cocodataset.org/val2017/000000397133.jpg
            name = "/".join(urlsplit(image["coco_url"]).path.split("/")[-2:])
        if identity is None or not isinstance(name, str) or not name:
            raise UsageError(
                f"{path}: an image has no id or file_name: {image!r:.80}", "give the instances .json of a COCO dataset"
            )
        if "\0" in name or not is_whole(name):
            raise UsageError(f"{path}: {name!a} cannot be a file name", "write the file_name as UTF-8 text")
        sides = [number(image.get(side)) or 0 for side in ("width", "height")]
        size = (int(sides[0]), int(sides[1])) if min(sides) >= 1 else None
        first, other = images.setdefault(identity, (name, size))
        if (first, other) != (name, size):
            raise UsageError(
                f"{path}: the id {identity:.40} belongs to two images: {first}{sides_of(other)}, "
                f"{name}{sides_of(size)}",
                "give every image its own id, and use it as image_id in its annotations",
            )
    return images


def _file(folder: Path, name: str) -> tuple[str, str]:
    """(the file of an image, where its file_name says it is). Exports often repeat the image folder in the name, and some
    write it with backslashes."""
    place = os.path.abspath(folder / name)
    if "\\" in name and not os.path.isfile(place):
        name = name.replace("\\", "/")
        place = os.path.abspath(folder / name)
    inside = str(folder / Path(name).name)
    return (inside if not os.path.isfile(place) and os.path.isfile(inside) else place), place


def _labelled(
    picture: Found,
    entries: Sequence[dict[str, Any]],
    name: str,
    order: dict[str, int],
    outlines: bool,
    note: Callable[[str, str], None],
    cache: FileCache,
) -> Found:
    """The picture with the YOLO rows of its annotations, or with the reason why it has none.

    Crowds, and masks of which only the box is used, are noted.
    """
    rows: list[str] = []
    text, beyond = "", False
    try:
        size = picture.size or header_size(picture.image, cache)
        for entry in entries:
            text = f"annotation {entry.get('id')!s:.40}: "
            if _is_crowd(entry):
                note("crowd", f"{text}{name}")
                continue
            class_id = order.get(_identity(entry.get("category_id")) or "")
            if class_id is None:
                raise ValueError(f"no category has the id {entry.get('category_id')!r:.40}")
            row = yolo_row(entry, size, class_id, outlines)
            rows.append(row.text)
            beyond = beyond or reaches_out(row.box, size)
            if outlines and not row.outlined and entry.get("segmentation"):
                note("mask", f"{text}{name}")
        if not rows:
            text = ""
            raise ValueError("it has only crowd regions, no object")
    except ValueError as error:
        return replace(picture, problem=f"annotation: {text}{error}")
    return replace(picture, label="".join(rows).encode(), size=size, reaches_out=beyond)


def _merged(first: Found, second: Found) -> Found:
    """One file under two ids has the objects of both."""
    rows = (cast(bytes, first.label) + cast(bytes, second.label)).decode().splitlines(keepends=True)
    problem = first.problem or second.problem
    if problem is None and None not in (first.size, second.size) and second.size != first.size:
        problem = f"size: annotated as{sides_of(first.size)} and as{sides_of(second.size)}"
    return replace(
        first,
        label="".join(dict.fromkeys(rows)).encode(),
        problem=problem,
        size=first.size or second.size,
        reaches_out=first.reaches_out or second.reaches_out,
    )


def _identity(value: Any) -> str | None:
    """An id or a name as text, None if it cannot be one. Some exports write 7 in one place and "7" or 7.0 in another."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) and value != "" else None


def _is_crowd(entry: dict[str, Any]) -> bool:
    return bool(number(entry.get("iscrowd"))) or entry.get("iscrowd") is True
