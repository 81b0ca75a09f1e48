"""Reading and checking a recipe file. Every error names the file, the line and the nearest right key."""

from __future__ import annotations

import copy
import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from diffgen.errors import UsageError, why
from diffgen.recipe.messages import readable
from diffgen.recipe.overrides import expand, override
from diffgen.recipe.run_copy import leaves, lookup, put, rebase
from diffgen.recipe.schema import Recipe
from diffgen.recipe.yaml_reader import compose, construct


class LoadedRecipe:
    """A recipe with the place it was read from and the text it was written in."""

    def __init__(self, recipe: Recipe, path: Path, raw: dict[str, Any]) -> None:
        self.recipe = recipe
        self.path = path
        self.raw = raw

    @property
    def base(self) -> Path:
        return self.path.parent

    def _is_here(self, detector: str) -> bool:
        """Whether the detector is a path, and not the hub id of an open-vocabulary one."""
        return self.recipe.text2img is None or (self.base / os.path.expanduser(detector)).exists()

    @property
    def output(self) -> Path:
        return Path(os.path.realpath(self.base / self.recipe.output))  # which a loop of links does not break

    def to_yaml(self, folder: Path, names: Container[str] = ()) -> str:
        """The recipe with its defaults, as kept in the run folder: paths relative to it, `${ENV}` unexpanded.

        `names` are the models that go by a name, also where a folder of that name lies beside the recipe.
        """
        data = self.recipe.model_dump()
        for condition, fields in zip(self.recipe.conditions, data["conditions"], strict=True):
            for key, own in (("checks", condition.checks), ("objects", condition.objects)):
                if own is not None:  # what it leaves to the recipe must stay so
                    fields[key] = own.model_dump(exclude_unset=True)
        for path, value in list(leaves(data)):
            written = lookup(self.raw, path)
            if isinstance(written, str) and "${" in written and isinstance(value, (str, int, float)):
                put(data, path, written)
        expanded = self.recipe.model_dump()["dataset"]
        if expanded is None:
            pass  # text2img
        elif isinstance(expanded, str):
            data["dataset"] = rebase(str(data["dataset"]), expanded, self.base, folder)
        else:
            for keys, value in list(leaves(expanded)):
                if keys[-1] in ("images", "annotations", "list") and value is not None:
                    put(data["dataset"], keys, rebase(str(lookup(data["dataset"], keys)), value, self.base, folder))
        data["output"] = "."
        if (detector := self.recipe.detector) is not None and self._is_here(detector):
            data["detector"] = rebase(str(data["detector"]), detector, self.base, folder)
        if (clip := self.recipe.clip) is not None and (self.base / os.path.expanduser(clip)).is_dir():
            data["clip"] = rebase(str(data["clip"]), clip, self.base, folder)
        for i, lora in enumerate(self.recipe.loras or ()):
            if lora.file is not None:
                data["loras"][i]["file"] = rebase(str(data["loras"][i]["file"]), lora.file, self.base, folder)
        spec = self.recipe.model
        if isinstance(spec, str) and spec not in names and (self.base / spec).exists():
            data["model"] = rebase(str(data["model"]), spec, self.base, folder)
        elif isinstance(self.recipe.model, dict):
            for key in ("file", "config", "folder"):
                if isinstance(place := self.recipe.model.get(key), str):
                    data["model"][key] = rebase(str(data["model"][key]), place, self.base, folder)
        written = [data["controls"], *(fields["controls"] for fields in data["conditions"])]
        meant = [self.recipe.controls, *(condition.controls for condition in self.recipe.conditions)]
        for texts, controls in zip(written, meant, strict=True):
            for text, control in zip(texts or (), controls or (), strict=True):
                for key in ("model", "estimator", "folder"):
                    value = getattr(control, key)
                    if value is not None and (key == "folder" or (self.base / value).exists()):
                        text[key] = rebase(str(text[key]), value, self.base, folder)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def load_recipe(path: Path, sets: Sequence[str] = (), output: Path | None = None) -> LoadedRecipe:
    """Read and check a recipe file, or the recipe of a run folder. `sets` are `key=value` overrides, the value as YAML.

    Raises UsageError naming the file, the line and what to do.
    """
    if path.is_dir():
        folder, path = path, path / "recipe.yaml"
        if not path.is_file():
            raise UsageError(
                f"{folder} is not a run folder: it has no recipe.yaml", "give a recipe, or the folder of a run"
            )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe: {why(error)}", "give the path of a recipe file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the recipe is not UTF-8 text", "save it as UTF-8") from None
    root = compose(text, path)
    raw = construct(root, path)
    if not isinstance(raw, dict):
        raise UsageError(
            f"{path}: a recipe is a mapping, this {_kind(raw)}", "see 'diffgen schema' or configs/quickstart.yaml"
        )
    for item in sets:
        override(raw, item)
    if output is not None:
        raw["output"] = str(output.absolute())
    return _checked(raw, path, root)


def overridden(loaded: LoadedRecipe, sets: Sequence[str]) -> LoadedRecipe:
    """The same recipe with more `key=value` overrides. Raises UsageError as `load_recipe` does."""
    raw = copy.deepcopy(loaded.raw)
    for item in sets:
        override(raw, item)
    return _checked(raw, loaded.path, None)


def _checked(raw: dict[str, Any], path: Path, root: Any) -> LoadedRecipe:
    try:
        recipe = Recipe.model_validate(expand(raw, path))
    except ValidationError as error:
        raise readable(error, path, root, Recipe) from None
    except UnicodeEncodeError as error:  # pydantic cannot hand on a fault whose words hold a byte that is not UTF-8
        text = error.object
        raise UsageError(f"{path}: {text}", "write it out, as UTF-8 text") from None
    return LoadedRecipe(recipe, path.absolute(), raw)


def _kind(value: Any) -> str:
    if value is None:
        return "is empty"
    return f"is a {({list: 'list', str: 'text', bool: 'yes or no'}).get(type(value), 'number')}"
