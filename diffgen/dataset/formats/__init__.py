"""Dataset formats, one file each. A format reads what the recipe names into a Listing. Images of a stated size stay shut."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffgen.dataset.images import SUFFIXES
from diffgen.errors import UsageError, why

SPLITS = ("train", "val", "test")
# Every suffix that Ultralytics loads; files with suffixes outside SUFFIXES are copied unedited.
LOADED = SUFFIXES | {".heic", ".heif", ".avif", ".dng", ".jp2"}

# Omitted or changed content of a dataset: word -> how `plan` describes it.
NOTES = {
    "all crowd": "annotations with iscrowd: 1 read as objects, because all annotations have it",
    "crowd": "annotations of crowds left out",
    "download": "key left out: diffgen downloads no dataset",
    "format": "images left out: Ultralytics does not load this suffix",
    "listed twice": "images with more than one id: they get the annotations of all",
    "mask": "annotations with a mask: the box is used",
    "no annotation": "images without an annotation file: background",
    "no image": "annotations left out: no image has this image_id",
    "not there": "names in a list that match no image",
    "outside": "folders outside the dataset that its paths or links lead to (--confined refuses them)",
    "root": "categories without annotations, used only as supercategories: each becomes a class",
    "one label": "images that share their label file with another image",
    "test": "test split left out: missing or empty (training does not use it)",
    "unused": "annotation files without an image, not used",
}


@dataclass(frozen=True, slots=True)
class Found:
    """An image of a split, the `folder` that was searched, and its YOLO label: text, or the path of a file that may exist.

    Paths are strings here and in Source, because a hundred thousand Path objects take seconds. `size` is the upright
    (width, height) in pixels that the labels were made for, if the format states it.
    """

    split: str
    image: str
    folder: str
    label: str | bytes | None
    size: tuple[int, int] | None = None
    reaches_out: bool = False  # an object lies partly outside of `size`: then no picture of another size can be meant
    problem: str | None = None  # "word: text" if its annotation cannot be read; the image is then left out


@dataclass(frozen=True, slots=True)
class Listing:
    """The result of reading a format.

    `names` by class id, without gaps. `extra` are keys of a data.yaml that the export copies. `notes` are one-line examples
    by the words of NOTES. `roots` are the dataset's own folders, `folders` those that were searched for images.
    """

    path: Path
    names: tuple[str, ...]
    found: tuple[Found, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    keypoints: tuple[int, int] | None = None
    folders: tuple[Path, ...] = ()
    notes: dict[str, list[str]] = field(default_factory=dict)
    roots: tuple[Path, ...] = ()


def images_below(place: Path) -> list[str]:
    """Every image below a folder, sorted by path and without hidden ones, as Ultralytics finds them.

    Raises UsageError for an unreadable folder, whose images would be missing silently.
    """
    images = []
    real = place.resolve()
    seen = {_inode(folder) for folder in (real, *real.parents)}
    for folder, dirs, names in os.walk(place, onerror=_refuse, followlinks=True):
        # Folders themselves before links to them. Each is searched once: links may lead in circles, and meet.
        kept = sorted((os.path.islink(os.path.join(folder, name)), name) for name in dirs if not name.startswith("."))
        dirs[:] = [name for _, name in kept if _is_new(_inode(os.path.join(folder, name)), seen)]
        start = os.path.join(folder, "")
        images += [start + name for name in names if is_image(name)]
    return sorted(images)


def sharing(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each image whose label file also belongs to another image, as for a.jpg and a.png. Pairs are
    (image, label file)."""
    first: dict[str, str] = {}
    owners = ((image, label, first.setdefault(label, image)) for image, label in pairs)
    return [f"{image}: {label} is also the label file of {other}" for image, label, other in owners if image != other]


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot read this folder: {why(error)}", "check its permissions") from None


def is_image(name: str) -> bool:
    """Whether Ultralytics loads a file of this name."""
    return name[name.rfind(".") :].lower() in LOADED and not name.startswith(".")


def _inode(folder: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None  # os.walk raises for it
    return found.st_dev, found.st_ino


def _is_new(inode: tuple[int, int] | None, seen: set[tuple[int, int] | None]) -> bool:
    if inode is not None and inode in seen:
        return False
    seen.add(inode)
    return True


def box_row(class_id: int, box: tuple[float, float, float, float], size: tuple[float, float]) -> str | None:
    """A YOLO row of a box (x0, y0, x1, y1) in pixels, clipped to the picture; None if nothing is left.

    `size` is width, height.
    """
    width, height = size
    x0, x1 = (min(max(x, 0.0), width) for x in (box[0], box[2]))
    y0, y1 = (min(max(y, 0.0), height) for y in (box[1], box[3]))
    if x1 <= x0 or y1 <= y0:
        return None
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return _row(class_id, values)


def reaches_out(box: tuple[float, float, float, float], size: tuple[float, float]) -> bool:
    """Whether a box (x0, y0, x1, y1) in pixels lies outside of the picture by more than is drawn by hand: 2 %."""
    least, most = min(box[0] / size[0], box[1] / size[1]), max(box[2] / size[0], box[3] / size[1])
    return least < -0.02 or most > 1.02


def outline_row(class_id: int, points: Iterable[float], size: tuple[float, float]) -> str:
    """A YOLO segment row of the points x, y, x, y … in pixels, clipped to the picture. `size` is width, height."""
    return _row(class_id, (min(max(v / size[i % 2], 0.0), 1.0) for i, v in enumerate(points)))


def _row(class_id: int, values: Iterable[float]) -> str:
    # Six decimals: under a thousandth of a pixel, and the same text wherever it is made.
    return " ".join([str(class_id), *(f"{value:.6f}" for value in values)]) + "\n"
