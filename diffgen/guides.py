"""What a recipe's `controls` mean: which ControlNets and estimators, by which files, and the user's own maps of each source.
Likewise the CLIP model of `clip`.

Loads no torch. Whatever is wrong with them is said here or when they are loaded, before any image is made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffgen.cache import FileCache, stamp
from diffgen.editors.text2img import CLASSES as IMAGINING
from diffgen.errors import SourceError, UsageError, why
from diffgen.geometry import SUFFIXES, read_size
from diffgen.models import Model, resolve_model, with_revision
from diffgen.recipe import Control, Recipe
from diffgen.sources import Dataset
from diffgen.types import Source
from diffgen.weights import Weights, at_revision, files_identity, is_union, require_weights, resolve_weights


def resolve_guided(recipe: Recipe, base: Path, cache: FileCache) -> Model:
    """The recipe's model with the networks that the recipe names; of family `controlnet` where it has controls, and of
    `text2img`, with the detector among its networks, where it has no dataset.

    Raises UsageError where controls and model do not go together, or a network is not where the recipe says.
    """
    if recipe.text2img is not None:
        return _imagining(recipe, base, cache)
    if recipe.editor == "text2img":
        raise UsageError(
            "editor 'text2img' edits no dataset: it makes pictures from noise",
            "write `text2img:` in place of `dataset:`, as in docs/text-to-image.md, or remove `editor:`",
        )
    controls = _all_controls(recipe)
    if recipe.editor == "controlnet" and not controls:
        hint = "name a map and a ControlNet, as in docs/controlnet.md, or remove `editor:`"
        raise UsageError("editor 'controlnet' needs controls", hint)
    model = resolve_model(recipe.model, None if recipe.editor == "controlnet" else recipe.editor, base, cache)
    clip = () if recipe.clip is None else (resolve_weights(recipe.clip, "clip", base, cache),)
    if not controls:
        return replace(model, networks=clip)
    if model.editor != "img2img":
        raise UsageError(
            f"controls: model '{model.name}' is edited with '{model.editor}', which no ControlNet guides",
            "use a Stable Diffusion 1.x, 2.x or XL model, such as sd15 or sdxl; or remove `controls:`",
        )
    roles = {(control.model, "controlnet"): None for control in controls}
    roles |= {(control.estimator, control.kind): None for control in controls if control.estimator is not None}
    networks = tuple(resolve_weights(name, role, base, cache) for name, role in roles)
    _check_kinds(controls, networks)
    return replace(model, editor="controlnet", networks=(*networks, *clip))


def _imagining(recipe: Recipe, base: Path, cache: FileCache) -> Model:
    model = resolve_model(recipe.model, "text2img", base, cache)
    if model.pipeline is not None and model.pipeline not in IMAGINING:
        raise UsageError(
            f"text2img: model '{model.name}' is a {model.pipeline}, which makes no picture from a text alone",
            "use a text-to-image model, such as sd-turbo, sdxl-turbo, sdxl or flux1-schnell",
        )
    return replace(model, networks=(_annotator(str(recipe.detector), base, cache),))


def _annotator(name: str, base: Path, cache: FileCache) -> Weights:
    """The detector that labels what is made: an Ultralytics file, or an open-vocabulary network. Its identity stands in the
    manifest, so it names it also where it is one of files."""
    path = base / Path(name).expanduser()
    if path.is_file():
        return Weights(name, "detector", f"{path.name}@{files_identity(path, [path], cache)}", str(path))
    if path.suffix == ".pt":
        raise UsageError(
            f"detector: there is no file {path}", "give an Ultralytics .pt file, its path relative to the recipe"
        )
    found = resolve_weights(name, "detector", base, cache)
    return found if found.hub_id is not None else replace(found, identity=f"{path.name}@{found.identity}")


def _check_kinds(controls: Sequence[Control], networks: Sequence[Weights]) -> None:
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


def _all_controls(recipe: Recipe) -> list[Control]:
    return [control for condition in recipe.conditions for control in recipe.controls_for(condition)]


def with_revisions(model: Model, recipe: Recipe, kept: Mapping[str, str]) -> Model:
    """The model and its networks at the commits that a run folder began with, by hub id, where the recipe pins none."""
    model = with_revision(model, recipe.model, kept.get(model.place))
    return replace(model, networks=tuple(at_revision(n, kept.get(n.name)) for n in model.networks))


def require_networks(model: Model, recipe: Recipe) -> Model:
    """The model with its networks on this machine. Raises DiffgenError with the command that fetches what lacks."""
    networks = tuple(require_weights(network) for network in model.networks)
    _check_kinds(_all_controls(recipe), networks)
    return replace(model, networks=networks)


def revisions(model: Model) -> dict[str, str]:
    """The commits of what came from the hub, to be kept in the run folder."""
    found = {network.name: network.revision for network in model.networks} | {model.place: model.revision}
    return {name: commit for name, commit in found.items() if commit is not None}


def missing_networks(model: Model) -> list[Weights]:
    """Those that are not on this machine."""
    return [network for network in model.networks if network.folder is None]


# --- maps of the user's own -----------------------------------------------------------------------------------------


def with_maps(dataset: Dataset, recipe: Recipe, base: Path, cache: FileCache) -> Dataset:
    """The dataset, each source that may be edited with its maps of the folders that the controls name.

    A source without a map, or with one of another aspect, gets a `problem`: it is carried over unedited, and counted.
    Raises UsageError when a folder is not there, or has no map for any source.
    """
    folders = list(dict.fromkeys(c.folder for c in _all_controls(recipe) if c.folder is not None))
    sources = list(dataset.sources)
    for folder in folders:
        path = base / Path(folder).expanduser()
        if not path.is_dir():
            raise UsageError(
                f"controls: there is no folder {path}", "give the folder of your maps, relative to the recipe"
            )
        maps = _listed(path)
        wanted = [i for i, s in enumerate(sources) if s.split in recipe.select.splits and s.problem is None]
        if wanted and not any(_map_of(sources[i], maps) for i in wanted):
            example = sources[wanted[0]]
            raise UsageError(
                f"controls: {path} has no map for any source",
                f"name them like the sources: {path.name}/{example.key}.png or {path.name}/{example.name}.png",
            )
        for i in wanted:
            sources[i] = _with_map(sources[i], folder, maps, cache)
    return replace(dataset, sources=tuple(sources)) if folders else dataset


def _listed(folder: Path) -> dict[str, str]:
    """Name below the folder, without suffix -> path of each picture in it."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                found[Path(place, stem).relative_to(folder).as_posix()] = os.path.join(place, name)
    return found


def _map_of(source: Source, maps: Mapping[str, str]) -> str | None:
    return maps.get(source.key) or maps.get(source.name)


def _with_map(source: Source, folder: str, maps: Mapping[str, str], cache: FileCache) -> Source:
    path = _map_of(source, maps)
    if path is None:
        return replace(source, problem=f"control map: {folder} has none of it")
    try:
        known = cache.known("map", path, stamp([path]), lambda: _map_facts(path))
    except (SourceError, OSError) as error:
        return replace(source, problem=f"control map: {path}: {why(error)}")
    width, height = (int(side) for side in known.split()[:2])
    if not _alike((source.width, source.height), (width, height)):
        own = f"{source.width}×{source.height}"
        return replace(source, problem=f"control map: {path} is {width}×{height}, of another aspect than {own}")
    return replace(source, maps=(*source.maps, (folder, path, known.split()[2])))


def _map_facts(path: str) -> str:
    """Width, height and digest."""
    raw = Path(path).read_bytes()
    width, height = read_size(raw)
    return f"{width} {height} {hashlib.sha256(raw).hexdigest()}"


def _alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether `other` is `size` scaled, a side rounded to whole pixels."""
    (width, height), (w, h) = size, other
    return abs(h - w * height / width) <= 1 or abs(w - h * width / height) <= 1
