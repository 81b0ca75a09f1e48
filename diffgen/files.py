"""File helpers of every room: atomic writes, fsync, stamps, hashes, and the path of a job's image."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffgen.errors import DiffgenError, why


def image_path(folder: Path, job_id: str, image_format: str) -> Path:
    return folder / "images" / job_id[:2] / f"{job_id}.{image_format}"


def shown(path: str | Path) -> str:
    """A path to show to people: relative if it is below the current folder."""
    try:
        return os.fspath(Path(path).relative_to(Path.cwd()))
    except (OSError, ValueError):
        return os.fspath(path)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError of a write into a DiffgenError."""
    try:
        yield
    except OSError as error:
        raise DiffgenError(
            f"{error.filename2 or error.filename or folder}: cannot write: {why(error)}",
            "free disk space or fix the path, and run the same command again; nothing that was committed is lost",
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old or the new one, never a part. Raises DiffgenError if it cannot be written."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path.parent):
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_filesystem(folder: Path) -> None:
    """Make everything durable that was written on the folder's file system: one call for a hundred thousand files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # Linux
        if sync is None:
            os.sync()
        elif sync(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(handle)


def unused(path: Path) -> Path:
    """The path, or if it exists, the first free one with a number before its suffix."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def stamp(paths: Sequence[str | Path]) -> str:
    """Size, times and inode of each file, as text; "-" for a missing one. Changes whenever a file changes.

    mtime alone can be set: rsync, archives and CI caches give a file of new content the time that the old one had.
    """
    parts = []
    for path in paths:
        try:
            parts.append(stamp_of(os.stat(path)))
        except OSError:
            parts.append("-")
    return ";".join(parts)


def stamp_of(file: os.stat_result) -> str:
    """The `stamp` of one file."""
    return f"{file.st_size}:{file.st_mtime_ns}:{file.st_ctime_ns}:{file.st_ino}"


def read_regular(path: str | Path) -> bytes:
    """The bytes of a file. Raises OSError, also for a pipe or a device, whose reading could never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.readall()


def sha256_or_none(path: Path) -> str | None:
    """64 hex digits; None for a file that cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return None


def file_sha256(path: Path) -> str:
    """64 hex digits. Reads in blocks, so the file need not fit into memory. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cpu_count() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
