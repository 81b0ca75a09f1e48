"""The copy of a recipe in a run folder: with all defaults, and with paths relative to that folder."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic.fields import FieldInfo

from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import IsPath, Section

Place = tuple[int | str, ...]


def run_copy(recipe: Recipe, raw: Any, base: Path, folder: Path, aliases: Container[str]) -> str:
    """The recipe in `base` as the YAML text that `folder` keeps.

    `${ENV}` stays as written in `raw`. `aliases` are model names: never paths, even if a folder beside the recipe has the
    same name.
    """
    data = recipe.model_dump()
    for condition, fields in zip(recipe.conditions, data["conditions"], strict=True):
        for key, own in (("checks", condition.checks), ("objects", condition.objects)):
            if own is not None:  # keys that the condition takes from the recipe must stay unset
                fields[key] = own.model_dump(exclude_unset=True)
    for place, value in list(_leaves(data)):
        written = _lookup(raw, place)
        if isinstance(written, str) and "${" in written and isinstance(value, (str, int, float)):
            _put(data, place, written)
    for place, value, marker in _paths(recipe):
        if marker.or_alias and value in aliases:
            continue
        # A detector may be a hub id only with text2img.
        if marker.or_id and (place != ("detector",) or recipe.text2img) and not _exists(base, value):
            continue
        if not os.path.isabs(value) and not value.startswith("~"):
            _put(data, place, Path(os.path.relpath(base / _lookup(data, place), folder)).as_posix())
    data["output"] = "."
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _paths(section: Section, place: Place = ()) -> Iterator[tuple[Place, str, IsPath]]:
    """(place, text, marker) of all keys that IsPath marks and that are set."""
    for name, field in type(section).model_fields.items():
        value, marker = getattr(section, name), _marker(field)
        at = (*place, name)
        for below, item in (
            [((*at, i), item) for i, item in enumerate(value)] if isinstance(value, list) else [(at, value)]
        ):
            if isinstance(item, Section):
                yield from _paths(item, below)
            elif marker and isinstance(item, str):
                yield below, item, marker
            elif marker and isinstance(item, dict):
                yield from (
                    ((*below, key), item[key], IsPath()) for key in marker.keys if isinstance(item.get(key), str)
                )


def _marker(field: FieldInfo) -> IsPath | None:
    return next((found for hint in (field.annotation, *field.metadata) for found in _markers(hint)), None)


def _markers(hint: Any) -> Iterator[IsPath]:
    if isinstance(hint, IsPath):
        yield hint
    for part in get_args(hint):
        yield from _markers(part)


def _exists(base: Path, text: str) -> bool:
    return (base / os.path.expanduser(text)).exists()


def _leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """(place, value) of every scalar in nested dicts and lists."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*place, key))
    else:
        yield place, value


def _lookup(raw: Any, place: Sequence[int | str]) -> Any:
    """The value at a place, None if there is none. The level of a preset's name (`- night: {…}`) is skipped."""
    for part in place:
        if isinstance(raw, dict) and part not in raw and len(raw) == 1:
            raw = next(iter(raw.values()))
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _put(data: Any, place: Place, value: Any) -> None:
    for part in place[:-1]:
        data = data[part]
    data[place[-1]] = value
