"""The images of a run folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from diffgen.run.store.records import read_records
from diffgen.types import Record

_OURS = re.compile(r"[0-9a-f]{32}\.(jpg|png|webp)")

UNFINISHED = ".tmp"  # folder below images/ for files that are not committed yet


def read_present(folder: Path, image_format: str) -> dict[str, Record]:
    """`RunStore.present` without lock or repair, so also while a run is writing; {} if there is no run."""
    return present_records(read_records(folder)[0], image_ids(folder, image_format))


def image_ids(folder: Path, image_format: str) -> set[str]:
    """Ids of the jobs whose image is in the folder."""
    return {path.stem for path in image_files(folder) if path.suffix == f".{image_format}"}


def present_records(records: dict[str, Record], images: Collection[str]) -> dict[str, Record]:
    """The records, by job id, without those whose image file is missing. `images` are the ids of the files."""
    return {key: record for key, record in records.items() if record.status != "made" or key in images}


def done(present: dict[str, Record]) -> set[str]:
    """Ids of the jobs that need no work: made, or failed permanently."""
    return {key for key, record in present.items() if record.status == "made" or record.kind == "source"}


def image_files(folder: Path) -> Iterator[Path]:
    """The image files that diffgen wrote in the run folder. Empty files do not count."""
    top = folder / "images"
    for subfolder in os.scandir(top) if top.is_dir() else ():
        if subfolder.is_dir(follow_symlinks=False) and subfolder.name != UNFINISHED:
            for entry in os.scandir(subfolder):
                # A user's own files are neither counted nor cleaned.
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) and entry.stat().st_size:
                    yield Path(entry.path)
