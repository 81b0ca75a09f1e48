"""One network by its files: a ControlNet, a depth or segmentation model, CLIP. Where it lies, its identity, how to get it.
Like `models`, imports neither torch nor huggingface_hub, and resolving never downloads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError
from diffgen.files import file_sha256, stamp
from diffgen.models import hub
from diffgen.recipe.sections import HUB_ID
from diffgen.types import digest_of

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
CONVERT = "convert the weights to .safetensors; pickled files (.bin, .ckpt) can run code and are refused"


@dataclass(frozen=True, slots=True)
class Network:
    """A network that can be loaded.

    `name` is what the recipe writes: a folder, OWNER/NAME, or OWNER/NAME@REVISION. `role` is "controlnet", "depth",
    "segmentation", "clip" or "detector" (whose weights may be a file instead of a `folder`). `folder` is None while a hub
    network is not on this machine; `revision` is then what is asked for, else the commit that is here. The `identity` of a
    detector that only compares is the path of its file, which may not be there.
    """

    name: str
    role: str
    identity: str
    folder: str | None
    hub_id: str | None = None
    revision: str | None = None

    @property
    def full_name(self) -> str:
        titles = {"controlnet": "ControlNet", "clip": "CLIP model", "detector": "detector"}
        return f"{titles.get(self.role, f'{self.role} estimator')} '{self.name}'"


@dataclass(frozen=True, slots=True)
class Observers:
    """Networks that look at what a model makes. They change no pixel and are no part of the model's identity.

    The `detector` compares an edit with its source; with text2img it labels what was made.
    """

    detector: Network | None = None
    clip: Network | None = None

    def __iter__(self) -> Iterator[Network]:
        return (network for network in (self.detector, self.clip) if network is not None)


def require_detector_file(observers: Observers) -> None:
    """Raises UsageError when the detector is a file that is not there: Ultralytics would download it."""
    detector = observers.detector
    if detector is not None and detector.folder is None and detector.hub_id is None:
        raise UsageError(
            f"detector: there is no file {detector.identity}",
            "give an Ultralytics .pt file, its path relative to the recipe",
        )


def resolve_network(name: str, role: str, base: Path, cache: FileCache) -> Network:
    """The network that a recipe beside `base` means by `name`. Raises UsageError when there is no such thing."""
    path = base / Path(name).expanduser()
    full_name = Network(name, role, "", None).full_name
    if path.is_dir():
        files = hub.network_weights(path)
        if not files:
            pickled = any(next(path.glob(f"*{suffix}"), None) for suffix in PICKLES)
            raise UsageError(
                f"{full_name}: {path} has no config.json with .safetensors weights beside it",
                CONVERT if pickled else "give the folder that `save_pretrained` or `hf download` wrote",
            )
        configs = [p for p in path.glob("*.json") if p.is_file()]
        return Network(name, role, files_identity(path, [*files, *configs], cache), str(path))
    hub_id, _, revision = name.partition("@")
    if name.startswith((".", "~")) or Path(name).is_absolute() or not HUB_ID.fullmatch(hub_id):
        raise UsageError(
            f"{full_name}: {path} does not exist", "give a folder relative to the recipe, or a hub id OWNER/NAME"
        )
    return _at(Network(name, role, "", None, hub_id), hub.cached_commit(hub_id, revision or None), revision or None)


def at_revision(weights: Network, kept: str | None) -> Network:
    """The network at the commit that a run folder began with, unless the recipe pins one."""
    if kept is None or weights.hub_id is None or "@" in weights.name:
        return weights
    return _at(weights, kept, kept)


def require_network(weights: Network) -> Network:
    """The network, fetched if need be, with its commit known. Raises DiffgenError with the command that fetches it."""
    if weights.folder is not None or weights.hub_id is None:
        return weights
    commit = hub.fetch_network(weights.hub_id, weights.revision, weights.full_name).name
    found = _at(weights, commit, commit)
    if found.folder is None:
        raise DiffgenError(f"{weights.full_name} has no .safetensors weights that diffgen can load", CONVERT)
    return found


def is_union(weights: Network) -> bool:
    """Whether a ControlNet on this machine reads several kinds of maps. By its tensors: published configs may name another
    class."""
    return any("task_embedding" in hub.tensors(file) for file in _files(weights))


def half_variant(weights: Network) -> str | None:
    """ "fp16" when the weights are on this machine as `*.fp16.safetensors` only."""
    return "fp16" if all(".fp16" in file.name for file in _files(weights)) else None


def _files(weights: Network) -> list[Path]:
    assert weights.folder is not None
    return hub.network_weights(Path(weights.folder))


def _at(weights: Network, commit: str | None, revision: str | None) -> Network:
    assert weights.hub_id is not None
    folder = hub.network_snapshot(weights.hub_id, commit) if commit else None
    identity = f"{weights.hub_id}@{commit or 'unpinned'}"
    return replace(weights, identity=identity, folder=str(folder) if folder else None, revision=commit or revision)


def files_identity(root: Path, files: list[Path], cache: FileCache) -> str:
    """sha256 over names and contents; the names are in the stamp too, because a renamed file keeps its mtime."""
    names = {p.relative_to(root).as_posix() if p.is_relative_to(root) else p.name: p for p in files}
    order = sorted(names)
    key = f"{digest_of(*order)}:{stamp([names[n] for n in order])}"

    def identity() -> str:
        whole = hashlib.sha256()
        for name in order:
            whole.update(f"{name}\0{file_sha256(names[name])}\0".encode())
        return f"sha256:{whole.hexdigest()}"

    return cache.known("weights", root, key, identity)
