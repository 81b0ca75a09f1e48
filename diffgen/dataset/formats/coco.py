"""COCO instances JSON to YOLO rows.

Class ids are contiguous in the order of the category ids over all splits. Crowd regions are dropped and counted. If one
object of a split has a polygon all its objects get one, because Ultralytics takes no file that mixes the two.

A wrong label is worse than no image: where two images share an id, or two names lead to one file, the file is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard, cast

from diffgen.dataset.formats import Found, Listing, box_row, is_image, outline_row
from diffgen.errors import UsageError, why
from diffgen.recipe.yaml_reader import is_whole


def read_coco(splits: Mapping[str, tuple[Path, Path]]) -> Listing:
    """The listing of (image folder, annotations file) by split. Raises UsageError naming the file that is not COCO."""
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
    if not folder.is_dir():
        raise UsageError(f"{path}: the image folder {folder} is not there", "check 'images:' of the split")

    def note(word: str, text: str) -> None:
        notes.setdefault(word, []).append(f"{split}: {text}")

    objects: dict[str | None, list[dict[str, Any]]] = {}
    for entry in _rows(data, "annotations", path):
        objects.setdefault(_identity(entry.get("image_id")), []).append(entry)
    outlines = any(_polygons(entry) for entries in objects.values() for entry in entries if not entry.get("iscrowd"))
    images: dict[str, tuple[str, tuple[int, int]]] = {}
    places: dict[str, str] = {}  # by file: where it should lie
    found: dict[str, Found] = {}
    for image in _rows(data, "images", path):
        identity, name, width, height = (image.get(key) for key in ("id", "file_name", "width", "height"))
        identity = _identity(identity)
        if identity is None or not isinstance(name, str) or not _positive(width) or not _positive(height):
            raise UsageError(
                f"{path}: an image has no id, file_name, width or height", "give the instances .json of a COCO dataset"
            )
        if "\0" in name or not is_whole(name):
            raise UsageError(f"{path}: {name!a} cannot be the name of a file", "write the file_name as UTF-8 text")
        size = (int(width), int(height))
        if identity in images:
            if images[identity] == (name, size):
                continue
            first, other = images[identity]
            raise UsageError(
                f"{path}: the id {identity:.40} stands for two images: {first} ({_by(other)}), {name} ({_by(size)})",
                "give every image an id of its own, and its annotations the same image_id",
            )
        images[identity] = (name, size)
        file = place = os.path.abspath(folder / name)
        if not os.path.isfile(file) and os.path.isfile(folder / Path(name).name):
            file = str(folder / Path(name).name)  # exports often write the folder into the name once more
        if not is_image(os.path.basename(file)):
            note("format", name)
            continue
        if places.setdefault(file, place) != place:
            raise UsageError(
                f"{path}: {places[file]} and {place} both lead to {file}",
                "give each image its path below the image folder",
            )
        rows: list[str] = []
        for entry in objects.get(identity, ()):
            text = f"annotation {entry.get('id')} of {name}"
            class_id = order.get(_identity(entry.get("category_id")) or "")
            if entry.get("iscrowd"):
                note("crowd", text)
            elif class_id is None:
                note("category", f"{text}: {entry.get('category_id')!r:.40}")
            elif (row := _row(entry, (float(width), float(height)), class_id, outlines)) is None:
                note("degenerate", text)
            else:
                rows.append(row)
                if outlines and isinstance(entry.get("segmentation"), dict):
                    note("mask", text)
        one = Found(split, file, str(folder), "".join(rows).encode(), size)
        if (before := found.get(file)) is not None:  # one file under several ids: it has the objects of all of them
            note("listed twice", name)
            known = cast(bytes, before.label).decode().splitlines(keepends=True)
            one = replace(before, label="".join(dict.fromkeys(known + rows)).encode())
            if size != before.size:
                one = replace(one, problem=f"size: annotated as {_by(before.size)} and as {_by(size)}")
        found[file] = one
    for identity, entries in objects.items():
        if identity not in images:
            for entry in entries:
                note("no image", f"annotation {entry.get('id')}: image_id {entry.get('image_id')!r:.40}")
    if not found:
        raise UsageError(f"{path}: names no images", "give the instances .json of a COCO dataset")
    return sorted(found.values(), key=lambda entry: entry.image)


def _identity(value: Any) -> str | None:
    """An id as text, None for what is none: some exports write 7 here and "7" or 7.0 there."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _by(size: tuple[int, int] | None) -> str:
    return f"{size[0]}×{size[1]}" if size else ""


def _positive(value: Any) -> TypeGuard[float]:
    return _number(value) and value > 0


def _number(value: Any) -> TypeGuard[float]:
    """Whether it is a number of pixels: neither NaN nor one that arithmetic breaks on."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _row(entry: dict[str, Any], size: tuple[float, float], class_id: int, outlines: bool) -> str | None:
    """The YOLO row of one annotation; None for those that have no area within the picture."""
    if outlines and (polygons := _polygons(entry)):
        inside = [part for part in polygons if box_row(class_id, _box(part), size) is not None]
        return outline_row(class_id, _joined(inside), size) if inside else None
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_number, box)):
        return None
    x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if box_row(class_id, (x0, y0, x1, y1), size) is None:
        return None
    if outlines:  # a mask (RLE) or nothing: the box stands for it
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
    """One outline of several: each further part is entered and left at the point nearest to where the first one is, so that
    the connection has no area."""
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
