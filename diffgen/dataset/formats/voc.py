"""Pascal VOC annotations (one .xml beside each image) to YOLO rows. Classes are sorted by name over all splits.

What other tools write is read where its meaning is certain: no size or size 0 (the picture's own), a polygon without a box
(the box around it), swapped corners, decimal commas, encodings that expat does not know, a bare "&". The picture of any
other annotation is left out of the dataset, with the reason.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element, ParseError

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import Found, Listing, box_row, images_below, reaches_out, sharing
from diffgen.dataset.formats.sizes import header_size
from diffgen.errors import UsageError, why
from diffgen.files import read_regular, stamp

_ENDS = ("xmin", "ymin", "xmax", "ymax")
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*>""")
_BARE = re.compile(r"&(?!#?\w+;)")
_POINT = re.compile(r"[xy]\d*")  # a coordinate of a polygon: <pt><x>, <x1>, <y1>


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
        xmls = {image: _beside(beside / image.relative_to(folder)) for image in images}
        used.update(map(str, xmls.values()))
        if names is not None:
            images, lost = _listed(split, folder, names, images)
            notes.setdefault("not there", []).extend(f"{split}: {name}" for name in lost)
        for image in images:
            xml = xmls[image]
            pairs.append((str(image), str(xml)))
            files.append((split, image, folder, _objects(xml, cache) if xml.exists() else None))
    notes["one label"] = sharing(pairs)
    notes["unused"] = _without_image({beside for _, beside, _ in splits.values()}, used)
    classes = sorted({name for _, _, _, facts in files if facts for name, *_ in facts["objects"]})
    if not classes:
        raise _no_object([facts for _, _, _, facts in files])
    order = {name: i for i, name in enumerate(classes)}
    found = []
    for split, image, folder, facts in files:
        if facts is None:
            notes.setdefault("no annotation", []).append(f"{split}: {image.name}")
            found.append(Found(split, str(image), str(folder), None))
        else:
            found.append(_found(Found(split, str(image), str(folder), b""), facts, order, one_based, cache))
    cache.flush()
    folders = tuple(folder for folder, _, _ in splits.values())
    notes = {word: lines for word, lines in notes.items() if lines}
    return Listing(
        next(iter(splits.values()))[1], tuple(classes), tuple(found), folders=folders, notes=notes, roots=folders
    )


def _found(picture: Found, facts: dict[str, Any], order: dict[str, int], one_based: bool, cache: FileCache) -> Found:
    """The picture with the YOLO rows of its annotation, or with the reason why it has none."""
    if facts["problem"] or not facts["objects"]:
        return replace(picture, problem=facts["problem"])
    stated = facts["size"]
    try:
        size = (int(stated[0]), int(stated[1])) if stated else header_size(picture.image, cache)
        label = "".join(_row(order[name], ends, size, one_based) for name, *ends in facts["objects"])
        beyond = any(reaches_out((x0, y0, x1, y1), size) for _, x0, y0, x1, y1 in facts["objects"])
    except ValueError as error:
        return replace(picture, problem=f"annotation: {error}")
    return replace(picture, label=label.encode(), size=size, reaches_out=beyond)


def _row(class_id: int, ends: list[float], size: tuple[int, int], one_based: bool) -> str:
    start = 1.0 if one_based else 0.0
    x0, y0, x1, y1 = ends
    row = box_row(class_id, (x0 - start, y0 - start, x1, y1), size)
    if row is None:
        raise ValueError(f"the box {ends} has no area within the picture's {size[0]}×{size[1]} pixels")
    return row


def _no_object(annotations: list[dict[str, Any] | None]) -> UsageError:
    """The error for a dataset without a class."""
    read = [facts for facts in annotations if facts is not None]
    problems = [facts["problem"].partition(": ")[2] for facts in read if facts["problem"]]
    if not read:
        return UsageError(
            "dataset: no image has a voc annotation", "annotation files are named like the images, with the suffix .xml"
        )
    if problems:
        return UsageError(
            f"dataset: no voc annotation can be read: {problems[0]}", "give annotations in Pascal VOC format"
        )
    return UsageError("dataset: the voc annotations name no object", "check 'annotations:' of the splits")


def _beside(image: Path) -> Path:
    """The annotation of an image: .xml, or .XML if only that exists."""
    xml, shouted = image.with_suffix(".xml"), image.with_suffix(".XML")
    return shouted if not xml.is_file() and shouted.is_file() else xml


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
        lines = [line.strip() for line in read_regular(names).decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"dataset.{split}.list: {names}: cannot be read: {why(error)}", "it must be text, one image name per line"
        ) from None
    called = {image: image.relative_to(folder).as_posix() for image in images}
    known = {form for name in called.values() for form in (name, os.path.splitext(name)[0])}
    wanted = {line: _named_on(line, known) for line in lines}
    forms = set(wanted.values())
    found = [image for image, name in called.items() if forms & {name, os.path.splitext(name)[0]}]
    if not found:
        first = f"'{lines[0]:.80}' is not an image in {folder}" if lines else "it is empty"
        raise UsageError(
            f"dataset.{split}.list: {names} names no image: {first}",
            "write one image name per line, relative to 'images:'",
        )
    return found, [line for line, form in wanted.items() if form is None]


def _named_on(line: str, known: set[str]) -> str | None:
    """The image's name on a line of a list: all of it, or without its last word (1, 0 or -1 in VOC's lists by class)."""
    line = line.replace("\\", "/")
    return next((form for form in (line, line.rpartition(" ")[0].strip(), line.split()[0]) if form in known), None)


def _without_image(folders: Iterable[Path], used: set[str]) -> list[str]:
    files = (os.path.join(below, name) for place in folders for below, _, names in os.walk(place) for name in names)
    return sorted(file for file in files if file.lower().endswith(".xml") and file not in used)


def _objects(xml: Path, cache: FileCache) -> dict[str, Any]:
    """{"size": [width, height] or null, "objects": [[name, xmin, ymin, xmax, ymax], …], "problem": text or null}."""
    known = cache.known("voc", xml, f"3;{stamp([xml])}", lambda: json.dumps(_parse(xml)))
    facts: dict[str, Any] = json.loads(known)
    return facts


def _parse(xml: Path) -> dict[str, Any]:
    try:
        root = _tree(read_regular(xml))
        for element in root.iter():  # without a namespace, whatever the case
            element.tag = element.tag.rpartition("}")[2].lower()
        if root.tag != "annotation":
            raise ValueError(f"its root is <{root.tag:.40}>, not <annotation>")
        objects = [[_name(item), *_box(item)] for item in root.iter("object")]
        if not objects and root.find(".//bndbox") is not None:
            raise ValueError("a bndbox is outside of any object")
    except (OSError, ParseError, ValueError) as error:
        return {"size": None, "objects": [], "problem": f"annotation: {xml.name}: {why(error)}"}
    return {"size": _size(root), "objects": objects, "problem": None}


def _tree(raw: bytes) -> Element:
    from defusedxml.ElementTree import fromstring

    try:
        return cast(Element, fromstring(raw))
    except (ParseError, ValueError, LookupError) as error:
        declared = _DECLARATION.match(raw)
        body, encoding = (raw[declared.end() :], declared[1].decode()) if declared else (raw, "utf-8-sig")
        try:
            text = body.decode(encoding)
        except LookupError:
            raise error from None
        return cast(Element, fromstring(_BARE.sub("&amp;", text)))


def _size(root: Element) -> list[float] | None:
    """The stated width and height; None if missing or 0, as tools write that do not open the picture."""
    try:
        size = [_number(root.findtext(f"size/{side}"), side) for side in ("width", "height")]
    except ValueError:
        return None
    return size if min(size) >= 1 else None


def _name(item: Element) -> str:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    return name


def _box(item: Element) -> list[float]:
    """xmin, ymin, xmax, ymax of an object; of its polygon where it has no bndbox."""
    if item.find("bndbox") is not None:
        x0, y0, x1, y1 = (_number(item.findtext(f"bndbox/{end}"), end) for end in _ENDS)
        return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
    points = [part for polygon in item.iter("polygon") for part in polygon.iter() if _POINT.fullmatch(part.tag)]
    xs, ys = ([_number(part.text, part.tag) for part in points if part.tag[0] == axis] for axis in "xy")
    if not xs or len(xs) != len(ys):
        raise ValueError("an object has neither bndbox nor polygon")
    return [min(xs), min(ys), max(xs), max(ys)]


def _number(text: str | None, name: str) -> float:
    """A number, also with a decimal comma."""
    text = (text or "").strip()
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {'not a number' if text else 'missing'}")
    return value
