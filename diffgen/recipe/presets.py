"""The preset conditions of conditions.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from diffgen.errors import did_you_mean


@lru_cache(maxsize=1)
def presets() -> dict[str, dict[str, Any]]:
    """The presets of conditions.yaml, by name."""
    data: dict[str, dict[str, Any]] = yaml.safe_load((files("diffgen.recipe") / "conditions.yaml").read_text("utf-8"))
    return data


def preset_fields(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's fields with the recipe's `changes`. Raises ValueError when there is no such preset."""
    if name not in presets():
        raise ValueError(f"there is no preset '{name}'{did_you_mean(name, presets())}; 'diffgen conditions' lists them")
    # An instruction is applied in full, unless the recipe sets a strength.
    whole = {} if "strength" in changes else {"instruction_strength": 1.0}
    return {"name": name, **presets()[name], **whole, **changes}
