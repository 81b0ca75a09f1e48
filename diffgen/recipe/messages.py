"""Turns pydantic's validation errors into messages for the author of the recipe: where, what, and the known keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from diffgen.errors import UsageError, did_you_mean
from diffgen.recipe.yaml_reader import line_of

# pydantic's error type -> what the message says. Fields in braces come from the error's `ctx`.
_FAULTS = {
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must consist of {description}",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "too_short": "must have {min_length} or more entries",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "invalid_key": "a key must be text: put it in quotes",
    "union_tag_invalid": "must be the path of a data.yaml, or a mapping with format: coco or voc",
}

# Union tags that pydantic adds to the location of an error.
_TAGS = frozenset({"str", "int", "dict[str,any]", "literal['auto']", "number", "range"})


class Misplaced(ValueError):
    """A rule between several keys is broken; `at` is the location that the message names."""

    def __init__(self, text: str, at: tuple[int | str, ...]) -> None:
        super().__init__(text)
        self.at = at


def readable(error: ValidationError, path: Path, root: Any, recipe: type[BaseModel]) -> UsageError:
    """The first of pydantic's errors, with file, line and key. `root` is the YAML node tree, if there is one."""
    first = error.errors(include_url=False)[0]
    fault = first.get("ctx", {}).get("error")
    place = fault.at if isinstance(fault, Misplaced) else first["loc"]
    loc = [part for part in place if part not in _TAGS]
    owner, field = _described(loc, recipe)
    if loc[:1] == ["dataset"]:
        del loc[1:2]  # pydantic's tag of the form
    line = line_of(root, loc)
    where = f"{path}:{line}" if line else str(path)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if first["type"] == "extra_forbidden":
        known = owner.model_fields
        key = str(loc[-1])
        meant = (_in_a_section(key, recipe) if len(loc) == 1 else "") or did_you_mean(key, known)
        return UsageError(f"{where}: {name}: unknown key{meant}", f"known keys here: {', '.join(known)}")
    meaning = field.description if field else None
    key = next((part for part in reversed(loc) if isinstance(part, str)), "")
    hint = f"{key}: {meaning}" if meaning else "'diffgen schema' describes every key"
    if first["type"] == "missing":
        return UsageError(f"{where}: {name}: this key is missing", hint)
    if first["type"] == "value_error":
        text = str(fault)
    else:
        known_fault = _FAULTS.get(first["type"])
        text = known_fault.format(description=meaning, **first.get("ctx", {})) if known_fault else first["msg"]
        text += f", got {_shown(first.get('input'))}"
    return UsageError(f"{where}: {name + ': ' if name else ''}{text}", hint)


def _in_a_section(key: str, recipe: type[BaseModel]) -> str:
    """As `did_you_mean`, for a key that a condition or a section of the recipe has."""
    sections = [(name, model) for name, field in recipe.model_fields.items() for model in _models(field.annotation)]
    ranked = sorted(sections, key=lambda section: section[0] != "conditions")
    found = next((name for name, model in ranked if key in model.model_fields), None)
    place = "conditions.NAME" if found == "conditions" else found
    return f". Did you mean '{place}.{key}'?" if found else ""


def _described(loc: Sequence[int | str], recipe: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None]:
    """(the model that has the last key of a location, the key's field or None)."""
    owner = recipe
    inside, field = owner, None
    for before, part in zip([None, *loc], loc, strict=False):
        if before == "dataset" and field:  # which of several forms it is, by its `format`
            inside = next((form for form in _models(field.annotation) if part in _formats(form)), inside)
        elif isinstance(part, str):
            owner = inside
            field = owner.model_fields.get(part)
            inside = next(_models(field.annotation), owner) if field else owner
    return owner, field


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _formats(form: type[BaseModel]) -> tuple[str, ...]:
    field = form.model_fields.get("format")
    return get_args(field.annotation) if field else ()


def _shown(value: Any) -> str:
    words = {type(None): "nothing", dict: "a mapping", list: "a list", str: f"'{value}'"[:60]}
    return words.get(type(value), str(value)[:60])
