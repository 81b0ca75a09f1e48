"""What a recipe's `model:` means: which files or hub id, which editor, which defaults, and the identity in a job id.

Imports neither torch nor diffusers nor huggingface_hub: `plan` must answer at once. Resolving never downloads weights.

A hub model that is not on this machine still resolves where its alias or `editor:` says enough, so that `plan` works
without it; its commit may then be unknown and its identity ends in `@unpinned`. `require_on_disk`, which `run` calls before
any work, fetches it and returns the model with its commit, so no image is ever made under a guessed identity.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from diffgen import hub
from diffgen.cache import FileCache
from diffgen.errors import DiffgenError, UsageError
from diffgen.loras import Lora
from diffgen.memory import RESIDENT, Layout, Needs, file_parts, folder_parts, network_gib
from diffgen.vocabulary import Vocabulary, read_vocabulary
from diffgen.weights import CONVERT, PICKLES, Weights, files_identity

_PACKAGE = Path(__file__).parent
_PLACES = ("alias", "folder", "file", "hub")
# What a model says about itself: in models.yaml, in a `diffgen.json` beside its model_index.json, or in the recipe.
_FACTS: dict[str, type] = {
    "steps": int, "guidance": float, "image_guidance": float, "native": int, "multiple": int,
    "severity": str, "licence": str, "memory_gb": float,
    "smallest": int, "least_object": int, "cpu_seconds_per_mpx": float, "vocabulary": str, "scheduler": str,
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {
    "img2img": {"steps": 20, "guidance": 6.0},
    "instruct": {"steps": 20, "guidance": 7.0, "image_guidance": 1.5},
    "inpaint": {"steps": 30, "guidance": 7.5},
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be loaded, with its defaults.

    `kind` is "folder" (diffusers layout), "file" (one .safetensors) or "hub"; `place` is the path or the hub id.
    `revision` is a commit, only for hub models; None when nothing on this machine tells it.
    `config` is the folder with the pipeline's configs, for single files.
    `native` is the long side in pixels it was trained at; sides must divide by `multiple`.
    """

    name: str
    editor: str
    kind: str
    place: str
    identity: str
    steps: int
    guidance: float
    native: int
    multiple: int
    revision: str | None = None
    config: str | None = None
    image_guidance: float | None = None
    severity: str | None = None
    licence: str | None = None
    memory_gb: float | None = None
    smallest: int | None = None  # sources between this long side and `native` are edited at their own size
    least_object: int = 16  # px at the working size: smaller boxes the autoencoder may melt (two cells of an f8 one)
    cpu_seconds_per_mpx: float | None = None  # measured, for the estimate of `plan`
    vocabulary: str | None = None  # file in its folder with the words it was taught, for small models
    scheduler: str | None = None  # where another than its files' own, or one that a schedule must know of (LCM)
    pipeline: str | None = None  # the diffusers class that its files name, where known without fetching them
    loras: tuple[Lora, ...] = ()  # added by the recipe; its identity does not cover them
    networks: tuple[Weights, ...] = ()  # ControlNets that guide it, estimators of their maps, a CLIP that judges
    layout: Layout = RESIDENT  # chosen by a run for its device; its identity does not cover it


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((_PACKAGE / "models.yaml").read_text(encoding="utf-8"))
    return data


def aliases() -> dict[str, dict[str, Any]]:
    """The short names of models.yaml -> their entries."""
    found: dict[str, dict[str, Any]] = _data()["aliases"]
    return found


def resolve_model(spec: str | Mapping[str, Any], editor: str | None, base: Path, cache: FileCache) -> Model:
    """The model that a recipe means.

    `spec` is an alias, a folder, a .safetensors file, a hub id, or a mapping with one of alias, folder, file (with config),
    hub (with revision), and any of the model's own facts (steps, guidance, native, …). Relative paths are from `base`.
    `editor` overrides the family that the pipeline's class would give.
    """
    given = _as_mapping(spec, base)
    facts = _facts(given, "model")
    revision = given.get("revision")
    name = str(next(given[key] for key in _PLACES if key in given))
    if "alias" in given:
        entry = _alias(name)
        facts = {**_facts(entry, "models.yaml"), **facts}
        if "pipeline" in entry:
            facts["pipeline"] = entry["pipeline"]
        editor = editor or entry["editor"]
        if "hub" in entry:
            return _hub_model(name, entry["hub"], revision or entry.get("revision"), editor, facts)
        folder = _PACKAGE / entry["path"]
        if not (folder / "model_index.json").is_file():
            raise DiffgenError(f"model '{name}' is missing from this installation", "install diffgen again")
        return _folder_model(name, folder, editor, facts, cache)
    if "hub" in given:
        # An id that has a short name is the same model: a turbo has its few steps by either.
        entry = next((entry for entry in aliases().values() if entry.get("hub") == name), {})
        known = {**_facts(entry, "models.yaml"), **({"pipeline": entry["pipeline"]} if entry else {})}
        return _hub_model(name, name, revision, editor or entry.get("editor"), {**known, **facts})
    path = _path(name, base)
    if "folder" in given:
        return _folder_model(name, path, editor, facts, cache)
    config = _path(given["config"], base) if given.get("config") else None
    return _file_model(name, path, config, editor, facts, cache)


def with_revision(model: Model, spec: str | Mapping[str, Any], kept: str | None) -> Model:
    """The model at the commit that a run folder began with, unless it is no hub model or the recipe pins another."""
    given = {"alias": spec} if isinstance(spec, str) else spec
    pinned = given.get("revision") or aliases().get(str(given.get("alias")), {}).get("revision")
    if kept is None or model.kind != "hub" or pinned:
        return model
    return replace(model, revision=kept, identity=f"{model.place}@{kept}")


def is_on_disk(model: Model) -> bool:
    """Whether it can be loaded without a network."""
    return local_folder(model) is not None if model.kind == "hub" else Path(model.place).exists()


def local_folder(model: Model) -> Path | None:
    """The folder in diffusers layout that it is loaded from: None for a file, and for a hub model that is not here."""
    if model.kind == "folder":
        return Path(model.place)
    if model.kind == "hub" and model.revision:
        return hub.snapshot(model.place, model.revision)
    return None


def require_on_disk(model: Model) -> Model:
    """The model, fetched if need be, with its commit known. Raises DiffgenError with the command that fetches it."""
    if is_on_disk(model):
        return model
    if model.kind != "hub":
        raise DiffgenError(f"model '{model.name}': {model.place} does not exist", "correct `model:` in the recipe")
    commit = hub.fetch(model.place, model.revision, model.name).name
    found = replace(model, revision=commit, identity=f"{model.place}@{commit}")
    if not is_on_disk(found):
        raise DiffgenError(
            f"model '{model.name}' ({model.place}) has no .safetensors weights that diffgen can load",
            "use a revision or another repository with safetensors weights; pickled weights can run code and are refused",
        )
    return found


def needs(model: Model, dtype: str) -> Needs:
    """What it takes of a device's memory, loaded as `dtype`: by its files where they are here, else by its estimate."""
    folder, parts = local_folder(model), {}
    if folder is not None:
        parts = folder_parts(folder, dtype)
    elif model.kind == "file" and Path(model.place).is_file():
        parts = file_parts(Path(model.place), dtype)
    estimate = None if model.memory_gb is None else model.memory_gb * (2 if dtype == "float32" else 1)
    for network in model.networks:
        if parts and network.folder is not None:
            role = "controlnet" if network.role == "controlnet" else "estimator"
            parts[role] = parts.get(role, 0.0) + network_gib(Path(network.folder), dtype)
    return Needs(parts, estimate)


def vocabulary(model: Model) -> Vocabulary | None:
    """The words it was taught; None for a model that has no such list, and reads any text."""
    folder = local_folder(model)
    return read_vocabulary(folder / model.vocabulary) if folder and model.vocabulary else None


def pipeline_class(model: Model) -> str:
    """The diffusers class that its files name. The model must be on this machine."""
    folder = local_folder(model)
    if folder is not None:
        return _class_of(folder)
    if model.kind == "file":
        return _class_of(Path(model.config)) if model.config else _class_of_file(Path(model.place))
    raise DiffgenError(f"model '{model.name}' is not on this machine", hub.fetch_command(model.place, model.revision))


def model_rows(cache: FileCache) -> list[dict[str, Any]]:
    """One row an alias, for `diffgen models`."""
    rows = []
    for name, entry in aliases().items():
        if "hub" in entry:
            here = is_on_disk(resolve_model(name, None, _PACKAGE, cache))
        else:
            folder = _PACKAGE / entry["path"]
            here = (folder / "model_index.json").is_file()
            entry = {**(hub.read_json(folder / "diffgen.json") if here else {}), **entry}
        columns = ("editor", "licence", "size_mb", "native", "steps", "about")
        rows.append({"name": name, "on_disk": here, **{key: entry.get(key) for key in columns}})
    return rows


def _as_mapping(spec: str | Mapping[str, Any], base: Path) -> dict[str, Any]:
    if not isinstance(spec, str):
        allowed = (*_PLACES, "revision", "config", *_FACTS)
        for key in spec:
            if key not in allowed:
                raise UsageError(f"model: unknown field '{key}'", _did_you_mean(str(key), allowed))
        if sum(key in spec for key in _PLACES) != 1:
            raise UsageError(
                "model: give exactly one of alias, folder, file, hub", "for example `model: {hub: OWNER/NAME}`"
            )
        for key in (*_PLACES, "revision", "config"):
            value = spec.get(key)
            if key in spec and not isinstance(value, str) and not (value is None and key not in _PLACES):
                raise UsageError(
                    f"model: {key}: expected a text, got {value!r}",
                    "write it as text, in quotes where YAML reads a number",
                )
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
    if hub.HUB_ID.fullmatch(spec):
        return {"hub": spec}
    raise UsageError(f"model '{spec}' is not known", _did_you_mean(spec, aliases()))


def _facts(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The facts among `given`, in their types: `guidance: 1` must give the job ids of `guidance: 1.0`."""
    facts: dict[str, Any] = {}
    for key, kind in _FACTS.items():
        value: Any = given.get(key)
        if value is None:
            continue
        if isinstance(value, int) and not isinstance(value, bool) and kind is float:
            value = float(value)
        number: Any = 1 if kind is str else value
        if type(value) is not kind or not (1 if kind is int else 0) <= number <= _LARGEST:
            raise UsageError(f"{where}: {key}: expected {_WORDS[kind]}, got {value!r}", "correct it, or take it out")
        facts[key] = value
    return facts


_LARGEST = 8192  # of any number among the facts; also keeps out what is not finite
_WORDS = {int: f"a whole number from 1 to {_LARGEST}", float: f"a number from 0 to {_LARGEST}", str: "a text"}


def _alias(name: str) -> dict[str, Any]:
    if name not in aliases():
        raise UsageError(f"model '{name}' is not known", _did_you_mean(name, aliases()))
    return aliases()[name]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"use one of: {', '.join(names)}; or a hub id, a folder, a file"


def _path(text: str | Path, base: Path) -> Path:
    return base / Path(text).expanduser()


def _hub_model(name: str, hub_id: str, revision: str | None, editor: str | None, facts: dict[str, Any]) -> Model:
    if not hub.HUB_ID.fullmatch(hub_id):
        raise UsageError(f"model: '{hub_id}' is not a hub id", "write OWNER/NAME")
    commit = hub.cached_commit(hub_id, revision)
    folder = None
    if editor is None or "native" not in facts or "multiple" not in facts:
        # Its configs, a few kilobytes, tell. Not looked at otherwise, so that ids do not depend on what is on the disk.
        folder = hub.described(hub_id, commit) if commit else None
        folder = folder or hub.fetch(hub_id, revision, name, weights=False)
        commit = folder.name
    identity = f"{hub_id}@{commit or 'unpinned'}"
    place = {"kind": "hub", "place": hub_id, "revision": commit, "identity": identity}
    return _model(name, editor, facts, folder, place)


def _folder_model(name: str, folder: Path, editor: str | None, facts: dict[str, Any], cache: FileCache) -> Model:
    if not folder.is_dir():
        raise UsageError(f"model: {folder} does not exist", "paths are relative to the recipe")
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"model: {folder} has no model_index.json, so it is not a diffusers pipeline",
            "give the folder that `save_pretrained` or `hf download` wrote",
        )
    if missing := hub.missing_parts(folder):
        pickled = any(next(folder.glob(f"*/*{suffix}"), None) for suffix in PICKLES)
        hint = CONVERT if pickled else "copy or download the model again"
        raise UsageError(f"model: {folder} lacks {', '.join(missing)}", hint)
    model = _model(name, editor, facts, folder, {"kind": "folder", "place": str(folder), "identity": ""})
    # The words that a model was taught make warnings, not pixels: images stay when the list is mended.
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
            f"model: config {config} has no model_index.json", "give a pipeline's folder; weights need not be in it"
        )
    files = [file]
    if config is not None:
        files += [p for p in config.rglob("*.json") if p.is_file()]
    elif editor is None or "native" not in facts:
        cls = _class_of_file(file)
        editor = editor or _editor_of(cls, file)
        facts = {"pipeline": cls, "native": 1024 if "XL" in cls else 512, "multiple": 8, **facts}
    facts = {"multiple": 8, **facts} if config is None else facts
    place = {"kind": "file", "place": str(file), "config": str(config) if config else None}
    place["identity"] = files_identity(config or file.parent, files, cache)
    return _model(name, editor, facts, config, place)


def _model(name: str, editor: str | None, facts: dict[str, Any], folder: Path | None, place: dict[str, Any]) -> Model:
    """Facts, nearest first: the recipe's and the alias's, the folder's diffgen.json, its configs, the class's defaults, the
    family's."""
    if folder is not None:
        cls = _class_of(folder)
        editor = editor or _editor_of(cls, folder)
        own = folder / "diffgen.json"
        said = hub.read_json(own) if own.is_file() else {}
        usual = {**_of_class(cls), **_scheduler(folder), "pipeline": cls}
        facts = {**usual, **_sizes(folder, {**usual, **said, **facts}), **_facts(said, str(own)), **facts}
    if editor is None:
        raise UsageError(f"model '{name}': nothing tells its family", "add `editor:` to the recipe")
    facts = {**_DEFAULTS.get(editor, _DEFAULTS["img2img"]), **facts}
    return Model(name=name, editor=editor, **place, **facts)


def _sizes(folder: Path, facts: dict[str, Any]) -> dict[str, int]:
    """`native` and `multiple` from the configs.

    `multiple` is what the VAE divides by. The UNet divides further, but UNet2DConditionModel brings its upward path to the
    size of each skip connection by itself; a model that wants rounder sides says so in its diffgen.json. Transformers take
    patches of 2 × 2 latents.
    """
    if "native" in facts and "multiple" in facts:
        return {}
    vae = hub.read_json(folder / "vae" / "config.json")
    transformer = folder / "transformer"
    model = hub.read_json((transformer if transformer.is_dir() else folder / "unet") / "config.json")
    # AutoencoderTiny: the first block keeps the size, each further one halves it. AutoencoderKL: all but the last halve.
    # AutoencoderKLQwenImage lists what halves, after the first.
    levels = vae.get("num_encoder_blocks") or vae.get("block_out_channels")
    if isinstance(halves := vae.get("temperal_downsample"), list):
        levels = [False, *halves]
    own = model.get("sample_size")
    size = own or facts.get("native")
    side = max(size, default=0) if isinstance(size, list) and all(type(n) is int for n in size) else size
    if not isinstance(levels, list) or len(levels) > 8 or type(side) is not int or side < 1:
        raise DiffgenError(
            f"{folder}: its configs do not tell the sizes it works at",
            "give `model: {…, native: PIXELS, multiple: PIXELS}`",
        )
    factor = 2 ** (len(levels) - 1)
    found = {"multiple": factor * 2 if transformer.is_dir() else factor}
    return {**found, "native": side * factor} if own else found


def _scheduler(folder: Path) -> dict[str, str]:
    """LCM's scheduler makes short schedules, which a plan has to know."""
    config = folder / "scheduler" / "scheduler_config.json"
    own = hub.read_json(config).get("_class_name") if config.is_file() else None
    return {"scheduler": "lcm"} if own == "LCMScheduler" else {}


def _class_of(folder: Path) -> str:
    name = hub.read_json(folder / "model_index.json").get("_class_name")
    if not isinstance(name, str):
        raise DiffgenError(f"{folder}/model_index.json names no pipeline class", "copy or download the model again")
    return name


def _editor_of(cls: str, place: Path) -> str:
    family = _data()["classes"].get(cls)
    if family is None:
        raise UsageError(
            f"model: diffgen knows no editor for {cls} ({place})", "add `editor:` to the recipe if one fits"
        )
    return str(family["editor"] if isinstance(family, dict) else family)


def _of_class(cls: str) -> dict[str, Any]:
    """The facts that models of a pipeline class have in common, where models.yaml gives any."""
    family = _data()["classes"].get(cls)
    return _facts(family, "models.yaml") if isinstance(family, dict) else {}


def _class_of_file(file: Path) -> str:
    """The pipeline class of a single-file checkpoint in the original layout, from its tensor names and shapes."""
    header = hub.tensors(file)
    first = header.get("model.diffusion_model.input_blocks.0.0.weight")
    channels = first["shape"][1] if isinstance(first, dict) and len(first.get("shape", ())) == 4 else None
    classes = {4: "Pipeline", 8: "InstructPix2PixPipeline", 9: "InpaintPipeline"}
    if channels not in classes:
        raise UsageError(
            f"model: {file} is not a Stable Diffusion checkpoint that diffgen knows",
            "give its configs: `model: {file: …, config: FOLDER}`",
        )
    xl = any(key.startswith("conditioner.embedders.") for key in header)
    return f"StableDiffusion{'XL' if xl else ''}{classes[channels]}"
