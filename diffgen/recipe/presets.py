"""The preset conditions of conditions.yaml."""

from __future__ import annotations

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


def preset_fields(name: str) -> dict[str, Any]:
    if name not in presets():
        raise ValueError(f"there is no preset '{name}'{did_you_mean(name, presets())}; 'diffgen conditions' lists them")
    return {"name": name, **presets()[name]}
