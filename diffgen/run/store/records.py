"""Reads records.jsonl: batches of records, each followed by a trailer line with their count and checksum."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from diffgen.errors import DiffgenError, why
from diffgen.types import Record

RECORDS = "records.jsonl"


def read_records(folder: Path) -> tuple[dict[str, Record], int]:
    """(records by job id, the newest of each; the bytes that hold them). Later bytes were never committed.

    Raises DiffgenError when a complete batch follows a damaged one: an interrupted write does not explain that.
    """
    records: dict[str, Record] = {}
    end = 0
    for batch, end in read_commits(folder):  # noqa: B007 - the last end is returned
        records.update((record.id, record) for record in batch)
    return records, end


def read_commits(folder: Path) -> Iterator[tuple[list[Record], int]]:
    """Every committed batch in order: (its records, the byte where it ends). Raises DiffgenError as `read_records`."""
    try:
        raw = (folder / RECORDS).read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DiffgenError(
            f"{folder / RECORDS}: cannot be read: {why(error)}", "restore the file, or start in a new folder"
        ) from None
    good = start = position = 0
    damaged = False
    batch: list[Record] = []
    while (end := raw.find(b"\n", position)) >= 0:
        line, position = raw[position:end], end + 1
        if not line.startswith(b'{"commit":'):
            try:
                batch.append(Record.from_json(line.decode()))
            except (ValueError, TypeError, RecursionError):
                damaged = True
            continue
        if trailer_line(len(batch), raw[start : position - len(line) - 1]) == line and not damaged:
            if good != start:
                raise DiffgenError(
                    f"{folder / RECORDS}: damaged at byte {good}",
                    "restore the file from a backup, or start in a new folder",
                )
            good = position
            yield batch, good
        damaged, batch, start = False, [], position


def trailer_line(count: int, lines: bytes) -> bytes:
    return f'{{"commit":{count},"crc":"{zlib.crc32(lines):08x}"}}'.encode()
