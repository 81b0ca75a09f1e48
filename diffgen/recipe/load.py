"""Reading and checking a recipe file. Every error names the file, the line and the closest known key."""

from __future__ import annotations

import copy
import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffgen.errors import UsageError, why
from diffgen.files import read_regular
from diffgen.recipe.messages import readable
from diffgen.recipe.overrides import expand, override
from diffgen.recipe.run_copy import run_copy
from diffgen.recipe.schema import Recipe
from diffgen.recipe.yaml_reader import compose, construct


class LoadedRecipe:
    """A recipe, the file it was read from, and its YAML data before `${ENV}` was replaced. `kept_device` is the recipe's own
    device, if the command line named another one: run folders keep that."""

    def __init__(self, recipe: Recipe, path: Path, raw: dict[str, Any], kept_device: str | None = None) -> None:
        self.recipe = recipe
        self.path = path
        self.raw = raw
        self.kept_device = kept_device

    def __repr__(self) -> str:
        return f"LoadedRecipe({str(self.path)!r})"

    @property
    def base(self) -> Path:
        """The folder that the recipe's paths are relative to."""
        return self.path.parent

    @property
    def output(self) -> Path:
        """The run folder, absolute."""
        return Path(os.path.realpath(self.base / self.recipe.output))  # Path.resolve fails on a loop of links

    def to_yaml(self, folder: Path, aliases: Container[str] = ()) -> str:
        """The recipe with all defaults, as stored in the run folder `folder`. See `run_copy`."""
        recipe, raw = self.recipe, self.raw
        if self.kept_device is not None:
            device = {"device": self.kept_device}
            recipe, raw = recipe.model_copy(update=device), raw | device
        return run_copy(recipe, raw, self.base, folder, aliases)


def load_recipe(
    path: Path, sets: Sequence[str] = (), output: Path | None = None, device: str | None = None
) -> LoadedRecipe:
    """Read and check a recipe file, or the recipe of a run folder. `sets` are `key=value` overrides, the value as YAML.
    `device` is for this call only: the run folder's copy keeps the recipe's.

    Raises UsageError naming the file, the line and what to do.
    """
    if path.is_dir():
        folder, path = path, path / "recipe.yaml"
        if not path.is_file():
            raise UsageError(
                f"{folder} is not a run folder: it has no recipe.yaml", "give a recipe, or the folder of a run"
            )
    try:
        text = read_regular(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such recipe or run folder", "'diffgen init' writes a recipe") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe: {why(error)}", "give the path of a recipe file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the recipe is not UTF-8 text", "save it as UTF-8") from None
    root = compose(text, path)
    raw = construct(root, path)
    if not isinstance(raw, dict):
        raise UsageError(
            f"{path}: a recipe must be a mapping, but this file {_kind(raw)}",
            "see 'diffgen schema' or configs/quickstart.yaml",
        )
    if raw.keys() & {"train", "names", "nc"} and not raw.keys() & {"dataset", "output", "conditions"}:
        raise UsageError(f"{path}: this is a dataset, not a recipe", f"write a recipe for it: diffgen init {path}")
    before = copy.deepcopy(raw)
    for item in sets:
        override(raw, item)
    if output is not None:
        raw["output"] = str(output.absolute())
    kept = None
    if device is not None:
        kept, raw["device"] = raw.get("device", Recipe.model_fields["device"].default), device
    try:
        return _checked(raw, path, root, kept)
    except UsageError:
        if sets:
            _checked(before, path, root, None)  # raises if the file itself is wrong
            _checked(raw, Path(f"--set {' --set '.join(sets)}"), None, kept)
        raise


def overridden(loaded: LoadedRecipe, sets: Sequence[str]) -> LoadedRecipe:
    """The same recipe with further `key=value` overrides. Raises UsageError as `load_recipe` does."""
    raw = copy.deepcopy(loaded.raw)
    for item in sets:
        override(raw, item)
    return _checked(raw, loaded.path, None, loaded.kept_device)


def _checked(raw: dict[str, Any], path: Path, root: Any, kept_device: str | None) -> LoadedRecipe:
    try:
        recipe = Recipe.model_validate(expand(raw, path))
    except ValidationError as error:
        raise readable(error, path, root, Recipe) from None
    except UnicodeEncodeError as error:  # pydantic cannot report an error whose text is not valid UTF-8
        text = error.object
        raise UsageError(f"{path}: {text}", "write it as UTF-8 text") from None
    return LoadedRecipe(recipe, path.absolute(), raw, kept_device)


def _kind(value: Any) -> str:
    if value is None:
        return "is empty"
    return f"is a {({list: 'list', str: 'text', bool: 'yes or no'}).get(type(value), 'number')}"
