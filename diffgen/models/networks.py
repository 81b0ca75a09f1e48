"""A network beside the model: a ControlNet, a depth or segmentation model, CLIP, a detector. Its files and its identity.

Imports neither torch nor huggingface_hub. Resolving never downloads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.files import file_sha256, stamp
from diffgen.models import hub, weights
from diffgen.models.fetch import fetch, pull_command
from diffgen.models.weights import PICKLED, PICKLES
from diffgen.recipe.sections import HUB_ID
from diffgen.types import digest_of

CONVERT = f"convert the weights to .safetensors; {PICKLED}"


@dataclass(frozen=True, slots=True)
class Network:
    """A network that can be loaded.

    `name` is as in the recipe: a folder, OWNER/NAME, or OWNER/NAME@REVISION. `role` is "controlnet", "depth",
    "segmentation", "clip" or "detector". `folder` is None while a hub network is not on this machine; for a detector it may
    be a file. `revision` is the commit on this machine, or the requested revision if there is none. The `identity` of a
    detector that compares edits is the path of its file, which may be missing.
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
    """Networks that look at finished images. They change no pixel and are not part of the model's identity.

    The `detector` compares an edit with its source; with text2img it labels the image.
    """

    detector: Network | None = None
    clip: Network | None = None

    def __iter__(self) -> Iterator[Network]:
        return (network for network in (self.detector, self.clip) if network is not None)


def require_detector_file(observers: Observers) -> None:
    """Raises UsageError if the detector's file is missing, because Ultralytics would download one."""
    detector = observers.detector
    if detector is not None and detector.folder is None and detector.hub_id is None:
        raise UsageError(
            f"detector: there is no file {detector.identity}",
            "give an Ultralytics .pt file, its path relative to the recipe",
        )


def resolve_network(name: str, role: str, base: Path, cache: FileCache) -> Network:
    """The network that a recipe in the folder `base` calls `name`. Raises UsageError if there is none."""
    path = base / Path(name).expanduser()
    full_name = Network(name, role, "", None).full_name
    if path.is_dir():
        files = weights.network_weights(path)
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


def at_revision(network: Network, kept: str | None) -> Network:
    """A hub network at the commit `kept` by the run folder, unless the recipe pins one; any other network unchanged."""
    if kept is None or network.hub_id is None or "@" in network.name:
        return network
    return _at(network, kept, kept)


def require_network(network: Network) -> Network:
    """The network with its files on this machine and its commit known. Fetches a hub network.

    Raises DiffgenError if that fails; its hint is the command that fetches the network.
    """
    if network.folder is not None or network.hub_id is None:
        return network
    commit = fetch(network.hub_id, network.revision, network.full_name, network_command(network), "network").name
    return _at(network, commit, commit)


def network_command(network: Network) -> str:
    """The command that fetches a hub network."""
    return pull_command(network.name, network.revision)


def is_union(network: Network) -> bool:
    """Whether a ControlNet on this machine reads several kinds of maps. Decided by its tensors, because some published
    configs name another class."""
    return any("task_embedding" in weights.tensors(file) for file in _files(network))


def half_variant(network: Network) -> str | None:
    """ "fp16" if the half-precision copy of the weights is the one to load."""
    return "fp16" if all(".fp16" in file.name for file in _files(network)) else None


def _files(network: Network) -> list[Path]:
    assert network.folder is not None
    return weights.network_weights(Path(network.folder))


def _at(network: Network, commit: str | None, revision: str | None) -> Network:
    assert network.hub_id is not None
    folder = hub.network_snapshot(network.hub_id, commit) if commit else None
    identity = f"{network.hub_id}@{commit or 'unpinned'}"
    return replace(network, identity=identity, folder=str(folder) if folder else None, revision=commit or revision)


def files_identity(root: Path, files: list[Path], cache: FileCache) -> str:
    """sha256 over names and contents. The stamp covers the names too, because a renamed file keeps its mtime."""
    names = {p.relative_to(root).as_posix() if p.is_relative_to(root) else p.name: p for p in files}
    order = sorted(names)

    def identity() -> str:
        contents = "".join(f"{name}\0{file_sha256(names[name])}\0" for name in order)
        return f"sha256:{digest_of(contents)}"

    return cache.known("weights", root, f"{digest_of(*order)}:{stamp([names[n] for n in order])}", identity)
