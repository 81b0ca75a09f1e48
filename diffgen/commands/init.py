"""`diffgen init`: find a dataset, and write a commented recipe, a Makefile fragment and a CI job for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import yaml

from diffgen.errors import UsageError, why

NAMES = ("diffgen.yaml", "diffgen.mk", "diffgen-ci.yml")  # of the files written, and of their templates
_FOLDERS = {"train": "train", "valid": "val", "val": "val", "test": "test"}  # folder name -> split
_DEPTH = 3  # levels of subfolders that are searched


def write_starter(folder: Path) -> list[Path]:
    """Write the three files into `folder` and return their paths. Raises UsageError, writing nothing, if one exists."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "give the folder of your dataset")
    targets = [folder / name for name in NAMES]
    if existing := [path for path in targets if path.exists()]:
        raise UsageError(f"{existing[0]} exists already", "move it away first; nothing was written")
    dataset, classes, has_val = find_dataset(folder)
    key = "val_from_train: 0.1               # the dataset has no val split: this share of train becomes val"
    fields = {
        "name": NAMES[0],
        "dataset": dataset,
        "classes": ", ".join(_quoted(name) for name in classes[:3]),
        "val": "" if has_val else f"\n{key}\n",
    }
    templates = files("diffgen.commands") / "templates"
    try:
        for path in targets:
            path.write_text((templates / path.name).read_text("utf-8").format(**fields), "utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there: {why(error)}", "choose another folder") from None
    return targets


def find_dataset(folder: Path) -> tuple[str, list[str], bool]:
    """(the recipe's `dataset` as YAML, class names, whether there is a val split) of the first dataset below `folder`.

    A YOLO data.yaml is preferred to COCO instances, these to Pascal VOC. Raises UsageError when there is no dataset.
    """
    for path in _below(folder, ("*.yaml", "*.yml")):
        if (names_and_val := _yolo(path)) is not None:
            return _quoted(path.relative_to(folder)), *names_and_val
    annotations = {split: path for path in _below(folder, ("*.json",)) if (split := _coco_split(path))}
    if "train" in annotations:
        parts = {
            split: {"images": _coco_images(folder, path, split), "annotations": path}
            for split, path in sorted(annotations.items())
        }
        return _mapping("coco", parts, folder), ["your", "class", "names"], "val" in annotations
    for xmls in sorted(path for path in folder.rglob("[Aa]nnotations") if path.is_dir()):
        if parts := _voc(xmls):
            return _mapping("voc", parts, folder), ["your", "class", "names"], "val" in parts
    raise UsageError(
        f"{folder}: found no dataset: no data.yaml, no COCO instances, no VOC Annotations beside JPEGImages or images",
        "give the folder that contains it, or copy a recipe from configs/",
    )


def _mapping(form: str, splits: dict[str, dict[str, Path]], folder: Path) -> str:
    """The `dataset` of a recipe as YAML, with paths relative to `folder`."""
    rows = [f"format: {form}"]
    for split, paths in splits.items():
        parts = (f"{key}: {_quoted(path.relative_to(folder))}" for key, path in paths.items())
        rows.append(f"{split}: {{{', '.join(parts)}}}")
    return "\n  " + "\n  ".join(rows)


def _quoted(text: object) -> str:
    """Text as a YAML value, quoted if needed; also valid in a flow mapping."""
    plain = str(text)
    if re.fullmatch(r"[\w./-]+( [\w./-]+)*", plain) and yaml.safe_load(plain) == plain:
        return plain
    return json.dumps(plain, ensure_ascii=not plain.isprintable())


def _below(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """Matching files, nearest first, except in hidden folders, runs/ and node_modules/."""
    for depth in range(_DEPTH + 1):
        for pattern in patterns:
            for path in sorted(folder.glob("*/" * depth + pattern)):
                parts = path.relative_to(folder).parts
                if not any(part.startswith(".") or part in ("runs", "node_modules") for part in parts):
                    yield path


def _yolo(path: Path) -> tuple[list[str], bool] | None:
    """(class names, whether there is a val split) of a data.yaml; None if the file is none."""
    try:
        data = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    if not isinstance(data, dict) or not data.get("train"):
        return None
    names, count = data.get("names"), data.get("nc")
    if names is None and isinstance(count, int):
        names = [f"class_{i}" for i in range(min(count, 3))]
    if not isinstance(names, (list, dict)):
        return None
    listed = list(names.values()) if isinstance(names, dict) else names
    return [str(name) for name in listed], bool(data.get("val") or data.get("validation"))


def _coco_split(path: Path) -> str | None:
    name = path.stem.lower()
    if name == "_annotations.coco":  # Roboflow: one file beside the images of each split
        return _FOLDERS.get(path.parent.name)
    if not name.startswith("instances"):
        return None
    return next((split for split in ("train", "val", "test") if split in name), None)


def _coco_images(folder: Path, annotations: Path, split: str) -> Path:
    """The image folder that most likely goes with an annotations file."""
    if not annotations.stem.lower().startswith("instances"):
        return annotations.parent
    year = annotations.stem.partition("_")[2]
    for top in (annotations.parent, annotations.parent.parent):
        for name in (f"images/{year}", year, f"images/{split}", split, "images"):
            if name and (top / name).is_dir() and top.is_relative_to(folder):
                return top / name
    return folder / "images"


def _voc(xmls: Path) -> dict[str, dict[str, Path]]:
    """The splits of a VOC dataset: by its ImageSets lists, else by its image folders; none if it has no images."""
    images = next((path for name in ("JPEGImages", "images") if (path := xmls.parent / name).is_dir()), None)
    if images is None or next(xmls.rglob("*.xml"), None) is None:
        return {}
    both = {"images": images, "annotations": xmls}
    main = xmls.parent / "ImageSets" / "Main"
    lists = {path.stem: path for path in main.glob("*.txt") if path.stat().st_size}
    if "train" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
        lists.pop("val", None)
    if "train" in lists:
        return {split: both | {"list": lists[split]} for split in ("train", "val", "test") if split in lists}
    parts = {}
    for name, split in _FOLDERS.items():
        if (images / name).is_dir():
            beside = xmls / name if (xmls / name).is_dir() else xmls
            parts[split] = {"images": images / name, "annotations": beside}
    return parts if "train" in parts else {"train": both}
