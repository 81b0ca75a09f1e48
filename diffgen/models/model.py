"""A model that can be loaded, where its files are, and how much device memory it needs.

Imports neither torch nor diffusers nor huggingface_hub, because `plan` must answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError
from diffgen.models import hub
from diffgen.models.aliases import aliases
from diffgen.models.configs import class_of_folder, spec_of_file
from diffgen.models.fetch import fetch, pull_command
from diffgen.models.loras import Lora
from diffgen.models.memory import RESIDENT, Layout, Needs, file_parts, folder_parts, network_gib
from diffgen.models.networks import Network, Observers
from diffgen.models.vocabulary import Vocabulary, read_vocabulary


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be loaded, with its defaults.

    `kind` is "folder" (diffusers layout), "file" (one .safetensors) or "hub"; `place` is the path or the hub id.
    `revision` is a hub model's commit; None if unknown on this machine. `config` is the folder with a single file's pipeline
    configs. `native` is the side in pixels of its training images. Image sides must divide by `multiple`.
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
    levels: int | None = None  # how many noise levels a distilled model was trained at, evenly spaced; None: all
    least_object: int = 16  # px at the working size; the VAE may lose smaller boxes (two cells of an f8 VAE)
    cpu_seconds_per_mpx: float | None = None  # measured, for the estimate of `plan`
    vocabulary: str | None = None  # file in its folder with the words it was trained on, for small models
    # If it replaces that of the files, or if plans must know it (LCM): a name, or pairs of settings with one named "name".
    scheduler: str | tuple[tuple[str, Any], ...] | None = None
    pipeline: str | None = None  # the diffusers class that its files name, if known without fetching them
    loras: tuple[Lora, ...] = ()  # of the alias, then of the recipe; not part of `identity`
    networks: tuple[Network, ...] = ()  # its ControlNets, and the estimators of their maps
    observers: Observers = field(default_factory=Observers)
    layout: Layout = RESIDENT  # chosen by a run for its device; not part of `identity`


def with_revision(model: Model, spec: str | Mapping[str, Any], kept: str | None) -> Model:
    """A hub model at the commit `kept` by the run folder, unless the recipe pins one; any other model unchanged."""
    given = {"alias": spec} if isinstance(spec, str) else spec
    pinned = given.get("revision") or aliases().get(str(given.get("alias")), {}).get("revision")
    if kept is None or model.kind != "hub" or pinned:
        return model
    return replace(model, revision=kept, identity=f"{model.place}@{kept}")


def is_on_disk(model: Model) -> bool:
    """Whether the model can be loaded offline, with its LoRAs."""
    here = local_folder(model) is not None if model.kind == "hub" else Path(model.place).exists()
    return here and all(lora.path is not None for lora in model.loras)


def local_folder(model: Model) -> Path | None:
    """The folder in diffusers layout; None for a single file, and for a hub model that is not on this machine."""
    if model.kind == "folder":
        return Path(model.place)
    if model.kind == "hub" and model.revision:
        return hub.snapshot(model.place, model.revision)
    return None


def require_on_disk(model: Model) -> Model:
    """The model with its files on this machine and its commit known; its LoRAs as they are. Fetches a hub model.

    Raises DiffgenError if that fails; its hint is the command that fetches the model.
    """
    if is_on_disk(replace(model, loras=())):
        return model
    if model.kind != "hub":
        raise DiffgenError(f"model '{model.name}': {model.place} does not exist", "correct `model:` in the recipe")
    title = hub_title(model.name, model.place)
    commit = fetch(
        model.place, model.revision, title, pull_command(model.name, model.revision), "diffusers pipeline"
    ).name
    return replace(model, revision=commit, identity=f"{model.place}@{commit}")


def hub_title(name: str, hub_id: str) -> str:
    """What messages call a hub model."""
    return f"model '{name}' ({hub_id})" if name != hub_id else f"model '{name}'"


def needs(model: Model, dtype: str) -> Needs:
    """The device memory that the model needs, loaded as `dtype`: from its files if they are here, else from `memory_gb`."""
    folder, parts = local_folder(model), {}
    if folder is not None:
        parts = folder_parts(folder, dtype)
    elif model.kind == "file" and Path(model.place).is_file():
        parts = file_parts(Path(model.place), dtype)
    estimate = None if model.memory_gb is None else model.memory_gb * (2 if dtype == "float32" else 1)
    beside: dict[str, float] = {}
    for network in (*model.networks, *model.observers):
        if network.folder is not None:
            guides = network.role == "controlnet"
            part, numbers = ("controlnet", dtype) if guides else ("estimator", "float32")  # as each is loaded
            beside[part] = beside.get(part, 0.0) + network_gib(Path(network.folder), numbers)
    if parts:
        return Needs({**parts, **beside}, estimate)
    return Needs({}, None if estimate is None else estimate + sum(beside.values()))


def vocabulary(model: Model) -> Vocabulary | None:
    """The words that a small model was trained on; None for a model without such a list."""
    folder = local_folder(model)
    return read_vocabulary(folder / model.vocabulary) if folder and model.vocabulary else None


def known_class(model: Model) -> str | None:
    """`pipeline_class` if it is known without downloading anything."""
    return model.pipeline or (pipeline_class(model) if is_on_disk(replace(model, loras=())) else None)


def pipeline_class(model: Model) -> str:
    """The diffusers class that the model's files name. Raises DiffgenError if they are not on this machine."""
    folder = local_folder(model)
    if folder is not None:
        return class_of_folder(folder)
    if model.kind == "file":
        return class_of_folder(Path(model.config)) if model.config else spec_of_file(Path(model.place)).name
    raise DiffgenError(f"model '{model.name}' is not on this machine", pull_command(model.name, model.revision))
