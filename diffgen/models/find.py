"""Resolving the recipe's `model:` (alias, hub id, folder or file) to a Model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError
from diffgen.models import hub, weights
from diffgen.models.aliases import FACTS, FAMILY_DEFAULTS, PACKAGE, alias_entry, aliases, model_facts, suggestion
from diffgen.models.configs import (
    check_parts_of_file,
    class_defaults,
    class_of_folder,
    editor_of_class,
    scheduler_of_folder,
    sizes_of_folder,
    spec_of_file,
)
from diffgen.models.fetch import fetch, pull_command
from diffgen.models.loras import resolve_loras
from diffgen.models.model import Model, hub_title, is_on_disk
from diffgen.models.networks import CONVERT, files_identity
from diffgen.models.weights import PICKLES
from diffgen.recipe.sections import HUB_ID

_PLACES = ("alias", "folder", "file", "hub")


def resolve_model(spec: str | Mapping[str, Any], editor: str | None, base: Path, cache: FileCache) -> Model:
    """The model that a recipe names.

    `spec` is an alias, a folder, a .safetensors file, a hub id, or a mapping with one of alias, folder, file (with config),
    hub (with revision), and any of FACTS (steps, guidance, native, …). Relative paths start at `base`. `editor` overrides
    the family of the pipeline's class. Raises UsageError for a spec that names no usable model, DiffgenError for broken
    files, or if its configs have to be fetched and cannot be.
    """
    given = _as_mapping(spec, base)
    facts = model_facts(given, "model")
    revision = given.get("revision")
    name = str(next(given[key] for key in _PLACES if key in given))
    if "alias" in given:
        entry = alias_entry(name)
        facts = {**model_facts(entry, "models.yaml"), **facts}
        if "pipeline" in entry:
            facts["pipeline"] = entry["pipeline"]
        editor = editor or entry["editor"]
        if "hub" in entry:
            model = _hub_model(name, entry["hub"], revision or entry.get("revision"), editor, facts)
            return replace(model, loras=resolve_loras(entry.get("loras", ()), base, cache))
        folder = PACKAGE / entry["path"]
        if not (folder / "model_index.json").is_file():
            raise DiffgenError(f"model '{name}' is missing from this installation", "install diffgen again")
        return _folder_model(name, folder, editor, facts, cache)
    if "hub" in given:
        # A hub id that has an alias is the same model, with the same defaults.
        entry = next((e for e in aliases().values() if e.get("hub") == name and "loras" not in e), {})
        known = {**model_facts(entry, "models.yaml"), **({"pipeline": entry["pipeline"]} if entry else {})}
        return _hub_model(name, name, revision, editor or entry.get("editor"), {**known, **facts})
    path = _path(name, base)
    if "folder" in given:
        return _folder_model(name, path, editor, facts, cache)
    config = _path(given["config"], base) if given.get("config") else None
    return _file_model(name, path, config, editor, facts, cache)


def model_rows(cache: FileCache) -> list[dict[str, Any]]:
    """One row per alias, for `diffgen models`."""
    rows = []
    for name, entry in aliases().items():
        if "hub" in entry:
            on_disk = is_on_disk(resolve_model(name, None, PACKAGE, cache))
        else:
            folder = PACKAGE / entry["path"]
            on_disk = (folder / "model_index.json").is_file()
            entry = {**(weights.read_json(folder / "diffgen.json") if on_disk else {}), **entry}
        columns = ("editor", "licence", "size_mb", "native", "steps", "about")
        told = {key: entry.get(key) for key in columns}
        rows.append({"name": name, "on_disk": on_disk, **told, "gated": entry.get("gated", False)})
    return rows


def _as_mapping(spec: str | Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The spec as a mapping with exactly one of _PLACES."""
    if not isinstance(spec, str):
        allowed = (*_PLACES, "revision", "config", *FACTS)
        for key in spec:
            if key not in allowed:
                raise UsageError(f"model: unknown field '{key}'", suggestion(str(key), allowed))
        if sum(key in spec for key in _PLACES) != 1:
            raise UsageError(
                "model: give exactly one of alias, folder, file, hub", "for example `model: {hub: OWNER/NAME}`"
            )
        for key in (*_PLACES, "revision", "config"):
            value = spec.get(key)
            if key in spec and not isinstance(value, str) and not (value is None and key not in _PLACES):
                raise UsageError(f"model: {key}: expected a text, got {value!r}", "put it in quotes")
        return dict(spec)
    if spec in aliases():
        return {"alias": spec}
    path = _path(spec, base)
    if path.is_dir():
        return {"folder": spec}
    if path.exists() or path.suffix in (".safetensors", *PICKLES):
        return {"file": spec}
    if spec.startswith((".", "~")) or Path(spec).is_absolute():
        raise UsageError(f"model: {path} does not exist", "paths are relative to the recipe")
    if HUB_ID.fullmatch(spec):
        return {"hub": spec}
    raise UsageError(f"model '{spec}' is not known", suggestion(spec, aliases()))


def _path(text: str | Path, base: Path) -> Path:
    return base / Path(text).expanduser()


def _hub_model(name: str, hub_id: str, revision: str | None, editor: str | None, facts: dict[str, Any]) -> Model:
    if not HUB_ID.fullmatch(hub_id):
        raise UsageError(f"model: '{hub_id}' is not a hub id", "write OWNER/NAME")
    commit = hub.cached_commit(hub_id, revision)
    folder = None
    if editor is None or "native" not in facts or "multiple" not in facts:
        # Its configs say, a few kilobytes. They are not read otherwise, so that ids do not depend on what is on the disk.
        folder = hub.index_folder(hub_id, commit) if commit else None
        folder = folder or fetch(
            hub_id, revision, hub_title(name, hub_id), pull_command(name, revision), "diffusers pipeline", weights=False
        )
        commit = folder.name
    identity = f"{hub_id}@{commit or 'unpinned'}"
    place = {"kind": "hub", "place": hub_id, "revision": commit or revision, "identity": identity}
    return _model(name, editor, facts, folder, place)


def _folder_model(name: str, folder: Path, editor: str | None, facts: dict[str, Any], cache: FileCache) -> Model:
    if not folder.is_dir():
        raise UsageError(f"model: {folder} does not exist", "paths are relative to the recipe")
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"model: {folder} has no model_index.json, so it is not a diffusers pipeline",
            "give the folder that `save_pretrained` or `hf download` wrote",
        )
    if missing := weights.missing_parts(folder):
        pickled = any(next(folder.glob(f"*/*{suffix}"), None) for suffix in PICKLES)
        hint = CONVERT if pickled else "copy or download the model again"
        raise UsageError(f"model: {folder} lacks {', '.join(missing)}", hint)
    model = _model(name, editor, facts, folder, {"kind": "folder", "place": str(folder), "identity": ""})
    # Without the vocabulary: it changes warnings, not pixels, so a corrected list must not change the identity.
    words = folder / (model.vocabulary or "")
    files = [p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json") and p.is_file() and p != words]
    return replace(model, identity=files_identity(folder, files, cache))


def _file_model(
    name: str, file: Path, config: Path | None, editor: str | None, facts: dict[str, Any], cache: FileCache
) -> Model:
    if file.suffix != ".safetensors":
        raise UsageError(f"model: {file} is not a .safetensors file", CONVERT)
    if not file.is_file():
        raise UsageError(f"model: {file} does not exist", "paths are relative to the recipe")
    if config is not None and not (config / "model_index.json").is_file():
        raise UsageError(
            f"model: config {config} has no model_index.json", "give a pipeline's folder, weights optional"
        )
    check_parts_of_file(file)
    files = [file]
    if config is not None:
        files += [p for p in config.rglob("*.json") if p.is_file()]
    else:
        facts = {"multiple": 8, **facts}
        if editor is None or "native" not in facts:
            spec = spec_of_file(file)
            editor = editor or spec.family
            assert spec.single_file is not None
            facts = {"pipeline": spec.name, "native": spec.single_file.native, **facts}
    place = {"kind": "file", "place": str(file), "config": str(config) if config else None}
    place["identity"] = files_identity(config or file.parent, files, cache)
    return _model(name, editor, facts, config, place)


def _model(name: str, editor: str | None, facts: dict[str, Any], folder: Path | None, place: dict[str, Any]) -> Model:
    """Where a fact is given more than once, the order is: recipe and alias, the folder's diffgen.json, its configs, defaults
    of the pipeline class, defaults of the family."""
    if folder is not None:
        cls = class_of_folder(folder)
        editor = editor or editor_of_class(cls, folder)
        path = folder / "diffgen.json"
        stated = weights.read_json(path) if path.is_file() else {}
        defaults = {**class_defaults(cls, folder), **scheduler_of_folder(folder), "pipeline": cls}
        sizes = sizes_of_folder(folder, {**defaults, **stated, **facts})
        facts = {**defaults, **sizes, **model_facts(stated, str(path)), **facts}
    if editor is None:
        raise UsageError(f"model '{name}': its family is unknown", "add `editor:` to the recipe")
    facts = {**FAMILY_DEFAULTS.get(editor, FAMILY_DEFAULTS["img2img"]), **facts}
    return Model(name=name, editor=editor, **place, **facts)
