"""COCO instances JSON to YOLO rows.

Class ids are contiguous, in the order of the category ids of all splits. Crowd regions are left out and counted. If one
object of a split has a polygon, all of its objects get one, because Ultralytics accepts no label file that mixes boxes and
polygons.

A wrong label is worse than a missing image: annotations in which two images share an id, or two names lead to one file, are
refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard, cast

from diffgen.dataset.formats import Found, Listing, box_row, is_image, outline_row
from diffgen.errors import UsageError, why
from diffgen.recipe.yaml_reader import is_whole

Size = tuple[float, float]  # (width, height) in pixels, as annotated


def read_coco(splits: Mapping[str, tuple[Path, Path]]) -> Listing:
    """The listing of (image folder, annotations file) by split. Raises UsageError, which names the file that is not COCO."""
    if not splits:
        raise UsageError("dataset: a coco dataset needs a train split", "add 'train: {images: …, annotations: …}'")
    loaded = {split: _load(path) for split, (_, path) in splits.items()}
    categories: dict[int, str] = {}
    first = next(iter(splits.values()))[1]
    for split, data in loaded.items():
        path = splits[split][1]
        for category in _rows(data, "categories", path):
            identity, name = category.get("id"), category.get("name")
            if not isinstance(identity, int) or isinstance(identity, bool) or not isinstance(name, str):
                raise UsageError(f"{path}: a category has no id or name", "give the instances .json of a COCO dataset")
            if categories.setdefault(identity, name) != name:
                raise UsageError(
                    f"{path}: category {identity} is '{name}', in another split '{categories[identity]}'",
                    "use annotation files of one dataset",
                )
    order = {str(identity): i for i, identity in enumerate(sorted(categories))}
    if not order:
        raise UsageError(f"{first}: names no categories", "give the instances .json of a COCO dataset")
    found: list[Found] = []
    notes: dict[str, list[str]] = {}
    for split, (folder, path) in splits.items():
        found += _split(split, folder, path, loaded[split], order, notes)
    folders = tuple(folder for folder, _ in splits.values())
    return Listing(first, tuple(categories[i] for i in sorted(categories)), tuple(found), folders=folders, notes=notes)


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
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
    split: str, folder: Path, path: Path, data: dict[str, Any], order: dict[str, int], notes: dict[str, list[str]]
) -> list[Found]:
    """The images of one split, sorted by path. `order` is the class id by category id."""
    if not folder.is_dir():
        raise UsageError(f"{path}: the image folder {folder} is not there", "check 'images:' of the split")

    def note(word: str, text: str) -> None:
        notes.setdefault(word, []).append(f"{split}: {text}")

    objects: dict[str | None, list[dict[str, Any]]] = {}
    for entry in _rows(data, "annotations", path):
        objects.setdefault(_identity(entry.get("image_id")), []).append(entry)
    outlines = any(_polygons(entry) for entries in objects.values() for entry in entries if not entry.get("iscrowd"))
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
                "give each image its path below the image folder",
            )
        label = _label(objects.get(identity, ()), name, size, order, outlines, note)
        one = Found(split, file, str(folder), label, (int(size[0]), int(size[1])))
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


def _images(data: dict[str, Any], path: Path) -> dict[str, tuple[str, Size]]:
    """(file_name, size) by id. An id may be repeated only for the same image."""
    images: dict[str, tuple[str, Size]] = {}
    for image in _rows(data, "images", path):
        name, width, height = (image.get(key) for key in ("file_name", "width", "height"))
        identity = _identity(image.get("id"))
        if identity is None or not isinstance(name, str) or not _positive(width) or not _positive(height):
            raise UsageError(
                f"{path}: an image has no id, file_name, width or height", "give the instances .json of a COCO dataset"
            )
        if "\0" in name or not is_whole(name):
            raise UsageError(f"{path}: {name!a} cannot be the name of a file", "write the file_name as UTF-8 text")
        size = (float(width), float(height))
        first, other = images.setdefault(identity, (name, size))
        if (first, other) != (name, size):
            raise UsageError(
                f"{path}: the id {identity:.40} belongs to two images: {first} ({_by(other)}), {name} ({_by(size)})",
                "give every image an id of its own, and its annotations the same image_id",
            )
    return images


def _file(folder: Path, name: str) -> tuple[str, str]:
    """(the file of an image, where its file_name says it is). Exports often repeat the image folder in the name."""
    place = os.path.abspath(folder / name)
    inside = str(folder / Path(name).name)
    return (inside if not os.path.isfile(place) and os.path.isfile(inside) else place), place


def _label(
    entries: Iterable[dict[str, Any]],
    name: str,
    size: Size,
    order: dict[str, int],
    outlines: bool,
    note: Callable[[str, str], None],
) -> bytes:
    """The YOLO rows of an image's annotations; those that are left out or changed are noted."""
    rows: list[str] = []
    for entry in entries:
        text = f"annotation {entry.get('id')} of {name}"
        class_id = order.get(_identity(entry.get("category_id")) or "")
        if entry.get("iscrowd"):
            note("crowd", text)
        elif class_id is None:
            note("category", f"{text}: {entry.get('category_id')!r:.40}")
        elif (row := _row(entry, size, class_id, outlines)) is None:
            note("degenerate", text)
        else:
            rows.append(row)
            if outlines and isinstance(entry.get("segmentation"), dict):
                note("mask", text)
    return "".join(rows).encode()


def _merged(first: Found, second: Found) -> Found:
    """One file under two ids has the objects of both."""
    rows = (cast(bytes, first.label) + cast(bytes, second.label)).decode().splitlines(keepends=True)
    problem = first.problem
    if second.size != first.size:
        problem = f"size: annotated as {_by(first.size)} and as {_by(second.size)}"
    return replace(first, label="".join(dict.fromkeys(rows)).encode(), problem=problem)


def _identity(value: Any) -> str | None:
    """An id as text, None if it cannot be one. Some exports write 7 in one place and "7" or 7.0 in another."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _by(size: Size | None) -> str:
    return f"{size[0]:.0f}×{size[1]:.0f}" if size else ""


def _positive(value: Any) -> TypeGuard[float]:
    return _number(value) and value > 0


def _number(value: Any) -> TypeGuard[float]:
    """Whether it is a number of pixels: finite, and small enough to calculate with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _row(entry: dict[str, Any], size: Size, class_id: int, outlines: bool) -> str | None:
    """The YOLO row of one annotation; None if it has no area inside the picture."""
    if outlines and (polygons := _polygons(entry)):
        inside = [part for part in polygons if box_row(class_id, _box(part), size) is not None]
        return outline_row(class_id, _joined(inside), size) if inside else None
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_number, box)):
        return None
    x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if box_row(class_id, (x0, y0, x1, y1), size) is None:
        return None
    if outlines:  # a mask (RLE), or no segmentation: the box is used
        return outline_row(class_id, (x0, y0, x1, y0, x1, y1, x0, y1), size)
    return box_row(class_id, (x0, y0, x1, y1), size)


def _box(points: list[float]) -> tuple[float, float, float, float]:
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _polygons(entry: dict[str, Any]) -> list[list[float]]:
    """The polygons of an annotation that have three or more points."""
    parts = entry.get("segmentation")
    if not isinstance(parts, list):
        return []
    return [
        part
        for part in parts
        if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and all(map(_number, part))
    ]


def _joined(polygons: list[list[float]]) -> list[float]:
    """One outline from several polygons, as a YOLO row holds a single one.

    Each further polygon is connected, there and back, where it is nearest to the outline, so the connection has no area.
    """
    outline = list(polygons[0])
    for part in polygons[1:]:
        pairs = [
            ((outline[i] - part[j]) ** 2 + (outline[i + 1] - part[j + 1]) ** 2, i, j)
            for i in range(0, len(outline), 2)
            for j in range(0, len(part), 2)
        ]
        _, i, j = min(pairs)
        turned = part[j:] + part[:j] + part[j : j + 2]
        outline = outline[: i + 2] + turned + outline[i:]
    return outline
