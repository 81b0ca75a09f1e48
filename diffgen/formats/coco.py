"""COCO instances JSON to YOLO rows.

Class ids are contiguous in the order of the category ids over all splits. Crowd regions are dropped and counted. If one
object of a split has a polygon all its objects get one, because Ultralytics takes no file that mixes the two.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from diffgen.errors import UsageError, why
from diffgen.formats import Found, Listing, box_row, is_image, outline_row


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
            if not isinstance(identity, int) or not isinstance(name, str):
                raise UsageError(f"{path}: a category has no id or name", "give the instances .json of a COCO dataset")
            if categories.setdefault(identity, name) != name:
                raise UsageError(
                    f"{path}: category {identity} is '{name}', in another split '{categories[identity]}'",
                    "use annotation files of one dataset",
                )
    order = {identity: i for i, identity in enumerate(sorted(categories))}
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
    split: str, folder: Path, path: Path, data: dict[str, Any], order: dict[int, int], notes: dict[str, list[str]]
) -> list[Found]:
    if not folder.is_dir():
        raise UsageError(f"{path}: the image folder {folder} is not there", "check 'images:' of the split")
    objects: dict[Any, list[dict[str, Any]]] = {}
    for entry in _rows(data, "annotations", path):
        if isinstance(entry.get("image_id"), (int, str)):
            objects.setdefault(entry["image_id"], []).append(entry)
    outlines = any(_polygons(entry) for entries in objects.values() for entry in entries if not entry.get("iscrowd"))
    found = []
    for image in _rows(data, "images", path):
        name, width, height = image.get("file_name"), image.get("width"), image.get("height")
        if not isinstance(name, str) or "\0" in name or not _positive(width) or not _positive(height):
            raise UsageError(
                f"{path}: an image has no file_name, width or height", "give the instances .json of a COCO dataset"
            )
        file = Path(os.path.abspath(folder / name))
        if not os.path.isfile(file) and os.path.isfile(folder / Path(name).name):
            file = folder / Path(name).name  # exports often write the folder into the name once more
        if not is_image(file.name):
            notes.setdefault("format", []).append(f"{split}: {name}: not a suffix that Ultralytics loads")
            continue
        rows = []
        identity = image.get("id")
        for entry in objects.get(identity, ()) if isinstance(identity, (int, str)) else ():
            if outlines and isinstance(entry.get("segmentation"), dict) and not entry.get("iscrowd"):
                notes.setdefault("mask", []).append(f"{split}: annotation {entry.get('id')} of {name}: its box instead")
            row = _row(entry, (float(width), float(height)), order, outlines)
            if row is None:
                word = "crowd" if entry.get("iscrowd") else "degenerate"
                notes.setdefault(word, []).append(f"{split}: annotation {entry.get('id')} of {name}")
            else:
                rows.append(row)
        found.append(Found(split, str(file), str(folder), "".join(rows).encode(), (int(width), int(height))))
    if not found:
        raise UsageError(f"{path}: names no images", "give the instances .json of a COCO dataset")
    return sorted(found, key=lambda entry: entry.image)


def _positive(value: Any) -> TypeGuard[float]:
    return _number(value) and 0 < value < 1e9


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _row(entry: dict[str, Any], size: tuple[float, float], order: dict[int, int], outlines: bool) -> str | None:
    """The YOLO row of one annotation; None for crowd regions and for those that no box can be made of."""
    if entry.get("iscrowd") or not isinstance(entry.get("category_id"), int) or entry["category_id"] not in order:
        return None
    class_id = order[entry["category_id"]]
    if outlines and (polygons := _polygons(entry)):
        return outline_row(class_id, _joined(polygons), size)
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_number, box)):
        return None
    x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if box_row(class_id, (x0, y0, x1, y1), size) is None:
        return None
    if outlines:  # a mask (RLE) or nothing: the box stands for it
        return outline_row(class_id, (x0, y0, x1, y0, x1, y1, x0, y1), size)
    return box_row(class_id, (x0, y0, x1, y1), size)


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
