"""models.yaml: aliases of models, and the facts that a model can state about itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from diffgen.errors import UsageError, closest

PACKAGE = Path(__file__).parent

# What a model can state about itself: in models.yaml, in a `diffgen.json` beside its model_index.json, or in the recipe.
FACTS: dict[str, type] = {
    "steps": int, "guidance": float, "image_guidance": float, "native": int, "multiple": int,
    "severity": str, "licence": str, "memory_gb": float,
    "smallest": int, "levels": int, "least_object": int, "cpu_seconds_per_mpx": float, "vocabulary": str, "scheduler": str,
}  # fmt: skip
FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "img2img": {"steps": 20, "guidance": 6.0},
    "instruct": {"steps": 20, "guidance": 7.0, "image_guidance": 1.5},
    "inpaint": {"steps": 30, "guidance": 7.5},
}


@lru_cache(maxsize=1)
def aliases() -> dict[str, dict[str, Any]]:
    """Alias -> its entry in models.yaml."""
    data: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((PACKAGE / "models.yaml").read_text(encoding="utf-8"))
    return data["aliases"]


def model_facts(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The facts among `given`, each in its type, because `guidance: 1` must give the job ids of `guidance: 1.0`.

    Raises UsageError, with `where` in the message, for a value of another type or out of range.
    """
    facts: dict[str, Any] = {}
    for key, kind in FACTS.items():
        value: Any = given.get(key)
        if value is None:
            continue
        if key == "scheduler" and isinstance(value, Mapping):
            facts[key] = tuple(sorted((str(name), setting) for name, setting in value.items()))
            continue
        if kind is float and type(value) is int:
            value = float(value)
        number: Any = 1 if kind is str else value
        if type(value) is not kind or not (1 if kind is int else 0) <= number <= _LARGEST:
            raise UsageError(f"{where}: {key}: expected {_WORDS[kind]}, got {value!r}", "correct or remove it")
        facts[key] = value
    return facts


_LARGEST = 8192  # for all numbers among the facts; also excludes infinity and NaN
_WORDS = {int: f"a whole number from 1 to {_LARGEST}", float: f"a number from 0 to {_LARGEST}", str: "a text"}


def alias_entry(name: str) -> dict[str, Any]:
    """Raises UsageError for an unknown alias."""
    if name not in aliases():
        raise UsageError(f"model '{name}' is not known", suggestion(name, aliases()))
    return aliases()[name]


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one, or all of them."""
    near = closest(word, known)
    return f"did you mean '{near}'?" if near else f"use one of: {', '.join(known)}; or a hub id, a folder, a file"
