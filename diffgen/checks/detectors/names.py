"""A detector's classes matched to the dataset's by name."""

from __future__ import annotations

from collections.abc import Sequence


def same_names(names: Sequence[str], theirs: Sequence[str]) -> dict[int, int]:
    """Class id -> class id of the same name, whatever the case, with blanks, '-' and '_' alike."""
    by_name = {_plain(name): i for i, name in enumerate(theirs)}
    return {i: by_name[_plain(name)] for i, name in enumerate(names) if _plain(name) in by_name}


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def listed_names(names: Sequence[str]) -> str:
    return ", ".join(names[:80]) + (f" and {len(names) - 80} more" if len(names) > 80 else "")
