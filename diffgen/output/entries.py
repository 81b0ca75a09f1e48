"""What an export consists of: each image, its name without suffix, and the label file beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffgen.files import image_path
from diffgen.output.outcome import Judged, is_carried
from diffgen.plan.plan import Plan
from diffgen.recipe.schema import Recipe
from diffgen.types import Item, Source, digest_of

LONGEST_NAME = 250  # bytes before the suffix; file systems take 255 in all


def made_name(item: Item) -> str:
    """Where the export puts a made image, without suffix: the source's name, the condition, and the variant."""
    return f"{item.source.name}__{item.job.settings.condition}-{item.job.variant}"


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """One image of the export: the file it comes from, its name without suffix, and the label file to copy."""

    split: str
    name: str
    suffix: str
    image: Path
    source: Source
    judged: Judged | None = None  # None: the source's own image

    @property
    def relabelled(self) -> bool:
        return self.judged is not None and bool(self.judged.dropped or self.judged.added)


def exported_images(folder: Path, plan: Plan, recipe: Recipe, judged: list[Judged]) -> Iterator[ExportedImage]:
    """Sources first, then made images, each in plan order."""
    taken: set[tuple[str, str]] = set()

    def unique(split: str, name: str) -> str:
        name = free = fitting_name(name)
        n = 1
        while (split, free.casefold()) in taken:
            n += 1
            free = fitting_name(f"{name}-{n}")
        taken.add((split, free.casefold()))
        return free

    for source in plan.sources:
        if not is_carried(source, recipe):
            continue
        path = Path(source.path)
        yield ExportedImage(source.split, unique(source.split, source.name), path.suffix, path, source)
    for entry in judged:
        if entry.accepted:
            item = entry.item
            name = unique(item.source.split, made_name(item))
            image = image_path(folder, item.job.id, recipe.image.format)
            yield ExportedImage(item.source.split, name, f".{recipe.image.format}", image, item.source, entry)


def fitting_name(name: str) -> str:
    """A name whose last part, with any suffix, is one that file systems take: a long one is cut and told by its hash."""
    folder, sep, last = name.rpartition("/")
    raw = os.fsencode(last)
    if len(raw) <= LONGEST_NAME:
        return name
    kept = raw[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{folder}{sep}{kept}-{digest_of(last)[:8]}"


def is_linked(entry: ExportedImage, recipe: Recipe) -> bool:
    return entry.judged is None and recipe.include_sources == "link" and entry.split in recipe.select.splits
