"""A cache of facts about files that are slow to compute (digests, sizes), by path, size and mtime. Safe to delete.

One SQLite file in the user's cache folder (`DIFFGEN_CACHE`, else `XDG_CACHE_HOME`/diffgen, else ~/.cache/diffgen). If it
cannot be opened or written, the facts are computed again, without an error.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    if folder := os.environ.get("DIFFGEN_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffgen"


class FileCache:
    """Text by (kind, path). An entry is valid as long as the stamp of its files does not change."""

    def __init__(self, folder: Path | None = None) -> None:
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        folder = folder or cache_dir()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                folder / "files.sqlite", timeout=5, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS facts"
                "(kind TEXT, path TEXT, stamp TEXT, value TEXT, PRIMARY KEY(kind, path)) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError):
            self._db = None
        self._new: list[tuple[str, str, str, str]] = []

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
            return {path: (stamp, value) for path, stamp, value in self._db.execute(query, values)}
        except (sqlite3.Error, UnicodeEncodeError):  # the latter for a name that is not UTF-8, which is never cached
            return {}

    def put(self, kind: str, path: str | Path, stamp: str, value: str) -> None:
        if not str(path).isprintable() and "\\udc" in ascii(str(path)):
            return  # a name that is not UTF-8, which SQLite cannot store
        with self._lock:
            self._new.append((kind, str(path), stamp, value))
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
            except sqlite3.Error:
                self._db = None

    def close(self) -> None:
        self.flush()
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> FileCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
