"""Matching a detector's classes to the dataset's by name."""

from __future__ import annotations

from collections.abc import Sequence


def same_names(names: Sequence[str], theirs: Sequence[str]) -> dict[int, int]:
    """Index in `names` -> index in `theirs` of the same name, ignoring case and treating blanks, '-' and '_' alike."""
    by_name = {plain(name): i for i, name in enumerate(theirs)}
    return {i: by_name[plain(name)] for i, name in enumerate(names) if plain(name) in by_name}


def plain(name: str) -> str:
    """A class name in lower case, its words separated by single blanks."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def listed_names(names: Sequence[str]) -> str:
    """The names for a message, at most 80 of them."""
    return ", ".join(names[:80]) + (f" and {len(names) - 80} more" if len(names) > 80 else "")
