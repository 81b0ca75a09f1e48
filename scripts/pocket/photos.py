"""Photographs for training: filtered by licence, decoded, letterbox bars removed."""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from diffgen.dataset.images import decode
from diffgen.errors import SourceError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
Item = TypeVar("Item")
HELD_OUT_EVERY = 20  # one photograph in twenty is never trained on


@dataclass(frozen=True)
class Photo:
    """One photograph: RGB uint8, shape (3, H, W); `name` is its path below its folder."""

    name: str
    licence: str
    pixels: torch.Tensor


def licence_kept(licence: str, wanted: str) -> bool:
    """True for `wanted` in any version (CC BY 2.0, CC BY 4.0); share-alike, GPL and non-commercial are never kept."""
    text = licence.upper().replace("-", " ")
    if any(word in text for word in (" SA", "GPL", " NC", " ND")):
        return False
    return wanted.upper().replace("-", " ") in text


def read_licences(sources: Path) -> dict[str, str]:
    """Path below the folder -> licence, from a table with the columns `file` and `licence`."""
    with sources.open(newline="", encoding="utf-8") as handle:
        return {row["file"]: row["licence"] for row in csv.DictReader(handle, delimiter="\t")}


@dataclass(frozen=True)
class Found:
    """A photograph to use, not yet read."""

    path: Path
    name: str
    licence: str


def list_photos(folders: Sequence[Path], sources: Path | None, wanted: str | None) -> list[Found]:
    """The photographs to use, by name. Says how many the table or the licence leaves out.

    Raises ValueError for two of one name in two folders, which marks and maps could not tell apart, and for a licence that
    is wanted without a table.
    """
    if wanted and sources is None:
        raise ValueError(f"'{wanted}' alone is wanted, and no table (--sources) tells the licences")
    paths: dict[str, Path] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.suffix.lower() not in SUFFIXES:
                continue
            if name in paths:
                raise ValueError(f"{path} and {paths[name]} have one name: rename either")
            paths[name] = path
    licences = read_licences(sources) if sources else {}
    found = []
    for name in sorted(paths):
        licence = licences.get(name, "") if sources else "not stated"
        if licence and (wanted is None or licence_kept(licence, wanted)):
            found.append(Found(paths[name], name, licence))
    if len(found) < len(paths):
        say(f"{len(paths) - len(found)} photographs have no row in {sources} or another licence: left out")
    return found


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def without_bars(image: np.ndarray) -> np.ndarray:
    """Cut letterbox bars off: flat black or white rows (columns) present on both opposite sides."""
    for axis in (0, 1):
        lines = image if axis == 0 else image.swapaxes(0, 1)
        flat = (lines.max(axis=(1, 2)) < 24) | (lines.min(axis=(1, 2)) > 244)
        if flat.all():
            continue
        first, last = int(np.argmin(flat)), len(flat) - int(np.argmin(flat[::-1]))
        # On one side only it is a night or a blown-out sky, not a letterbox. 2 px more: JPEG ringing at the bar's edge.
        if min(first, len(flat) - last) >= 4:
            lines = lines[first + 2 : last - 2]
        image = lines if axis == 0 else lines.swapaxes(0, 1)
    return np.ascontiguousarray(image)


def load_photos(found: list[Found], long_side: int = 1024) -> list[Photo]:
    """Decode, upright; photographs larger than `long_side` px are reduced to it; those under 128 px are left out, and
    so are those that cannot be read, which are named."""
    photos = []
    for one in found:
        try:
            image = Image.fromarray(decode(one.path.read_bytes()))
        except (OSError, SourceError) as error:
            say(f"{one.path}: cannot be read and is left out: {error}")
            continue
        if max(image.size) > long_side:
            image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
        pixels = without_bars(np.asarray(image))
        if min(pixels.shape[:2]) >= 128:
            photos.append(Photo(one.name, one.licence, torch.from_numpy(pixels.transpose(2, 0, 1).copy())))
    return photos


def split_photos(photos: list[Photo]) -> tuple[list[Photo], list[Photo]]:
    """(training, held out); every twentieth by name order is held out."""
    held = [p for i, p in enumerate(photos) if i % HELD_OUT_EVERY == 7]
    return [p for i, p in enumerate(photos) if i % HELD_OUT_EVERY != 7], held


def spread(items: list[Item], count: int) -> list[Item]:
    """`count` of them, or all, spread over the whole list."""
    return items[:: max(1, len(items) // max(1, count))][:count]


def count_licences(photos: list[Photo]) -> str:
    """'450 × CC BY 2.0; 250 × CC BY 4.0', for the log and the model card."""
    counts = Counter(p.licence for p in photos)
    return "; ".join(f"{n} x {text}" for text, n in counts.most_common())


def random_crop(
    planes: torch.Tensor,
    size: int,
    scales: tuple[float, float],
    rng: np.random.Generator,
    around: tuple[int, int] | None = None,
) -> torch.Tensor:
    """A random square of `planes` (C, H, W), rescaled by a random factor of `scales` to size × size, float 0..1, maybe
    mirrored; one that shows the pixel `around` (row, column), if given."""
    sides = planes.shape[1:]
    least = max(scales[0], size / min(sides))
    scale = float(np.exp(rng.uniform(np.log(least), np.log(max(scales[1], least * 1.001)))))
    side = min(max(round(size / scale), 8), *sides)
    firsts, lasts = (0, 0), tuple(length - side for length in sides)
    if around:
        firsts = tuple(max(0, spot - side + 1) for spot in around)
        lasts = tuple(min(last, spot) for last, spot in zip(lasts, around, strict=True))
    top, left = (int(rng.integers(first, last + 1)) for first, last in zip(firsts, lasts, strict=True))
    crop = planes[None, :, top : top + side, left : left + side].float() / 255
    crop = F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    return crop.flip(-1) if rng.random() < 0.5 else crop
