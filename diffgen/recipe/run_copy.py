"""The recipe as a run folder keeps it: with its defaults, and with paths relative to that folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def leaves(value: Any, path: tuple[int | str, ...] = ()) -> Iterable[tuple[tuple[int | str, ...], Any]]:
    items: Iterable[tuple[int | str, Any]]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, item in items:
        yield from leaves(item, (*path, key))


def lookup(raw: Any, path: Sequence[int | str]) -> Any:
    for part in path:
        if isinstance(raw, dict) and part not in raw and len(raw) == 1:
            raw = next(iter(raw.values()))  # a preset's own level
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def put(data: Any, path: Sequence[int | str], value: Any) -> None:
    for part in path[:-1]:
        data = data[part]
    data[path[-1]] = value


def rebase(written: str, expanded: str, base: Path, folder: Path) -> str:
    """A path as seen from the run folder; absolute ones (also through `${ENV}`) stay as they were written."""
    if Path(expanded).is_absolute() or expanded.startswith("~"):
        return written
    return Path(os.path.relpath(base / written, folder)).as_posix()
