"""The images of a run folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.files import image_path, sha256_or_none, stamp, stamp_of
from diffgen.run.store.records import Log, read_log, record_files, united
from diffgen.types import Record

_OURS = re.compile(r"[0-9a-f]{32}\.(jpg|png|webp)")

_KIND = "made image"  # in the cache: its sha256
UNFINISHED = ".tmp"  # folder below images/ for files that are not committed yet


def read_present(folder: Path, image_format: str) -> dict[str, Record]:
    """`RunStore.present` without lock or repair, so also while a run is writing; {} if there is no run."""
    records = read_records(folder, image_format)
    return present_records(records, look_at_images(folder, image_format, records)[0])


def read_records(folder: Path, image_format: str) -> dict[str, Record]:
    """The records of all workers by job id, also of images that are no longer there."""
    return unite(folder, image_format, map(read_log, record_files(folder)))


def unite(folder: Path, image_format: str, logs: Iterable[Log]) -> dict[str, Record]:
    """`united`, asking the run folder's images."""
    return united(logs, lambda job_id: sha256_or_none(image_path(folder, job_id, image_format)))


def present_records(records: dict[str, Record], images: Collection[str]) -> dict[str, Record]:
    """The records, by job id, without those whose image file is missing; the same dict if none is. `images` are the ids of
    the files."""
    missing = [key for key, record in records.items() if record.status == "made" and key not in images]
    return {key: record for key, record in records.items() if key not in {*missing}} if missing else records


def look_at_images(
    folder: Path, image_format: str, records: Mapping[str, Record], cache: FileCache | None = None
) -> tuple[set[str], list[Path]]:
    """(ids of the jobs whose image is in the folder, images that do not match their records). Only files that changed since
    they were written are read; without a cache none are read, and the second list is empty."""
    there: set[str] = set()
    unknown: list[tuple[Path, Record]] = []
    for subfolder in _subfolders(folder):
        known = {} if cache is None else cache.below(_KIND, subfolder.path)
        for name, file in _ours(subfolder):
            job_id, _, suffix = name.partition(".")
            record = records.get(job_id)
            if suffix != image_format or record is None or record.status != "made":
                continue
            there.add(record.id)  # the record's own text: a million ids take room
            path = f"{subfolder.path}/{name}"
            if cache is not None and known.get(path) != (stamp_of(file), record.sha256):
                unknown.append((Path(path), record))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(sha256_or_none, (path for path, _ in unknown)))
    damaged = []
    for (file_path, record), digest in zip(unknown, digests, strict=True):
        if digest == record.sha256 and cache is not None:
            remember(file_path, record, cache)
        else:
            damaged.append(file_path)
    if cache is not None:
        cache.flush()
    return there, damaged


def remember(path: Path, record: Record, cache: FileCache) -> None:
    """Remember that an image matches its record, until the file changes."""
    cache.put(_KIND, path, stamp([path]), record.sha256 or "")


def is_done(record: Record) -> bool:
    """Whether a present record's job needs no work: it is made, or failed permanently."""
    return record.status == "made" or record.kind == "source"


def image_files(folder: Path) -> Iterator[Path]:
    """The image files that diffgen wrote in the run folder. Empty files do not count."""
    for subfolder in _subfolders(folder):
        for name, _ in _ours(subfolder):
            yield Path(subfolder.path, name)


def _subfolders(folder: Path) -> Iterator[os.DirEntry[str]]:
    top = folder / "images"
    for subfolder in os.scandir(top) if top.is_dir() else ():
        if subfolder.is_dir() and subfolder.name != UNFINISHED:  # also one that a user moved and linked
            yield subfolder


def _ours(subfolder: os.DirEntry[str]) -> Iterator[tuple[str, os.stat_result]]:
    """(name, stat result) of each of our images. A user's own files are neither counted nor cleaned."""
    for entry in os.scandir(subfolder):
        if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            file = entry.stat(follow_symlinks=False)
            if file.st_size:
                yield entry.name, file
