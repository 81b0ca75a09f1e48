"""The images of a run folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from diffgen.run.store.records import read_records
from diffgen.types import Record

_OURS = re.compile(r"[0-9a-f]{32}\.(jpg|png|webp)")

UNFINISHED = ".tmp"  # below images/: what lies here was never committed


def read_present(folder: Path, image_format: str) -> dict[str, Record]:
    """What `RunStore.present` gives, without lock or repair: also while a run is writing. {} where there is no run."""
    return present_records(read_records(folder)[0], image_ids(folder, image_format))


def image_ids(folder: Path, image_format: str) -> set[str]:
    """The jobs whose image is in the folder."""
    return {path.stem for path in image_files(folder) if path.suffix == f".{image_format}"}


def present_records(records: dict[str, Record], there: Collection[str]) -> dict[str, Record]:
    """The records whose image is there, by job id, and those that made none."""
    return {key: record for key, record in records.items() if record.status != "made" or key in there}


def done(present: dict[str, Record]) -> set[str]:
    """Ids of the jobs that need no work: made, or failed for good."""
    return {key for key, record in present.items() if record.status == "made" or record.kind == "source"}


def image_files(folder: Path) -> Iterator[Path]:
    top = folder / "images"
    for place in os.scandir(top) if top.is_dir() else ():
        if place.is_dir(follow_symlinks=False) and place.name != UNFINISHED:
            for entry in os.scandir(place):
                # Only what we made: a file that somebody put here is nothing to count, and nothing to clean away.
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) and entry.stat().st_size:
                    yield Path(entry.path)
