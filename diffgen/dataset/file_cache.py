"""A cache of facts about files that are slow to compute (digests, sizes), by path and stamp. Safe to delete.

One SQLite file in the user's cache folder (`DIFFGEN_CACHE`, else `XDG_CACHE_HOME`/diffgen, else ~/.cache/diffgen). If it
cannot be opened or written, the facts are computed again, without an error. Every value has a checksum, and a file that
SQLite finds damaged is thrown away: a wrong digest would make other images.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def cache_dir() -> Path:
    if folder := os.environ.get("DIFFGEN_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffgen"


def _check(path: str, stamp: str, value: str) -> str:
    """The checksum that is stored behind the stamp."""
    return f"{zlib.crc32('|'.join((path, stamp, value)).encode('utf-8', 'surrogateescape')):08x}"


class FileCache:
    """Text by (kind, path). An entry is valid as long as the stamp of its files does not change."""

    def __init__(self, folder: Path | None = None) -> None:
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._file = (folder or cache_dir()) / "files.sqlite"
        self._new: list[tuple[str, str, str, str]] = []
        if not self._open():
            self._open()  # a damaged file has been thrown away

    def _open(self) -> bool:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._file, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS facts"
                "(kind TEXT, path TEXT, stamp TEXT, value TEXT, PRIMARY KEY(kind, path)) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return self._db is not None

    def _give_up(self, error: Exception) -> None:
        """Go on without the cache; a file that is no whole database is deleted, so that the next process has one again."""
        self._db = None
        text = str(error)  # Python 3.10 has no error codes
        if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
            for end in ("", "-wal", "-shm"):
                with suppress(OSError):
                    os.unlink(f"{self._file}{end}")

    def get(self, kind: str, path: str | Path, stamp: str) -> str | None:
        rows = self._select("SELECT path, stamp, value FROM facts WHERE kind=? AND path=?", kind, str(path))
        cached_stamp, value = rows.get(str(path), ("", None))
        return value if cached_stamp == stamp else None

    def known(self, kind: str, path: str | Path, stamp: str, compute: Callable[[], str]) -> str:
        """The cached value, or else the result of `compute`, which is then cached."""
        value = self.get(kind, path, stamp)
        if value is None:
            value = compute()
            self.put(kind, path, stamp, value)
        return value

    def below(self, kind: str, folder: str) -> dict[str, tuple[str, str]]:
        """Path -> (stamp, value) of everything cached below a folder, in one query."""
        query = "SELECT path, stamp, value FROM facts WHERE kind=? AND path>=? AND path<?"
        return self._select(query, kind, f"{folder}{os.sep}", f"{folder}{chr(ord(os.sep) + 1)}")

    def _select(self, query: str, *values: str) -> dict[str, tuple[str, str]]:
        if self._db is None:
            return {}
        try:
            rows = self._db.execute(query, values).fetchall()
        except UnicodeEncodeError:  # a name that is not UTF-8, which is never cached
            return {}
        except sqlite3.Error as error:
            self._give_up(error)
            return {}
        found = {}
        for path, stamp, value in rows:
            stamp, _, check = str(stamp).rpartition("#")
            if check == _check(path, stamp, value):
                found[path] = (stamp, value)
        return found

    def put(self, kind: str, path: str | Path, stamp: str, value: str) -> None:
        if not str(path).isprintable() and "\\udc" in ascii(str(path)):
            return  # a name that is not UTF-8, which SQLite cannot store
        with self._lock:
            self._new.append((kind, str(path), f"{stamp}#{_check(str(path), stamp, value)}", value))
            full = len(self._new) >= 5000
        if full:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            rows, self._new = self._new, []
            if self._db is None or not rows:
                return
            try:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?,?,?,?)", rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._give_up(error)

    def close(self) -> None:
        self.flush()
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> FileCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
