"""Reads the records of a run folder: each worker appends to a file of its own, records-WORKER.jsonl.

A file holds batches of records, each followed by a trailer line with their count and checksum. Damage affects
only the batches that it touches, because each trailer counts its own lines.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import zlib
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, why
from diffgen.types import EDIT_VERSION, Record

BLOCK = 1 << 20  # bytes that are read at once
FIRST_FORMAT = "records.jsonl"  # the only file of run folders of format 1; read, and no longer written
_RECORDS = re.compile(r"records-\w+\.jsonl")
_TRAILER = re.compile(rb'\{"commit":(\d{1,9}),"crc":"([0-9a-f]{8})"\}')


class RecordFile:
    """A file of records. Facts are read on demand, because those of a million images do not fit into memory. It stays
    the file that was opened, even if another file takes its name."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, also for a pipe or a device."""
        self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(self._handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        self._latest: tuple[int, dict[str, Any]] = (-1, {})

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    @property
    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def read(self, first: int, last: int) -> bytes:
        """The bytes from `first` up to `last`."""
        parts = []
        while first < last and (part := os.pread(self._handle, last - first, first)):
            parts.append(part)
            first += len(part)
        return b"".join(parts)

    def lines(self, position: int) -> Iterator[tuple[int, int, bytes]]:
        """(first byte, last byte + 1, line without its end) of each whole line from a position on."""
        rest = b""
        while block := os.pread(self._handle, BLOCK, position + len(rest)):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield position, position + len(line) + 1, line
                position += len(line) + 1

    def facts(self, place: int) -> dict[str, Any]:
        """The facts of the record at a `_place`. The latest are cached, because a record is judged one fact after
        another."""
        known, facts = self._latest
        if known != place:
            first, length = divmod(place, _LONGEST)
            facts = json.loads(self.read(first, first + length)).get("facts", {})
            self._latest = place, facts
        return facts


_LONGEST = 1 << 28  # bytes of a record: where it begins and how long it is are one number


class StoredFacts(Mapping[str, Any]):
    """The facts of a record, read from its file on demand."""

    __slots__ = ("_file", "_place")

    def __init__(self, file: RecordFile, first: int, length: int) -> None:
        self._file, self._place = file, first * _LONGEST + length

    def __getitem__(self, key: str) -> Any:
        return self._file.facts(self._place)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.facts(self._place))

    def __len__(self) -> int:
        return len(self._file.facts(self._place))


@dataclass(frozen=True, slots=True)
class Log:
    """The whole of a file of records: records by job id, the newest of each; the (first, last + 1) byte of each whole batch;
    and the file's `size`. `damaged` is False if the only data outside of a batch is the beginning of a last,
    interrupted write."""

    records: dict[str, Record] = field(default_factory=dict)
    batches: tuple[tuple[int, int], ...] = ()
    size: int = 0
    damaged: bool = False

    @property
    def end(self) -> int:
        return self.batches[-1][1] if self.batches else 0


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
    if (file := _opened(path)) is None:
        return Log()
    with _readable(path):
        records: dict[str, Record] = {}
        spans = []
        for batch, span in _batches(file, 0):
            records.update((record.id, record) for record in batch)
            spans.append(span)
        gaps = any(first != last for (_, first), (last, _) in zip([(0, 0), *spans], spans, strict=False))
        tail = file.read(spans[-1][1] if spans else 0, file.size)
        return Log(records, tuple(spans), file.size, gaps or not _is_cut_short(tail))


def read_more(path: Path, start: int) -> tuple[list[Record], int]:
    """The records of the whole batches behind byte `start`, where one ends, and the byte where the last of them ends."""
    if (file := _opened(path)) is None:
        return [], start
    with _readable(path):
        found = list(_batches(file, start))
        return [record for batch, _ in found for record in batch], found[-1][1][1] if found else start


def stored(records: Sequence[Record], file: RecordFile, first: int) -> Iterator[Record]:
    """The records, whose lines begin at a byte of a file, with their facts there and no longer in memory."""
    for record in records:
        length = len(record.to_json().encode())
        yield replace(record, facts=StoredFacts(file, first, length))
        first += length + 1


def united(logs: Iterable[Log], image_sha256: Callable[[str], str | None]) -> dict[str, Record]:
    """One record for each job of all files. Workers may have done a job twice: an image made counts more than a failure.

    Two devices make different bytes for one job. Only one image is in place, and its record is the one that counts:
    `image_sha256` returns the sha256 of a job's file, and is only called for such jobs.
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
        if (file := _opened(path)) is not None:
            with _readable(path):
                for batch, _ in _batches(file, 0):
                    yield batch


def _opened(path: Path) -> RecordFile | None:
    """None if there is no such file."""
    with _readable(path):
        try:
            return RecordFile(path)
        except FileNotFoundError:
            return None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiffgenError(
            f"{path}: cannot be read: {why(error)}", "restore the file, or start in a new folder"
        ) from None


def _batches(file: RecordFile, start: int) -> Iterator[tuple[list[Record], tuple[int, int]]]:
    """The records and the bytes of each whole batch from byte `start` on."""
    starts: list[int] = []  # of the lines since the last whole batch
    for position, end, line in file.lines(start):
        found = _TRAILER.fullmatch(line)
        count = int(found[1]) if found else 0
        if found and count <= len(starts):
            first = starts[-count] if count else position
            raw = file.read(first, position)
            if found[2] == _checksum(raw) and (batch := _parsed(raw, file, first)) is not None:
                yield batch, (first, end)
                starts.clear()
                continue
        starts.append(position)


def _parsed(lines: bytes, file: RecordFile | None = None, first: int = 0) -> list[Record] | None:
    """The records of lines that begin at a byte of a file; None if a line is not a record although the checksum is
    right, so it is not an interrupted write."""
    records = []
    try:
        for line in lines.split(b"\n"):
            if line:
                # Not the facts themselves: there may be millions.
                facts = None if file is None else StoredFacts(file, first, len(line))
                records.append(Record.from_json(line.decode(), facts))
            first += len(line) + 1
    except (ValueError, TypeError, RecursionError):
        return None
    return records


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
