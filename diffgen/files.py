"""What every room needs of the file system: whole writes, fsync, stamps, hashes, and where a job's image lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffgen.errors import DiffgenError, why


def image_path(folder: Path, job_id: str, image_format: str) -> Path:
    return folder / "images" / job_id[:2] / f"{job_id}.{image_format}"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A disk that does not take a write is one clear error; what was committed before it is safe."""
    try:
        yield
    except OSError as error:
        raise DiffgenError(
            f"{error.filename2 or error.filename or folder}: cannot write: {why(error)}",
            "free disk space or fix the path, and run the same command again; nothing that was committed is lost",
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole file or none of it; a reader never sees half. Raises DiffgenError when the disk does not take it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path.parent):
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stamp(paths: Sequence[str | Path]) -> str:
    """Size and mtime of each file, as text; a missing file is part of the stamp. Changes when any of them changes."""
    parts = []
    for path in paths:
        try:
            stat: os.stat_result | None = os.stat(path)
        except OSError:
            stat = None
        parts.append(f"{stat.st_size}:{stat.st_mtime_ns}" if stat else "-")
    return ";".join(parts)


def file_sha256(path: Path) -> str:
    """As 64 hex digits, of a file that need not fit into memory. Raises OSError."""
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()
