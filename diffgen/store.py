"""The run folder: its lock, its records, its images. The only writer of both.

A batch is committed as a whole: images to temporary names, fsync, rename; then its records and a trailer in one write,
fsync. Opening drops whatever follows the last complete trailer, so that a batch cut short is made again, whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from diffgen.errors import DiffgenError, UsageError, why
from diffgen.types import Record, Result

FORMAT = 1
RECORDS = "records.jsonl"
STATE = "run.json"
PATIENCE_SECONDS = 0.2  # with the lock of another process
_OURS = re.compile(r"[0-9a-f]{32}\.(jpg|png|webp)")
# Of run.json, where it is written: what is read from it before anything else could notice.
_KINDS = {"environments": dict, "revisions": dict | None, "batch_size": int | None, "limit": int | None}
_UNFINISHED = ".tmp"  # below images/: what lies here was never committed


def is_run_folder(folder: Path) -> bool:
    return (folder / STATE).is_file()


def image_path(folder: Path, job_id: str, image_format: str) -> Path:
    return folder / "images" / job_id[:2] / f"{job_id}.{image_format}"


def is_locked(folder: Path) -> bool:
    """Whether a process has the run folder open to write: a run is going on. Takes the lock for a moment to find out."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def check_folder(folder: Path, *, make: bool = False) -> None:
    """Raises DiffgenError for what can be no run folder, as it holds what is not ours. With `make`, it is there then."""
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return  # a run will make it
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{error.filename} is not a folder", "choose another run folder, or move away what is in its place"
        ) from None
    except OSError as error:
        raise DiffgenError(
            f"{folder}: cannot write there: {why(error)}", "choose another run folder (--output)"
        ) from None
    if names - {"lock", f".{STATE}.tmp"} and STATE not in names:
        raise UsageError(
            f"{folder} holds files that diffgen did not make",
            "choose an empty or new folder; nothing was touched",
        )


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """A disk that does not take a write is one clear error; what was committed before it is safe."""
    try:
        yield
    except OSError as error:
        raise DiffgenError(
            f"{error.filename2 or error.filename or folder}: cannot write: {why(error)}",
            "make room, or mend what is in the way, and run the same command again; nothing that was committed is lost",
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole file or none of it; a reader never sees half. Raises DiffgenError when the disk does not take it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _disk(path.parent):
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)


def read_state(folder: Path) -> dict[str, Any]:
    """run.json. Raises UsageError when the folder is not one of ours, or of a later version."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} is not a run folder", "give the folder that 'diffgen run' wrote") from None
    except (OSError, ValueError) as error:
        raise DiffgenError(
            f"{folder / STATE}: cannot be read: {why(error)}", "restore the file, or start in a new folder"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DiffgenError(
            f"{folder / STATE}: of another format than {FORMAT}", "use the diffgen that wrote it, or a new folder"
        )
    for key, kinds in _KINDS.items():
        if not isinstance(state.get(key), kinds):
            raise DiffgenError(f"{folder / STATE}: {key} is damaged", "restore the file, or start in a new folder")
    return state


def read_records(folder: Path) -> tuple[dict[str, Record], int]:
    """(records by job id, the later of two winning; how many bytes hold them). What follows was never committed.

    Raises DiffgenError when a damaged batch has complete ones after it: that is no interrupted write.
    """
    records: dict[str, Record] = {}
    good = 0
    for batch, good in read_commits(folder):  # noqa: B007 - the last one's end is wanted
        records.update((record.id, record) for record in batch)
    return records, good


def read_commits(folder: Path) -> Iterator[tuple[list[Record], int]]:
    """Every committed batch in turn: (its records, where it ends in bytes). Raises DiffgenError as `read_records`."""
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
        if _trailer(len(batch), raw[start : position - len(line) - 1]) == line and not damaged:
            if good != start:
                raise DiffgenError(
                    f"{folder / RECORDS}: damaged at byte {good}",
                    "restore the file from a backup, or start in a new folder",
                )
            good = position
            yield batch, good
        damaged, batch, start = False, [], position


def _trailer(count: int, lines: bytes) -> bytes:
    return f'{{"commit":{count},"crc":"{zlib.crc32(lines):08x}"}}'.encode()


def read_present(folder: Path, image_format: str) -> dict[str, Record]:
    """What `RunStore.present` gives, without lock or repair: also while a run is writing. {} where there is no run."""
    return _present(folder, read_records(folder)[0], image_format)


def _present(folder: Path, records: dict[str, Record], image_format: str) -> dict[str, Record]:
    there = {path.stem for path in _image_files(folder) if path.suffix == f".{image_format}"}
    return {key: record for key, record in records.items() if record.status != "made" or key in there}


def done(present: dict[str, Record]) -> set[str]:
    """Ids of the jobs that need no work: made, or failed for good."""
    return {key for key, record in present.items() if record.status == "made" or record.kind == "source"}


def _image_files(folder: Path) -> Iterator[Path]:
    top = folder / "images"
    for place in os.scandir(top) if top.is_dir() else ():
        if place.is_dir(follow_symlinks=False) and place.name != _UNFINISHED:
            for entry in os.scandir(place):
                # Only what we made: a file that somebody put here is nothing to count, and nothing to clean away.
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) and entry.stat().st_size:
                    yield Path(entry.path)


class RunStore:
    """An open run folder. One process at a time: opening takes the lock, `close` (or leaving `with`) gives it back."""

    def __init__(self, folder: Path, image_format: str) -> None:
        self.folder = folder
        self.image_format = image_format
        check_folder(folder, make=True)
        self._lock = self._take_lock()
        try:
            if is_run_folder(folder):
                self.state = read_state(folder)
            else:
                self.state = {"format": FORMAT, "environments": {}}
                self._write_state()
            self.records, good = read_records(folder)
            with _disk(folder):
                self._cut(good)
                self._sweep()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> int:
        try:
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DiffgenError(
                f"{self.folder}: cannot write there: {why(error)}", "choose another run folder (--output)"
            ) from None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except OSError:
                if time.monotonic() < deadline:  # `is_locked` holds it for a moment
                    time.sleep(PATIENCE_SECONDS / 10)
                    continue
            os.close(handle)
            raise DiffgenError(
                f"{self.folder}: another diffgen is writing there", "wait for it, or give this run another --output"
            )

    def _cut(self, good: int) -> None:
        path = self.folder / RECORDS
        if path.exists() and path.stat().st_size > good:
            with path.open("r+b") as file:
                file.truncate(good)
                file.flush()
                os.fsync(file.fileno())

    def _sweep(self) -> None:
        folder = self.folder / "images" / _UNFINISHED
        if folder.is_dir():
            for leftover in folder.iterdir():
                leftover.unlink()

    def _write_state(self) -> None:
        write_atomically(self.folder / STATE, json.dumps(self.state, indent=1, sort_keys=True) + "\n")

    def settle(self, **choices: Any) -> dict[str, Any]:
        """Keep each choice (batch size, threads) at its first value for the life of the folder; returns those."""
        if any(key not in self.state for key in choices):
            self.state = {**choices, **self.state}
            self._write_state()
        return {key: self.state[key] for key in choices}

    def note(self, **facts: Any) -> None:
        """Write facts about the folder (which export it holds) over older ones."""
        if any(self.state.get(key) != value for key, value in facts.items()):
            self.state = {**self.state, **facts}
            self._write_state()

    def environment(self, details: dict[str, Any]) -> str:
        """A short key for the machine and versions that make the next records; the details go into run.json."""
        key = f"{zlib.crc32(json.dumps(details, sort_keys=True).encode()):08x}"
        if key not in self.state["environments"]:
            self.state["environments"][key] = details
            self._write_state()
        return key

    def drop_all_but(self, keep: set[str], *, remove: bool) -> tuple[int, int]:
        """(images, bytes) of jobs outside `keep`; with `remove`, these images and their records are deleted."""
        stale = [path for path in _image_files(self.folder) if path.stem not in keep]
        size = sum(path.stat().st_size for path in stale)
        if remove:
            # Records first: an image without a record is made again, a record without its image would be a gap.
            kept = [record for record in self.records.values() if record.id in keep]
            lines = "".join(f"{record.to_json()}\n" for record in kept)
            trailer = _trailer(len(kept), lines.encode()).decode()
            write_atomically(self.folder / RECORDS, f"{lines}{trailer}\n" if kept else "")
            self.records = {record.id: record for record in kept}
            with _disk(self.folder):
                for path in stale:
                    path.unlink()
        return len(stale), size

    def present(self) -> dict[str, Record]:
        """Records whose image is there, or never was: an image that somebody deleted is as good as not made."""
        return _present(self.folder, self.records, self.image_format)

    def done(self) -> set[str]:
        """Jobs that need no work."""
        return done(self.present())

    def commit(self, results: Sequence[Result]) -> None:
        """Make one batch part of the run, whole or not at all. Raises DiffgenError when the disk does not take it."""
        with _disk(self.folder):
            self._commit_images(results)
            lines = "".join(f"{result.record.to_json()}\n" for result in results).encode()
            path = self.folder / RECORDS
            first = not path.exists()
            with path.open("ab") as file:
                file.write(lines + _trailer(len(results), lines) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if first:
                _sync_folder(self.folder)
        self.records.update((result.record.id, result.record) for result in results)

    def _commit_images(self, results: Iterable[Result]) -> None:
        unfinished = self.folder / "images" / _UNFINISHED
        unfinished.mkdir(parents=True, exist_ok=True)
        moves = []
        for result in results:
            if result.image is None:
                continue
            target = image_path(self.folder, result.record.id, self.image_format)
            temporary = unfinished / target.name
            with temporary.open("wb") as file:
                file.write(result.image)
                file.flush()
                os.fsync(file.fileno())
            moves.append((temporary, target))
        for temporary, target in moves:
            target.parent.mkdir(exist_ok=True)
            os.replace(temporary, target)
        # A power cut must not take a name that a record speaks of: the images', and their folders'.
        for folder in {self.folder, unfinished.parent, *(target.parent for _, target in moves)}:
            _sync_folder(folder)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
