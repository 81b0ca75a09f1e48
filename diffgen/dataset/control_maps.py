"""Finding the user's own control map of each source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import SUFFIXES, read_size
from diffgen.errors import SourceError, UsageError, why
from diffgen.files import stamp
from diffgen.recipe.schema import Recipe
from diffgen.types import Source


def with_maps(dataset: Dataset, recipe: Recipe, base: Path, cache: FileCache) -> Dataset:
    """The dataset, with the user's control maps attached to every editable source.

    A source whose map is missing or has another aspect ratio gets a `problem`: it is copied unedited, and counted.
    Raises UsageError if a folder of maps is missing, or has no map for any source.
    """
    folders = list(dict.fromkeys(c.folder for c in recipe.all_controls if c.folder is not None))
    sources = list(dataset.sources)
    for folder in folders:
        path = base / Path(folder).expanduser()
        if not path.is_dir():
            raise UsageError(
                f"controls: there is no folder {path}", "give the folder of your maps, relative to the recipe"
            )
        maps = _listed(path)
        wanted = [i for i, s in enumerate(sources) if s.split in recipe.select.splits and s.problem is None]
        if wanted and not any(_map_of(sources[i], maps) for i in wanted):
            example = sources[wanted[0]]
            raise UsageError(
                f"controls: {path} has no map for any source",
                f"name them like the sources: {path.name}/{example.key}.png or {path.name}/{example.name}.png",
            )
        for i in wanted:
            sources[i] = _with_map(sources[i], folder, maps, cache)
    return replace(dataset, sources=tuple(sources)) if folders else dataset


def _listed(folder: Path) -> dict[str, str]:
    """Relative path without suffix -> path, of each picture below the folder."""
    maps = {}
    for directory, _, names in os.walk(folder):
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                maps[Path(directory, stem).relative_to(folder).as_posix()] = os.path.join(directory, name)
    return maps


def _map_of(source: Source, maps: Mapping[str, str]) -> str | None:
    return maps.get(source.key) or maps.get(source.name)


def _with_map(source: Source, folder: str, maps: Mapping[str, str], cache: FileCache) -> Source:
    path = _map_of(source, maps)
    if path is None:
        return replace(source, problem=f"control map: not found in {folder}")
    try:
        width, height, digest = cache.known("map", path, stamp([path]), lambda: _map_facts(path)).split()
    except (SourceError, OSError) as error:
        return replace(source, problem=f"control map: {path}: {why(error)}")
    if not _same_aspect((source.width, source.height), (int(width), int(height))):
        size = f"{source.width}×{source.height}"
        return replace(source, problem=f"control map: {path} is {width}×{height}, another aspect ratio than {size}")
    return replace(source, maps=(*source.maps, (folder, path, digest)))


def _map_facts(path: str) -> str:
    """Width, height and sha256."""
    raw = Path(path).read_bytes()
    width, height = read_size(raw)
    return f"{width} {height} {hashlib.sha256(raw).hexdigest()}"


def _same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether `other` is a scaled `size`, allowing for one side's rounding to whole pixels."""
    (width, height), (w, h) = size, other
    return abs(h - w * height / width) <= 1 or abs(w - h * width / height) <= 1
