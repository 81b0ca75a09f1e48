"""An open run folder, as its only writer or as one of several.

A batch is committed as a whole: write its images to temporary files, fsync, put them in place; then append its records and
a trailer in one write, fsync. Opening drops everything after the last complete trailer, so an interrupted batch is made
again. Long because opening, repairing, committing and deleting keep one order of writes, to be read in one piece."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, why
from diffgen.files import disk_errors, image_path, sync_folder, unused, write_atomically
from diffgen.run.store.claims import Claims
from diffgen.run.store.images import (
    UNFINISHED,
    image_files,
    is_done,
    look_at_images,
    present_records,
    remember,
    unite,
)
from diffgen.run.store.records import (
    Log,
    RecordFile,
    edit_version_of,
    read_log,
    read_more,
    record_file,
    record_files,
    stored,
    trailer_line,
)
from diffgen.run.store.state import (
    FORMAT,
    HELD,
    LOCK_WAIT_SECONDS,
    RunState,
    check_folder,
)
from diffgen.types import Record, Result

KEPT_BATCH = 1000  # records per batch when a file is rewritten


class RunStore(RunState):
    """An open run folder. One process at a time, or with `shared` several that each have a `worker` name of their own:
    opening takes the lock, alone or shared; `close`, or leaving `with`, releases it. A shared store does not repair
    others' files, and sees their work after `refresh`.

    `records` are those of all workers by job id; `present` leaves out those whose image is gone, which count as not made;
    `done` are the ids of the jobs that need no work; `commits` counts the batches committed by this object; `repaired`
    lists damage that is made again. Opening raises DiffgenError when the folder is locked, damaged, not writable,
    or holds files of others.
    """

    def __init__(self, folder: Path, image_format: str, worker: str = "0", *, shared: bool = False) -> None:
        super().__init__(folder, shared)
        self.worker = worker
        self.image_format = image_format
        self.repaired: list[str] = []
        self.commits = 0
        check_folder(folder, create=True)
        self._lock = self._take_lock()
        self._cache = FileCache()
        self._claims: Claims | None = None
        self._own: RecordFile | None = None  # this worker's records, to read what it has written
        try:
            self._refuse_workers_elsewhere()
            self._open()
            if shared and not self.claims().take_name():
                raise DiffgenError(
                    f"{folder}: another worker named {worker} was active within the last three minutes",
                    "give each worker its own shard; if that worker is dead, wait three minutes",
                )
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        folder, image_format = self.folder, self.image_format
        self.open_state()
        # An older diffgen would not see the records of this one; and one that edits otherwise must not go on unasked.
        self.note(format=FORMAT, edit_version=edit_version_of(folder, self.state))
        logs = {path: read_log(path) for path in record_files(folder)}
        self._read = {path: log.end for path, log in logs.items()}
        with disk_errors(folder):
            for path, log in logs.items():
                if not self.shared or path == record_file(folder, self.worker):
                    self._repair_records(path, log)
            self._delete_unfinished()
        self.records = unite(folder, image_format, logs.values())
        # Looked at once: only this object changes them while locked.
        images, damaged = look_at_images(folder, image_format, self.records, None if self.shared else self._cache)
        images -= self._set_aside(damaged)
        self.present = present_records(self.records, images)
        self.done = {job_id for job_id, record in self.present.items() if is_done(record)}

    def refresh(self) -> bool:
        """Learn of the batches that other workers have committed since. Returns whether there were any."""
        news = False
        for path in record_files(self.folder):
            if path == record_file(self.folder, self.worker):
                continue
            new, self._read[path] = read_more(path, self._read.get(path, 0))
            for record in new:
                known = self.present.get(record.id)
                if known is None or known.status != "made":
                    if record.status == "made" and not image_path(self.folder, record.id, self.image_format).exists():
                        continue
                    self._learn(record)
                    news = True
        return news

    def _learn(self, record: Record) -> None:
        self.records[record.id] = self.present[record.id] = record
        if is_done(record):
            self.done.add(record.id)

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
                fcntl.flock(handle, (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                return handle
            except OSError as error:
                if error.errno not in HELD and self.shared:
                    return handle  # claims are enough
                if error.errno not in HELD:
                    os.close(handle)
                    raise DiffgenError(
                        f"{self.folder}: this file system cannot lock files: {why(error)}",
                        "put the run folder on a local disk, or mount this file system with lock support",
                    ) from None
                if time.monotonic() >= deadline:
                    break
                time.sleep(LOCK_WAIT_SECONDS / 10)
        os.close(handle)
        raise DiffgenError(
            f"{self.folder}: another diffgen is writing there", "wait for it, or give this run another --output"
        )

    def _refuse_workers_elsewhere(self) -> None:
        """Raises DiffgenError if workers on other machines are active, which this machine's lock may not see."""
        if not self.shared and (workers := Claims(self.folder, self.worker).elsewhere()):
            raise DiffgenError(
                f"{self.folder}: {len(workers)} workers on other machines were active there within the last three "
                "minutes",
                "wait until they are done, or three minutes if they died",
            )

    def share(self) -> None:
        """Let workers in, who open the folder as `shared`. This object must not write until it is closed."""
        self._leave_claims()
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _repair_records(self, path: Path, log: Log) -> None:
        """Cut off the beginning of an interrupted write; of a damaged file, keep a copy and the batches that are whole."""
        if log.damaged:
            kept, file = unused(path.with_suffix(".damaged.jsonl")), RecordFile(path)
            _write_synced(kept, "wb", file.read(0, log.size))
            write_atomically(path, b"".join(file.read(first, last) for first, last in log.batches))
            self.repaired.append(
                f"{path.name} was damaged: {len(log.records)} jobs in intact batches are kept, the others are made "
                f"again; the damaged file is kept as {kept.name}"
            )
        elif log.end < log.size:
            with path.open("r+b") as file_:
                file_.truncate(log.end)
                os.fsync(file_.fileno())

    def _set_aside(self, damaged: Sequence[Path]) -> set[str]:
        """Rename image files that changed, so that they are made again. Returns their job ids."""
        with disk_errors(self.folder):
            for path in damaged:
                os.replace(path, unused(path.with_name(f"{path.stem}.damaged{path.suffix}")))
        if damaged:
            names = ", ".join(path.stem for path in damaged[:3])
            more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
            self.repaired.append(
                f"{len(damaged)} image files had changed: {names}{more}; those that the recipe plans are made again; "
                "the changed files are kept beside them as *.damaged.*"
            )
        return {path.stem for path in damaged}

    def _delete_unfinished(self) -> None:
        unfinished = self.folder / "images" / UNFINISHED
        for own in [unfinished / self.worker] if self.shared else _listed(unfinished):
            for leftover in _listed(own) if own.is_dir() else [own]:
                leftover.unlink(missing_ok=True)
            if own.is_dir():
                own.rmdir()
        if not self.shared:
            shutil.rmtree(
                self.folder / "claims", ignore_errors=True
            )  # whoever claimed a lane is dead: the lock is ours

    def drop_all_but(self, keep: set[str], *, remove: bool) -> tuple[int, int]:
        """(images, bytes) of the jobs whose id is not in `keep`, and of damaged images that were set aside; with `remove`,
        those images, and records, are deleted."""
        stale = [path for path in image_files(self.folder) if path.stem not in keep]
        stale += sorted((self.folder / "images").glob("*/*.damaged*"))
        size = sum(path.stat().st_size for path in stale)
        if remove:
            # Records first: if this is interrupted, images without records are left over, which does no harm.
            kept = [record for record in self.records.values() if record.id in keep]
            ours = record_file(self.folder, self.worker)
            write_atomically(ours, b"".join(_batch(kept[i : i + KEPT_BATCH]) for i in range(0, len(kept), KEPT_BATCH)))
            with disk_errors(self.folder):
                for path in [*(path for path in record_files(self.folder) if path != ours), *stale]:
                    path.unlink()
            self.records = {record.id: record for record in kept}
            self.present = {job_id: record for job_id, record in self.present.items() if job_id in keep}
            self.done &= keep
        return len(stale), size

    def commit(self, results: Sequence[Result]) -> None:
        """Commit one batch, as a whole or not at all. Raises DiffgenError when it cannot be written."""
        path, records = record_file(self.folder, self.worker), [result.record for result in results]
        with disk_errors(self.folder):
            self._commit_images(results)
            first = not path.exists()
            start = 0 if first else path.stat().st_size
            _write_synced(path, "ab", _batch(records))
            if first:
                sync_folder(self.folder)
            if self._own is None:
                self._own = RecordFile(path)
        for record in stored(records, self._own, start):
            self._learn(record)
        self.commits += 1

    def _commit_images(self, results: Iterable[Result]) -> None:
        images = self.folder / "images"
        unfinished = images / UNFINISHED / self.worker
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
            if self._put_in_place(temporary, target):
                remember(target, record, self._cache)
        # After a power cut, every image that a record names must be there: sync the directory entries too.
        for folder in {self.folder, images, *(target.parent for _, target, _ in moves)}:
            sync_folder(folder)

    def _put_in_place(self, temporary: Path, target: Path) -> bool:
        """False if another worker has also made the job: that worker's image stays, because its record describes the
        file."""
        if not self.shared:
            os.replace(temporary, target)
            return True
        try:
            os.link(temporary, target)
        except FileExistsError:
            temporary.unlink()
            return False
        except OSError:  # a file system without hard links
            os.replace(temporary, target)
            return True
        temporary.unlink()
        return True

    def claims(self) -> Claims:
        """What this worker claims, until the store is closed."""
        if self._claims is None:
            self._claims = Claims(self.folder, self.worker).__enter__()
        return self._claims

    def _leave_claims(self) -> None:
        if self._claims is not None:
            self._claims.__exit__()
            self._claims = None

    def close(self) -> None:
        self._leave_claims()
        self._cache.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _batch(records: Sequence[Record]) -> bytes:
    """The lines of a batch, with its trailer."""
    lines = "".join(f"{record.to_json()}\n" for record in records).encode()
    return lines + trailer_line(len(records), lines) + b"\n"


def _write_synced(path: Path, mode: str, content: bytes) -> None:
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
