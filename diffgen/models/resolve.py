"""The recipe's model with the networks that the recipe names: ControlNets, estimators, CLIP, detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.models.find import resolve_model
from diffgen.models.model import Model, with_revision
from diffgen.models.networks import Network, at_revision, files_identity, is_union, require_network, resolve_network
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Control


def resolve_recipe_model(recipe: Recipe, base: Path, cache: FileCache) -> Model:
    """The recipe's model with the networks that the recipe names; of family `controlnet` where it has controls, and of
    `text2img`, with the detector among its networks, where it has no dataset.

    Raises UsageError where controls and model do not go together, or a network is not where the recipe says.
    """
    if recipe.text2img is not None:
        return _text2img_model(recipe, base, cache)
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
    clip = () if recipe.clip is None else (resolve_network(recipe.clip, "clip", base, cache),)
    if not controls:
        return replace(model, networks=clip)
    if model.editor != "img2img":
        raise UsageError(
            f"controls: model '{model.name}' is edited with '{model.editor}', which no ControlNet guides",
            "use a Stable Diffusion 1.x, 2.x or XL model, such as sd15 or sdxl; or remove `controls:`",
        )
    roles = {(control.model, "controlnet"): None for control in controls}
    roles |= {(control.estimator, control.kind): None for control in controls if control.estimator is not None}
    networks = tuple(resolve_network(name, role, base, cache) for name, role in roles)
    _check_kinds(controls, networks)
    return replace(model, editor="controlnet", networks=(*networks, *clip))


def _text2img_model(recipe: Recipe, base: Path, cache: FileCache) -> Model:
    model = resolve_model(recipe.model, "text2img", base, cache)
    return replace(model, networks=(_labelling_detector(str(recipe.detector), base, cache),))


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
    return replace(model, networks=tuple(at_revision(n, kept.get(n.name)) for n in model.networks))


def require_networks(model: Model, recipe: Recipe) -> Model:
    """The model with its networks on this machine. Raises DiffgenError with the command that fetches what lacks."""
    networks = tuple(require_network(network) for network in model.networks)
    _check_kinds(recipe.all_controls, networks)
    return replace(model, networks=networks)


def revisions(model: Model) -> dict[str, str]:
    """The commits of what came from the hub, to be kept in the run folder."""
    found = {network.name: network.revision for network in model.networks} | {model.place: model.revision}
    return {name: commit for name, commit in found.items() if commit is not None}


def missing_networks(model: Model) -> list[Network]:
    """Those that are not on this machine."""
    return [network for network in model.networks if network.folder is None]
