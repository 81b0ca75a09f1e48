"""What an exported dataset consists of: for each image its file, its name and its label text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffgen.output.outcome import Entry, Outcome
from diffgen.types import Item, Source, digest_of

LONGEST_NAME = 250  # bytes before the suffix; file systems take 255 in all


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """One image of the export. `name` is its path below images/SPLIT, without suffix; `file` is what is copied there.

    `entry` is None for the source's own image, which is linked instead of copied where `link` is set.
    """

    split: str
    name: str
    suffix: str
    file: Path
    source: Source
    entry: Entry | None = None
    link: bool = False

    @property
    def image(self) -> str:
        """Path below the dataset folder."""
        return f"images/{self.split}/{self.name}{self.suffix}"

    @property
    def label_file(self) -> str:
        """Path below the dataset folder, whether or not the image has labels."""
        return f"labels/{self.split}/{self.name}.txt"

    @property
    def labelled(self) -> bool:
        """Whether the export has a label file for it."""
        changed = self.entry is not None and (self.entry.dropped or self.entry.added)
        return self.source.label is not None or bool(changed)

    def label(self) -> bytes | None:
        """The text of its label file. Raises OSError."""
        return self.source.read_label() if self.entry is None else self.entry.label()


def exported_images(outcome: Outcome) -> Iterator[ExportedImage]:
    """Sources first, then accepted images, each in plan order, with names that are unique in their split."""
    names = _Names()
    recipe = outcome.recipe
    for source in outcome.plan.sources:
        if outcome.exports_source(source):
            path = Path(source.path)
            name = names.unique(source.split, source.name)
            link = recipe.include_sources == "link" and source.split in recipe.select.splits
            yield ExportedImage(source.split, name, path.suffix, path, source, link=link)
    for entry in outcome.entries:
        if entry.accepted:
            source = entry.item.source
            name = names.unique(source.split, made_name(entry.item))
            yield ExportedImage(source.split, name, f".{recipe.image.format}", outcome.image(entry), source, entry)


def made_name(item: Item) -> str:
    """The name of a made image before it is made unique: the source's name, the condition, and the variant."""
    return f"{item.source.name}__{item.job.settings.condition}-{item.job.variant}"


class _Names:
    """Hands out each name once in its split, whatever the case: some file systems do not tell Car.jpg from car.jpg."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def unique(self, split: str, wanted: str) -> str:
        name = free = fitting_name(wanted)
        n = 1
        while (split, free.casefold()) in self._taken:
            n += 1
            free = fitting_name(f"{name}-{n}")
        self._taken.add((split, free.casefold()))
        return free


def fitting_name(name: str) -> str:
    """A name whose last part, with any suffix, fits file systems: a long one is cut and ends in a hash of the whole."""
    folder, sep, last = name.rpartition("/")
    raw = os.fsencode(last)
    if len(raw) <= LONGEST_NAME:
        return name
    kept = raw[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{folder}{sep}{kept}-{digest_of(last)[:8]}"
