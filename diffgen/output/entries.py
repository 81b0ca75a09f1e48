"""The images of an exported dataset: for each its file, its name and its label text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diffgen.output.outcome import Entry, Outcome
from diffgen.types import Item, Source, digest_of

MAX_NAME_BYTES = 250  # before the suffix; file systems allow 255 with it


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """One image of the export. `name` is its path below images/SPLIT without suffix; `file` is the file to copy.

    `entry` is None for a source's own image; `link` means that it is linked and not copied.
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
        """Path below the dataset folder, also if the image has no labels."""
        return f"labels/{self.split}/{self.name}.txt"

    @property
    def labelled(self) -> bool:
        """Whether the export has a label file for the image."""
        changed = self.entry is not None and (self.entry.dropped or self.entry.added)
        return self.source.label is not None or bool(changed)

    def label(self) -> bytes | None:
        """The text of the label file; None without one. Raises OSError."""
        return self.source.read_label() if self.entry is None else self.entry.label()


def exported_images(outcome: Outcome) -> Iterator[ExportedImage]:
    """Sources, then accepted images, each in plan order, with names that are unique in their split."""
    names = _Names()
    recipe = outcome.recipe
    for source in outcome.plan.sources:
        if outcome.exports_source(source):
            path = Path(source.path)
            name = names.unique(source.split, source.name, path.suffix)
            link = recipe.include_sources == "link" and source.split in recipe.select.splits
            yield ExportedImage(source.split, name, path.suffix, path, source, link=link)
    for entry in outcome.exported:
        source = entry.item.source
        name = names.unique(source.split, edit_name(entry.item), f".{recipe.image.format}")
        yield ExportedImage(source.split, name, f".{recipe.image.format}", outcome.image(entry), source, entry)


def edit_name(item: Item) -> str:
    """The name of an edited image, not yet unique: the source's name, the condition and the variant."""
    return f"{item.source.name}__{item.job.settings.condition}-{item.job.variant}"


class _Names:
    """Gives out each name once per split, ignoring case: some file systems do not distinguish Car.jpg and car.jpg.

    No folder of a name is the image or label file of another.
    """

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()
        self._files: set[tuple[str, str]] = set()
        self._folders: set[tuple[str, str]] = set()

    def unique(self, split: str, wanted: str, suffix: str) -> str:
        if any((split, folder) in self._files for folder in _folders(wanted.casefold())):
            wanted = wanted.replace("/", "__")
        name = unique = shortened(wanted)
        n = 1
        while self._is_taken(split, unique.casefold(), suffix):
            n += 1
            unique = shortened(f"{name}-{n}")
        key = unique.casefold()
        self._taken.add((split, key))
        self._files |= {(split, f"{key}{suffix.lower()}"), (split, f"{key}.txt")}
        self._folders |= {(split, folder) for folder in _folders(key)}
        return unique

    def _is_taken(self, split: str, key: str, suffix: str) -> bool:
        files = {(split, f"{key}{suffix.lower()}"), (split, f"{key}.txt")}
        return (split, key) in self._taken or not files.isdisjoint(self._folders)


@lru_cache(maxsize=4096)
def _folders_of(folder: str) -> tuple[str, ...]:
    parts = folder.split("/")
    return tuple("/".join(parts[: i + 1]) for i in range(len(parts)))


def _folders(name: str) -> tuple[str, ...]:
    """The folders that contain a name, outermost first."""
    folder = name.rpartition("/")[0]
    return _folders_of(folder) if folder else ()


def shortened(name: str) -> str:
    """The name, its last part cut to MAX_NAME_BYTES and ended with a hash of the whole part if it is longer."""
    folder, sep, last = name.rpartition("/")
    raw = os.fsencode(last)
    if len(raw) <= MAX_NAME_BYTES:
        return name
    kept = raw[: MAX_NAME_BYTES - 9].decode("utf-8", "ignore")
    return f"{folder}{sep}{kept}-{digest_of(last)[:8]}"
