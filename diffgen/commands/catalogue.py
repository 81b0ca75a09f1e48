"""`diffgen conditions` and `diffgen models`: the presets and models that a recipe can name, as facts and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.models.find import resolve_model
from diffgen.models.model import Model, is_on_disk, vocabulary
from diffgen.recipe.presets import presets
from diffgen.recipe.sections import Condition

# Fields of a model that are not shown: a run fills them in, or (vocabulary) they have a line of their own.
_HIDDEN_FIELDS = ("vocabulary", "loras", "networks", "observers", "layout")


def condition_facts(name: str) -> dict[str, Any]:
    """All fields of a preset. Raises UsageError when there is no preset of that name."""
    if name not in presets():
        raise UsageError(f"there is no preset '{name}'", f"presets: {', '.join(presets())}")
    return Condition.model_validate(name).model_dump(exclude_none=True)


def condition_text(fields: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(fields), sort_keys=False, width=100).rstrip()


def conditions_text() -> str:
    return "\n".join(f"{name:<12} {fields['strength']:<5} {fields['prompt']}" for name, fields in presets().items())


def models_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of `model_rows`."""
    lines = [f"{'name':<27}{'editor':<10}{'MB':>6}  {'here':<5} licence"]
    for row in rows:
        here = "yes" if row["on_disk"] else "no"
        about = f"{row['licence']}{', gated' if row['gated'] else ''}; {row['about']}"
        lines.append(f"{row['name']:<27}{row['editor']:<10}{row['size_mb']:>6}  {here:<5} {about}")
    return "\n".join(lines)


def model_facts(name: str) -> dict[str, Any]:
    """The fields of a model, by short name, hub id, folder or file; also its vocabulary if it has one.

    Raises DiffgenError when the model cannot be found.
    """
    model = _resolved(name)
    facts = {key: value for key, value in asdict(model).items() if value is not None and key not in _HIDDEN_FIELDS}
    if isinstance(model.scheduler, tuple):
        facts["scheduler"] = dict(model.scheduler)
    if model.loras:
        facts["loras"] = [lora.name for lora in model.loras]
    facts["on_disk"] = is_on_disk(model)
    if (words := vocabulary(model)) is not None:
        facts |= {"conditions": [kind for kind in words if kind], "words": words}
    return facts


def model_text(facts: Mapping[str, Any]) -> str:
    lines = [f"{key:<20} {_words(value)}" for key, value in facts.items() if key != "words"]
    if "words" in facts:
        lines.append("It makes only these conditions, one at a time. --json lists the words it knows.")
    return "\n".join(lines)


def _words(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _resolved(name: str) -> Model:
    with FileCache() as cache:
        return resolve_model(name, None, Path(), cache)
