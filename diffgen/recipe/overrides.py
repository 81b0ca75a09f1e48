"""Overrides of a recipe file: `--set key=value`, and `${NAME}` from the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from diffgen.errors import UsageError, did_you_mean
from diffgen.recipe.sections import OLD_NAMES
from diffgen.recipe.yaml_reader import read_yaml


def override(raw: dict[str, Any], item: str) -> None:
    """Apply one `--set a.b=value`. `conditions.NAME.x` addresses a condition by its name."""
    key, sign, text = item.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"--set {item}: not of the form key=value", "for example --set variants=2")
    where = Path(f"--set {key}")
    value = read_yaml(text, where)
    parts = key.strip().split(".")
    if parts[0] == "conditions" and len(parts) > 1:
        # A name may contain dots: take the longest that matches.
        known = _condition_names(raw)
        size = next((n for n in range(len(parts) - 1, 0, -1) if ".".join(parts[1 : n + 1]) in known), 1)
        target = _condition(raw, ".".join(parts[1 : size + 1]), item)
        parts = parts[size + 1 :]
        if not parts:
            raise UsageError(
                f"--set {item}: name a field of the condition", "for example conditions.night.strength=0.5"
            )
        if parts == ["strength"]:  # a run folder's copy of a recipe also has the preset's instruction_strength
            target.pop("instruction_strength", None)
    elif parts[0] not in raw and parts[0] in _condition_names(raw):
        path = key.strip() if len(parts) > 1 else f"{parts[0]}.strength"
        raise UsageError(f"--set {item}: '{parts[0]}' is a condition", f"write --set conditions.{path}={text}")
    else:
        target = raw
    for part in parts[:-1]:
        if target.get(part) is None:  # absent, or null as in the recipe of a run folder
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise UsageError(f"--set {item}: '{part}' is a value, not a section", "check the name before the last dot")
    if parts[-2:-1] == ["checks"]:
        for old, new in OLD_NAMES.items():
            if parts[-1] in (old, new):
                target.pop(old, None)
                parts[-1] = new
    target[parts[-1]] = value


def _condition_names(raw: dict[str, Any]) -> list[str]:
    found = raw.get("conditions")
    entries = found if isinstance(found, list) else []
    return [str(e.get("name", next(iter(e), "")) if isinstance(e, dict) else e) for e in entries]


def _condition(raw: dict[str, Any], name: str, item: str) -> dict[str, Any]:
    found = raw.get("conditions")
    conditions: list[Any] = found if isinstance(found, list) else []
    names = _condition_names(raw)
    for i, entry in enumerate(conditions):
        if entry == name:
            conditions[i] = {name: {}}
            return conditions[i][name]  # type: ignore[no-any-return]
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
        if isinstance(entry, dict) and set(entry) == {name}:
            entry[name] = entry[name] or {}
            if isinstance(entry[name], dict):
                return entry[name]  # type: ignore[no-any-return]
    raise UsageError(
        f"--set {item}: the recipe has no condition '{name}'{did_you_mean(name, names)}",
        f"its conditions: {', '.join(names) or 'none'}",
    )


_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


# These texts appear in the report and the manifest, so a secret from the environment must not get into them.
_PROMPTS = frozenset({"prompt", "instruction", "negative_prompt", "templates"})


def expand(value: Any, path: Path, key: str = "") -> Any:
    """Replace `${NAME}` by the environment's value. A value that is only `${NAME}` is read as YAML (`seed: ${SEED}`).

    `key` is the key of `value`. Raises UsageError for a variable that is not set, and for any variable in a prompt.
    """
    if isinstance(value, dict):
        return {name: expand(item, path, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [expand(item, path, key) for item in value]
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{path}: a value contains a zero byte: {value[:60]!r}", "remove it")
    if not isinstance(value, str) or "${" not in value:
        return value

    if key in _PROMPTS and (found := _ENV.search(value)):
        raise UsageError(
            f"{path}: {key}: {found[0]}: no environment variables in prompts, which are published with the images",
            f"write the words, or override them: --set conditions.NAME.{key}=…",
        )

    def lookup(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UsageError(
                f"{path}: {match[0]}: the environment variable {match[1]} is not set",
                f"set it before the command: {match[1]}=VALUE diffgen …",
            )
        return os.environ[match[1]]

    text = _ENV.sub(lookup, value)
    if _ENV.fullmatch(value):
        plain = read_yaml(text, path) if text else ""
        return plain if isinstance(plain, (bool, int, float)) else text
    return text
