"""Reads the records of a run folder: each worker appends to a file of its own, records-WORKER.jsonl.

A file holds batches of records, each followed by a trailer line with their count and checksum. Damage costs the batches
that it touches, and no others: a trailer tells how many lines before it are its own.
"""

from __future__ import annotations

import re
import zlib
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, why
from diffgen.files import read_regular
from diffgen.types import EDIT_VERSION, Record

FIRST_FORMAT = "records.jsonl"  # the only file of run folders of format 1; read, and no longer written
_RECORDS = re.compile(r"records-\w+\.jsonl")
_TRAILER = re.compile(rb'\{"commit":(\d{1,9}),"crc":"([0-9a-f]{8})"\}')


@dataclass(frozen=True, slots=True)
class Log:
    """The whole of a file of records: records by job id, the newest of each; the (first, last + 1) byte of each whole batch;
    and the bytes that belong to none. `damaged` is False where these are but the beginning of a last write."""

    records: dict[str, Record] = field(default_factory=dict)
    batches: tuple[tuple[int, int], ...] = ()
    raw: bytes = b""
    damaged: bool = False

    @property
    def end(self) -> int:
        return self.batches[-1][1] if self.batches else 0

    @property
    def whole(self) -> bytes:
        """The bytes of the whole batches."""
        return b"".join(self.raw[first:last] for first, last in self.batches)


def record_file(folder: Path, worker: str) -> Path:
    """Where a worker appends its records. `worker` is a word of letters, digits and underscores."""
    return folder / f"records-{worker}.jsonl"


def record_files(folder: Path) -> list[Path]:
    """Every file of records in a run folder, the oldest format first."""
    first = folder / FIRST_FORMAT
    names = sorted(path for path in folder.glob("records-*.jsonl") if _RECORDS.fullmatch(path.name))
    return [first, *names] if first.exists() else names


def edit_version_of(folder: Path, state: dict[str, Any]) -> int:
    """The edit version of a run folder's images; the newest for a folder without any."""
    return int(state.get("edit_version") or (2 if record_files(folder) else EDIT_VERSION))


def read_log(path: Path) -> Log:
    """Everything in a file of records. Raises DiffgenError if it cannot be read."""
    raw = _read(path)
    records: dict[str, Record] = {}
    spans = []
    for batch, span in _batches(raw):
        records.update((record.id, record) for record in batch)
        spans.append(span)
    gaps = any(first != last for (_, first), (last, _) in zip([(0, 0), *spans], spans, strict=False))
    tail = raw[spans[-1][1] if spans else 0 :]
    return Log(records, tuple(spans), raw, gaps or not _is_cut_short(tail))


def read_more(path: Path, start: int) -> tuple[list[Record], int]:
    """The records of the whole batches behind byte `start`, where one ends, and the byte where the last of them ends."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            raw = file.read()
    except FileNotFoundError:
        return [], start
    except OSError as error:
        raise DiffgenError(f"{path}: cannot be read: {why(error)}", "see what is wrong with the disk") from None
    found = list(_batches(raw))
    return [record for batch, _ in found for record in batch], start + (found[-1][1][1] if found else 0)


def united(logs: Iterable[Log], image_sha256: Callable[[str], str | None]) -> dict[str, Record]:
    """One record for each job of all files. Workers may have done a job twice: an image made counts more than a failure.

    Two devices make different bytes of one job. Only one image is in place, and its record is the one that counts:
    `image_sha256` gives the sha256 of the file for a job id, and is asked of such jobs only.
    """
    records: dict[str, Record] = {}
    for log in logs:
        for job_id, record in log.records.items():
            other = records.get(job_id)
            if other is not None and other.status == "made" and record.sha256 != other.sha256:
                is_rival = record.status == "made" and image_sha256(job_id) != other.sha256
                if not is_rival:
                    continue
            records[job_id] = record
    return records


def read_commits(folder: Path) -> Iterator[list[Record]]:
    """The records of every whole batch, file by file, each in order."""
    for path in record_files(folder):
        for batch, _ in _batches(_read(path)):
            yield batch


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DiffgenError(
            f"{path}: cannot be read: {why(error)}", "restore the file, or start in a new folder"
        ) from None


def _batches(raw: bytes) -> Iterator[tuple[list[Record], tuple[int, int]]]:
    starts: list[int] = []  # of the lines since the last whole batch
    position = 0
    while (end := raw.find(b"\n", position)) >= 0:
        found = _TRAILER.fullmatch(raw, position, end)
        count = int(found[1]) if found else 0
        if found and count <= len(starts):
            first = starts[-count] if count else position
            if found[2] == _checksum(raw[first:position]) and (batch := _parsed(raw[first:position])) is not None:
                yield batch, (first, end + 1)
                starts.clear()
                position = end + 1
                continue
        starts.append(position)
        position = end + 1


def _parsed(lines: bytes) -> list[Record] | None:
    """None if a line is no record, though the checksum is right: nobody's write was interrupted there."""
    try:
        return [Record.from_json(line) for line in lines.decode().split("\n") if line]
    except (ValueError, TypeError, RecursionError):
        return None


def _is_cut_short(tail: bytes) -> bool:
    """Whether bytes are the beginning of a batch, as a process leaves it that is killed while it appends."""
    *lines, last = tail.split(b"\n")
    try:
        text = getincrementaldecoder("utf-8")().decode(last)  # it may end within a character
    except ValueError:
        return False
    return _parsed(b"\n".join(lines)) is not None and "{".startswith(text[:1]) and text.isprintable()


def _checksum(lines: bytes) -> bytes:
    return f"{zlib.crc32(lines):08x}".encode()


def trailer_line(count: int, lines: bytes) -> bytes:
    return b'{"commit":%d,"crc":"%s"}' % (count, _checksum(lines))
