"""An open run folder: the only writer of its records and images.

A batch is committed as a whole: write its images to temporary files, fsync, put them in place; then append its records and
a trailer in one write, fsync. Opening drops everything after the last complete trailer, so an interrupted batch is made
again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, why
from diffgen.files import disk_errors, image_path, sync_folder, unused, write_atomically
from diffgen.run.store.images import (
    UNFINISHED,
    damaged_images,
    image_files,
    image_ids,
    is_done,
    present_records,
    remember,
    unite,
)
from diffgen.run.store.records import Log, edit_version_of, read_log, record_file, record_files, trailer_line
from diffgen.run.store.state import (
    FORMAT,
    HELD,
    LOCK_WAIT_SECONDS,
    STATE,
    check_folder,
    is_run_folder,
    read_state,
)
from diffgen.types import EDIT_VERSION, Result


class RunStore:
    """An open run folder. One process at a time: opening takes the lock; `close`, or leaving `with`, releases it.

    `records` are those of all workers by job id; `present` leaves out those whose image is gone, which count as not made;
    `done` are the ids of the jobs that need no work; `commits` counts the batches committed by this object; `repaired`
    says what was damaged and is made again. Opening raises DiffgenError when the folder is locked, damaged, not writable,
    or holds files of others.
    """

    def __init__(self, folder: Path, image_format: str, worker: str = "0") -> None:
        self.folder = folder
        self.worker = worker
        self.image_format = image_format
        check_folder(folder, create=True)
        self._lock = self._take_lock()
        self._cache = FileCache()
        try:
            if is_run_folder(folder):
                self.state = read_state(folder)
            else:
                self.state = {"format": FORMAT, "edit_version": EDIT_VERSION, "environments": {}}
                self._write_state()
            # An older diffgen would not see the records of this one; and one that edits otherwise must not go on unasked.
            self.note(format=FORMAT, edit_version=edit_version_of(folder, self.state))
            self.repaired: list[str] = []
            self.commits = 0
            logs = {path: read_log(path) for path in record_files(folder)}
            with disk_errors(folder):
                for path, log in logs.items():
                    self._repair_records(path, log)
                self._delete_unfinished()
            self.records = unite(folder, image_format, logs.values())
            images = image_ids(folder, image_format)  # listed once: only this object changes them while locked
            images -= self._set_aside(damaged_images(folder, image_format, self.records, images, self._cache))
            self.present = present_records(self.records, images)
            self.done = {job_id for job_id, record in self.present.items() if is_done(record)}
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
        deadline = time.monotonic() + LOCK_WAIT_SECONDS  # `is_locked` of another process takes it for a moment
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except OSError as error:
                if error.errno not in HELD:
                    os.close(handle)
                    raise DiffgenError(
                        f"{self.folder}: this file system cannot lock files: {why(error)}",
                        "put the run folder on a local disk, or mount this one with locks",
                    ) from None
                if time.monotonic() >= deadline:
                    break
                time.sleep(LOCK_WAIT_SECONDS / 10)
        os.close(handle)
        raise DiffgenError(
            f"{self.folder}: another diffgen is writing there", "wait for it, or give this run another --output"
        )

    def _repair_records(self, path: Path, log: Log) -> None:
        """Cut off the beginning of an interrupted write; of a damaged file, keep a copy and the batches that are whole."""
        if log.damaged:
            kept = unused(path.with_suffix(".damaged.jsonl"))
            _write_synced(kept, "wb", log.raw)
            write_atomically(path, log.whole)
            self.repaired.append(
                f"{path.name} was damaged: its whole batches have {len(log.records)} jobs, the others are made again; "
                f"as it was: {kept.name}"
            )
        elif log.end < len(log.raw):
            with path.open("r+b") as file:
                file.truncate(log.end)
                os.fsync(file.fileno())

    def _set_aside(self, damaged: Sequence[Path]) -> set[str]:
        """Rename images that are not what was made, so that they are made again. Returns their job ids."""
        with disk_errors(self.folder):
            for path in damaged:
                os.replace(path, unused(path.with_name(f"{path.stem}.damaged{path.suffix}")))
        if damaged:
            names = ", ".join(path.stem for path in damaged[:3])
            more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
            self.repaired.append(
                f"{len(damaged)} images were not as they were made, and are made again: {names}{more}; "
                "as they were: *.damaged.* beside them"
            )
        return {path.stem for path in damaged}

    def _delete_unfinished(self) -> None:
        folder = self.folder / "images" / UNFINISHED
        if folder.is_dir():
            for leftover in folder.iterdir():
                leftover.unlink()
        shutil.rmtree(self.folder / "claims", ignore_errors=True)  # whoever claimed a lane is dead: the lock is ours

    def _write_state(self) -> None:
        write_atomically(self.folder / STATE, json.dumps(self.state, indent=1, sort_keys=True) + "\n")

    def settle(self, **choices: Any) -> dict[str, Any]:
        """Keep each choice (batch size, threads) at its first value for the folder's lifetime; returns those values."""
        if any(key not in self.state for key in choices):
            self.state = {**choices, **self.state}
            self._write_state()
        return {key: self.state[key] for key in choices}

    def note(self, **facts: Any) -> None:
        """Write facts about the folder (limit, hub commits) to run.json, replacing older values."""
        if any(self.state.get(key) != value for key, value in facts.items()):
            self.state = {**self.state, **facts}
            self._write_state()

    def environment(self, details: dict[str, Any]) -> str:
        """The key under which run.json keeps these details: the machine and versions that make the next records."""
        key = f"{zlib.crc32(json.dumps(details, sort_keys=True).encode()):08x}"
        if key not in self.state["environments"]:
            self.state["environments"][key] = details
            self._write_state()
        return key

    def drop_all_but(self, keep: set[str], *, remove: bool) -> tuple[int, int]:
        """(images, bytes) of the jobs whose id is not in `keep`; with `remove`, their images and records are deleted."""
        stale = [path for path in image_files(self.folder) if path.stem not in keep]
        size = sum(path.stat().st_size for path in stale)
        if remove:
            # Records first: if this is interrupted, images without records are left over, which does no harm.
            kept = [record for record in self.records.values() if record.id in keep]
            lines = "".join(f"{record.to_json()}\n" for record in kept)
            trailer = trailer_line(len(kept), lines.encode()).decode()
            ours = record_file(self.folder, self.worker)
            write_atomically(ours, f"{lines}{trailer}\n" if kept else "")
            with disk_errors(self.folder):
                for path in [*(path for path in record_files(self.folder) if path != ours), *stale]:
                    path.unlink()
            self.records = {record.id: record for record in kept}
            self.present = {job_id: record for job_id, record in self.present.items() if job_id in keep}
            self.done &= keep
        return len(stale), size

    def commit(self, results: Sequence[Result]) -> None:
        """Commit one batch, as a whole or not at all. Raises DiffgenError when it cannot be written."""
        with disk_errors(self.folder):
            self._commit_images(results)
            lines = "".join(f"{result.record.to_json()}\n" for result in results).encode()
            path = record_file(self.folder, self.worker)
            first = not path.exists()
            _write_synced(path, "ab", lines + trailer_line(len(results), lines) + b"\n")
            if first:
                sync_folder(self.folder)
        for result in results:
            job_id, record = result.record.id, result.record
            self.records[job_id] = self.present[job_id] = record
            if is_done(record):
                self.done.add(job_id)
        self.commits += 1

    def _commit_images(self, results: Iterable[Result]) -> None:
        unfinished = self.folder / "images" / UNFINISHED
        unfinished.mkdir(parents=True, exist_ok=True)
        moves = []
        for result in results:
            if result.image is None:
                continue
            target = image_path(self.folder, result.record.id, self.image_format)
            temporary = unfinished / target.name
            _write_synced(temporary, "wb", result.image)
            moves.append((temporary, target, result.record))
        for temporary, target, record in moves:
            target.parent.mkdir(exist_ok=True)
            os.replace(temporary, target)
            remember(target, record, self._cache)
        # After a power cut, every image that a record names must be there: sync the directory entries too.
        for folder in {self.folder, unfinished.parent, *(target.parent for _, target, _ in moves)}:
            sync_folder(folder)

    def close(self) -> None:
        self._cache.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_synced(path: Path, mode: str, content: bytes) -> None:
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
