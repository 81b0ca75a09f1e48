"""Resolving the recipe's model together with its ControlNets, estimators, CLIP model and detector."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.models.find import resolve_model
from diffgen.models.loras import kept_loras, lora_at, require_lora, resolve_loras
from diffgen.models.model import Model, require_on_disk, with_revision
from diffgen.models.networks import (
    Network,
    Observers,
    at_revision,
    files_identity,
    is_union,
    require_network,
    resolve_network,
)
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Control


def resolve_recipe_model(recipe: Recipe, base: Path, cache: FileCache) -> Model:
    """The recipe's model, its LoRAs and networks. Its family is `controlnet` with controls, `text2img` without a dataset.

    Raises UsageError if the model cannot use controls, or a network or LoRA is not where the recipe says.
    """
    model = _with_networks(recipe, base, cache)
    own = resolve_loras([lora.model_dump() for lora in recipe.loras or ()], base, cache)
    return replace(model, loras=(*model.loras, *own))


def _with_networks(recipe: Recipe, base: Path, cache: FileCache) -> Model:
    if recipe.text2img is not None:
        model = resolve_model(recipe.model, "text2img", base, cache)
        labeller = _labelling_detector(str(recipe.detector), base, cache)
        return replace(model, observers=Observers(detector=labeller))
    model = _editing_model(recipe, base, cache)
    detector = None if recipe.detector is None else _comparing_detector(recipe.detector, base)
    clip = None if recipe.clip is None else resolve_network(recipe.clip, "clip", base, cache)
    return replace(model, observers=Observers(detector, clip))


def _editing_model(recipe: Recipe, base: Path, cache: FileCache) -> Model:
    if recipe.editor == "text2img":
        raise UsageError(
            "editor 'text2img' generates images and cannot edit a dataset",
            "write `text2img:` in place of `dataset:`, as in docs/text-to-image.md, or remove `editor:`",
        )
    controls = recipe.all_controls
    if recipe.editor == "controlnet" and not controls:
        hint = "name a map and a ControlNet, as in docs/controlnet.md, or remove `editor:`"
        raise UsageError("editor 'controlnet' needs controls", hint)
    model = resolve_model(recipe.model, None if recipe.editor == "controlnet" else recipe.editor, base, cache)
    if not controls:
        return model
    if model.editor != "img2img":
        raise UsageError(
            f"controls: model '{model.name}' is edited with '{model.editor}', which supports no ControlNet",
            "use a Stable Diffusion 1.x, 2.x or XL model, such as sd15 or sdxl; or remove `controls:`",
        )
    roles = {(control.model, "controlnet"): None for control in controls}
    roles |= {(control.estimator, control.kind): None for control in controls if control.estimator is not None}
    networks = tuple(resolve_network(name, role, base, cache) for name, role in roles)
    _check_kinds(controls, networks)
    return replace(model, editor="controlnet", networks=networks)


def _comparing_detector(name: str, base: Path) -> Network:
    """Ultralytics weights. The file may be missing: `require_detector_file` checks it once it is needed."""
    path = base / os.path.expanduser(name)
    return Network(name, "detector", str(path), str(path) if path.is_file() else None)


def _labelling_detector(name: str, base: Path, cache: FileCache) -> Network:
    """The detector that labels images made from noise: an Ultralytics file or an open-vocabulary network.

    The manifest shows its identity, so local files get their name in front of the digest.
    """
    path = base / Path(name).expanduser()
    if path.is_file():
        return Network(name, "detector", f"{path.name}@{files_identity(path, [path], cache)}", str(path))
    if path.suffix == ".pt":
        raise UsageError(
            f"detector: there is no file {path}", "give an Ultralytics .pt file, its path relative to the recipe"
        )
    network = resolve_network(name, "detector", base, cache)
    return network if network.hub_id is not None else replace(network, identity=f"{path.name}@{network.identity}")


def _check_kinds(controls: Sequence[Control], networks: Sequence[Network]) -> None:
    """Raises UsageError if Union ControlNets are mixed with others or lack a map's kind. Checks those on this machine."""
    unions = {n.name: is_union(n) for n in networks if n.role == "controlnet" and n.folder is not None}
    if len(set(unions.values())) > 1:
        names = ", ".join(f"'{name}'" for name, union in unions.items() if union)
        raise UsageError(
            f"controls: {names} is a Union ControlNet, but others are not",
            "use Union ControlNets for all maps, or for none",
        )
    for control in controls:
        if control.kind == "own" and unions.get(control.model):
            raise UsageError(
                f"controls: '{control.model}' is a Union ControlNet, which needs to know the kind of map",
                "write the map's kind (canny, softedge, depth, segmentation) in place of 'own'",
            )


def as_kept(model: Model, recipe: Recipe, state: Mapping[str, Any]) -> Model:
    """The model, its LoRAs and networks at the commits that a run folder's `state` keeps, except those the recipe pins."""
    kept, loras = state.get("revisions") or {}, state.get("loras") or {}
    model = with_revision(model, recipe.model, kept.get(model.place))
    with FileCache() as cache:
        model = replace(model, loras=tuple(lora_at(lora, loras.get(lora.name), cache) for lora in model.loras))
    return _each_network(model, lambda network: at_revision(network, kept.get(network.name)))


def to_keep(model: Model) -> dict[str, Any]:
    """What a run folder keeps in its state for `as_kept`: the commits of what came from the hub."""
    networks = (*model.networks, *model.observers)
    commits = {network.name: network.revision for network in networks} | {model.place: model.revision}
    known = {name: commit for name, commit in commits.items() if commit is not None}
    return {"revisions": known, "loras": kept_loras(model.loras)}


def require_loras(model: Model) -> Model:
    """The model with its LoRAs on this machine. Raises DiffgenError if one cannot be fetched."""
    with FileCache() as cache:
        return replace(model, loras=tuple(require_lora(lora, cache) for lora in model.loras))


def require_parts(model: Model, recipe: Recipe) -> Model:
    """The model with all its files, LoRAs and networks on this machine. Raises DiffgenError if one cannot be fetched."""
    return require_networks(require_loras(require_on_disk(model)), recipe)


def require_networks(model: Model, recipe: Recipe) -> Model:
    """The model with its networks on this machine. Raises DiffgenError if one cannot be fetched."""
    model = _each_network(model, require_network)
    _check_kinds(recipe.all_controls, model.networks)
    return model


def missing_networks(model: Model) -> list[Network]:
    """Hub networks that are not on this machine."""
    networks = (*model.networks, *model.observers)
    return [network for network in networks if network.folder is None and network.hub_id is not None]


def _each_network(model: Model, change: Callable[[Network], Network]) -> Model:
    observers = Observers(
        *(network and change(network) for network in (model.observers.detector, model.observers.clip))
    )
    return replace(model, networks=tuple(map(change, model.networks)), observers=observers)
