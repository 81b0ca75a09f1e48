"""The images of a run folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.files import image_path, sha256_or_none, stamp
from diffgen.run.store.records import Log, read_log, record_files, united
from diffgen.types import Record

_OURS = re.compile(r"[0-9a-f]{32}\.(jpg|png|webp)")

_KIND = "made image"  # in the cache: its sha256
UNFINISHED = ".tmp"  # folder below images/ for files that are not committed yet


def read_present(folder: Path, image_format: str) -> dict[str, Record]:
    """`RunStore.present` without lock or repair, so also while a run is writing; {} if there is no run."""
    return present_records(read_records(folder, image_format), image_ids(folder, image_format))


def read_records(folder: Path, image_format: str) -> dict[str, Record]:
    """The records of all workers by job id, also of images that are no longer there."""
    return unite(folder, image_format, map(read_log, record_files(folder)))


def unite(folder: Path, image_format: str, logs: Iterable[Log]) -> dict[str, Record]:
    """`united`, asking the run folder's images."""
    return united(logs, lambda job_id: sha256_or_none(image_path(folder, job_id, image_format)))


def image_ids(folder: Path, image_format: str) -> set[str]:
    """Ids of the jobs whose image is in the folder."""
    return {path.stem for path in image_files(folder) if path.suffix == f".{image_format}"}


def present_records(records: dict[str, Record], images: Collection[str]) -> dict[str, Record]:
    """The records, by job id, without those whose image file is missing. `images` are the ids of the files."""
    return {key: record for key, record in records.items() if record.status != "made" or key in images}


def damaged_images(
    folder: Path, image_format: str, records: Mapping[str, Record], images: Collection[str], cache: FileCache
) -> list[Path]:
    """The images that are not what their records say. Only files that have changed since they were written are read."""
    known = cache.below(_KIND, str(folder / "images"))
    unknown = []
    for job_id, record in records.items():
        if record.status == "made" and job_id in images:
            path = image_path(folder, job_id, image_format)
            if known.get(str(path)) != (stamp([path]), record.sha256):
                unknown.append((path, record))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(sha256_or_none, (path for path, _ in unknown)))
    damaged = []
    for (path, record), digest in zip(unknown, digests, strict=True):
        if digest == record.sha256:
            remember(path, record, cache)
        else:
            damaged.append(path)
    cache.flush()
    return damaged


def remember(path: Path, record: Record, cache: FileCache) -> None:
    """Keep that an image is what its record says, until the file changes."""
    cache.put(_KIND, path, stamp([path]), record.sha256 or "")


def is_done(record: Record) -> bool:
    """Whether a present record's job needs no work: it is made, or failed permanently."""
    return record.status == "made" or record.kind == "source"


def image_files(folder: Path) -> Iterator[Path]:
    """The image files that diffgen wrote in the run folder. Empty files do not count."""
    top = folder / "images"
    for subfolder in os.scandir(top) if top.is_dir() else ():
        if subfolder.is_dir() and subfolder.name != UNFINISHED:  # also one that a user moved and linked
            for entry in os.scandir(subfolder):
                # A user's own files are neither counted nor cleaned.
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) and entry.stat().st_size:
                    yield Path(entry.path)
