"""The tuned recipe: the user's recipe with the settings that were found, each with its reason beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffgen.models.aliases import aliases
from diffgen.recipe.load import LoadedRecipe

# Of a condition: what is tuned, and replaces what the recipe has.
TUNED = ("strength", "instruction_strength", "steps", "guidance", "image_guidance", "detail", "objects", "match", "lights",
         "sensor", "share")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A condition with its share of the sources and tuned `fields`; `notes` by lever ("objects.detail")."""

    condition: str
    share: float
    fields: Mapping[str, Any]
    notes: Mapping[str, str]


def tuned_recipe(loaded: LoadedRecipe, path: Path, output: Path, parts: Sequence[Part], head: Sequence[str]) -> str:
    """The text of a recipe at `path`, for a run in `output`."""
    folder = path.parent
    whole = yaml.safe_load(loaded.to_yaml(folder, aliases()))
    kept = {key: _written(value, loaded.raw[key]) for key, value in whole.items() if key in loaded.raw}
    objects = kept.get("objects") or {}
    kept["objects"] = {"feather": objects["feather"]} if "feather" in objects else None
    kept |= {"output": os.path.relpath(output, folder), "detail": None, "conditions": None}
    kept["assign"] = "one" if len(parts) > 1 else kept.get("assign")
    lines = [f"# {line}" for line in ("Written by `diffgen tune`.", *head)]
    lines.append(_yaml({key: value for key, value in kept.items() if value is not None}).rstrip())
    lines.append("conditions:")
    for part in parts:
        at = [fields["name"] for fields in whole["conditions"]].index(part.condition)
        lines += _condition(part, whole["conditions"][at], loaded.raw["conditions"][at], folder)
    return "\n".join(lines) + "\n"


def _condition(part: Part, whole: Mapping[str, Any], raw: Any, folder: Path) -> list[str]:
    own = raw if isinstance(raw, dict) else {part.condition: None}
    named = len(own) == 1 and "name" not in own
    own = (next(iter(own.values())) or {}) if named else own
    kept = {key: _written(whole[key], value) for key, value in own.items() if key not in TUNED}
    kept |= {"share": part.share} if part.share < 1 else {}
    begin = f"- {part.condition}:" if named else "-"
    lines = [line for key, value in kept.items() for line in _yaml({key: value}).splitlines()]
    for key, value in part.fields.items():
        if not isinstance(value, Mapping):
            lines.append(_line(key, value, part.notes.get(key) or part.notes.get("range")))
            continue
        lines.append(f"{key}:")
        for below, one in value.items():
            one = Path(os.path.relpath(one, folder)).as_posix() if below == "folder" else one
            lines.append("  " + _line(below, one, part.notes.get(f"{key}.{below}")))
    indent = "    " if named else "  "
    if named:
        return [begin, *(indent + line for line in lines)]
    return [f"{begin} {lines[0]}", *(indent + line for line in lines[1:])]


def _line(key: str, value: Any, note: str | None) -> str:
    text = (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("\n...\n").strip()
    )
    return f"{key}: {text}" + (f"  # {note}" if note else "")


def _written(whole: Any, raw: Any) -> Any:
    """The keys that the user wrote, of a value with all defaults."""
    if isinstance(whole, dict) and isinstance(raw, dict):
        return {key: _written(whole[key], value) for key, value in raw.items() if key in whole}
    return whole


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
