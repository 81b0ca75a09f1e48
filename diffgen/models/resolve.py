"""The recipe's model with the networks that the recipe names: ControlNets, estimators, CLIP, detector."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.models.find import resolve_model
from diffgen.models.model import Model, with_revision
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
    """The recipe's model with its networks: of family `controlnet` where the recipe has controls, of `text2img` where it
    has no dataset.

    Raises UsageError where controls and model do not go together, or a network is not where the recipe says.
    """
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
            "editor 'text2img' edits no dataset: it makes pictures from noise",
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
            f"controls: model '{model.name}' is edited with '{model.editor}', which no ControlNet guides",
            "use a Stable Diffusion 1.x, 2.x or XL model, such as sd15 or sdxl; or remove `controls:`",
        )
    roles = {(control.model, "controlnet"): None for control in controls}
    roles |= {(control.estimator, control.kind): None for control in controls if control.estimator is not None}
    networks = tuple(resolve_network(name, role, base, cache) for name, role in roles)
    _check_kinds(controls, networks)
    return replace(model, editor="controlnet", networks=networks)


def _comparing_detector(name: str, base: Path) -> Network:
    """Ultralytics weights, there or not: `require_detector_file` says so, when they are needed."""
    path = base / os.path.expanduser(name)
    return Network(name, "detector", str(path), str(path) if path.is_file() else None)


def _labelling_detector(name: str, base: Path, cache: FileCache) -> Network:
    """The detector that labels what is made: an Ultralytics file, or an open-vocabulary network. Its identity stands in the
    manifest, so it names it also where it is one of files."""
    path = base / Path(name).expanduser()
    if path.is_file():
        return Network(name, "detector", f"{path.name}@{files_identity(path, [path], cache)}", str(path))
    if path.suffix == ".pt":
        raise UsageError(
            f"detector: there is no file {path}", "give an Ultralytics .pt file, its path relative to the recipe"
        )
    found = resolve_network(name, "detector", base, cache)
    return found if found.hub_id is not None else replace(found, identity=f"{path.name}@{found.identity}")


def _check_kinds(controls: Sequence[Control], networks: Sequence[Network]) -> None:
    """Raises UsageError when Union ControlNets, as far as they are on this machine, are not used as they can be."""
    here = {n.name: is_union(n) for n in networks if n.role == "controlnet" and n.folder is not None}
    if len(set(here.values())) > 1:
        names = ", ".join(f"'{name}'" for name, union in here.items() if union)
        raise UsageError(
            f"controls: {names} is a Union ControlNet, others are not",
            "use Union ControlNets for all maps, or for none",
        )
    for control in controls:
        if control.kind == "own" and here.get(control.model):
            raise UsageError(
                f"controls: '{control.model}' is a Union ControlNet, which must know what a map shows",
                "write the map's kind (canny, softedge, depth, segmentation) in place of 'own'",
            )


def with_revisions(model: Model, recipe: Recipe, kept: Mapping[str, str]) -> Model:
    """The model and its networks at the commits that a run folder began with, by hub id, where the recipe pins none."""
    model = with_revision(model, recipe.model, kept.get(model.place))
    return _each_network(model, lambda network: at_revision(network, kept.get(network.name)))


def require_networks(model: Model, recipe: Recipe) -> Model:
    """The model with its networks on this machine. Raises DiffgenError with the command that fetches a missing one."""
    model = _each_network(model, require_network)
    _check_kinds(recipe.all_controls, model.networks)
    return model


def revisions(model: Model) -> dict[str, str]:
    """The commits of what came from the hub, to be kept in the run folder."""
    networks = (*model.networks, *model.observers)
    found = {network.name: network.revision for network in networks} | {model.place: model.revision}
    return {name: commit for name, commit in found.items() if commit is not None}


def missing_networks(model: Model) -> list[Network]:
    """Hub networks that are not on this machine."""
    networks = (*model.networks, *model.observers)
    return [network for network in networks if network.folder is None and network.hub_id is not None]


def _each_network(model: Model, change: Callable[[Network], Network]) -> Model:
    detector, clip = (None if one is None else change(one) for one in (model.observers.detector, model.observers.clip))
    return replace(model, networks=tuple(map(change, model.networks)), observers=Observers(detector, clip))
