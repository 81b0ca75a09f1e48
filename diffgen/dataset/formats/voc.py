"""Pascal VOC annotations (one .xml beside each image) to YOLO rows. Classes are sorted by name over all splits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import Found, Listing, box_row, images_below, sharing
from diffgen.errors import UsageError, why
from diffgen.files import stamp

_ENDS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(splits: Mapping[str, tuple[Path, Path, Path | None]], one_based: bool, cache: FileCache) -> Listing:
    """The listing of (image folder, annotations folder, list of names or None) by split.

    `one_based`: pixels count from 1 and a box includes its last pixel (VOC's own rule), so a box reaches from xmin − 1 to
    xmax. Raises UsageError when a folder is missing or no annotation names an object.
    """
    if not splits:
        raise UsageError("dataset: a voc dataset needs a train split", "add 'train: {images: …, annotations: …}'")
    files: list[tuple[str, Path, Path, dict[str, Any] | None]] = []  # None: no annotation
    notes: dict[str, list[str]] = {}
    pairs: list[tuple[str, str]] = []  # (image, its annotation)
    used: set[str] = set()  # also annotations of images that no list names
    for split, (folder, beside, names) in splits.items():
        images = _images(split, folder, beside)
        xmls = {image: beside / image.relative_to(folder).with_suffix(".xml") for image in images}
        used.update(map(str, xmls.values()))
        if names is not None:
            images, lost = _listed(split, folder, names, images)
            notes.setdefault("not there", []).extend(f"{split}: {name}" for name in lost)
        for image in images:
            xml = xmls[image]
            pairs.append((str(image), str(xml)))
            files.append((split, image, folder, _objects(xml, cache) if xml.is_file() else None))
    cache.flush()
    notes["one label"] = sharing(pairs)
    notes["unused"] = _without_image({beside for _, beside, _ in splits.values()}, used)
    classes = sorted({name for _, _, _, facts in files if facts for name, *_ in facts["objects"]})
    if not classes:
        raise UsageError("dataset: the voc annotations name no object", "check 'annotations:' of the splits")
    order = {name: i for i, name in enumerate(classes)}
    found = []
    for split, image, folder, facts in files:
        where = f"{split}: {image.name}"
        if facts is None:
            notes.setdefault("no annotation", []).append(where)
            found.append(Found(split, str(image), str(folder), None))
            continue
        label = _label(facts, order, one_based, where, notes)
        size = None if facts["problem"] else (int(facts["size"][0]), int(facts["size"][1]))
        found.append(Found(split, str(image), str(folder), label, size, facts["problem"]))
    folders = tuple(folder for folder, _, _ in splits.values())
    notes = {word: lines for word, lines in notes.items() if lines}
    return Listing(next(iter(splits.values()))[1], tuple(classes), tuple(found), folders=folders, notes=notes)


def _label(
    facts: dict[str, Any], order: dict[str, int], one_based: bool, where: str, notes: dict[str, list[str]]
) -> bytes:
    """The YOLO rows of an annotation; objects without area are noted."""
    start = 1.0 if one_based else 0.0
    rows = []
    for name, *ends in facts["objects"]:
        x0, y0, x1, y1 = ends
        row = box_row(order[name], (x0 - start, y0 - start, x1, y1), facts["size"])
        if row is None:
            notes.setdefault("degenerate", []).append(f"{where}: {name} {ends}")
        else:
            rows.append(row)
    return "".join(rows).encode()


def _images(split: str, folder: Path, annotations: Path) -> list[Path]:
    for place, key in ((folder, "images"), (annotations, "annotations")):
        if not place.is_dir():
            raise UsageError(
                f"dataset.{split}.{key}: {place} is not a folder", "check the path, relative to the recipe"
            )
    images = [Path(image) for image in images_below(folder)]
    if not images:
        raise UsageError(f"dataset.{split}: no images in {folder}", "images need a suffix that Ultralytics loads")
    return images


def _listed(split: str, folder: Path, names: Path, images: list[Path]) -> tuple[list[Path], list[str]]:
    """(images that a list names, with or without suffix; names of the list that match no image)."""
    try:
        wanted = [line.split()[0] for line in names.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"dataset.{split}.list: {names}: cannot be read: {why(error)}", "it must be text, one image name per line"
        ) from None
    called = {image: image.relative_to(folder).as_posix() for image in images}
    known = set(wanted)
    found = [image for image, name in called.items() if known & {name, os.path.splitext(name)[0]}]
    if not found:
        first = f"'{wanted[0]:.80}' is no image of {folder}" if wanted else "it is empty"
        raise UsageError(
            f"dataset.{split}.list: {names} names no image: {first}",
            "write one image name per line, relative to 'images:'",
        )
    there = {form for image in found for form in (called[image], os.path.splitext(called[image])[0])}
    return found, [name for name in wanted if name not in there]


def _without_image(folders: Iterable[Path], used: set[str]) -> list[str]:
    files = (os.path.join(below, name) for place in folders for below, _, names in os.walk(place) for name in names)
    return sorted(file for file in files if file.endswith(".xml") and file not in used)


def _objects(xml: Path, cache: FileCache) -> dict[str, Any]:
    """{"size": [width, height], "objects": [[name, xmin, ymin, xmax, ymax], …], "problem": text or null} of one file."""
    known = cache.known("voc", xml, f"2;{stamp([xml])}", lambda: json.dumps(_parse(xml)))
    facts: dict[str, Any] = json.loads(known)
    return facts


def _parse(xml: Path) -> dict[str, Any]:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import parse

    try:
        root = parse(xml).getroot()
        size = [_number(root, "size/width"), _number(root, "size/height")]
        objects = []
        for item in root.iter("object"):
            name = (item.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object has no name")
            objects.append([name, *(_number(item, f"bndbox/{end}") for end in _ENDS)])
        if min(size) <= 0:
            raise ValueError(f"its size is {size[0]:g}×{size[1]:g}")
    except (OSError, ParseError, DefusedXmlException, ValueError) as error:
        return {"size": [1, 1], "objects": [], "problem": f"annotation: {xml.name}: {why(error)}"}
    return {"size": size, "objects": objects, "problem": None}


def _number(element: Element, path: str) -> float:
    text = element.findtext(path)
    value = float(text) if text is not None else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path} is missing or not a number")
    return value
