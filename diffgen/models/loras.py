"""LoRAs of a recipe or an alias: files, weights, and their identity in job ids. Imports neither torch nor diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError, why
from diffgen.files import file_sha256, stamp
from diffgen.models import hub, weights
from diffgen.models.fetch import fetch_file

DEFAULT_NAME = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA file and the `weight` at which it is added (1: as trained).

    `identity` is the sha256 of the file. `path` is None while a hub file is not on this machine; its identity is then the
    one that the run folder keeps, or, if it is `unknown`, where it will come from. `file` is its name in the repository
    `hub_id`, `revision` the commit on this machine, or the requested one. It is `pinned` if recipe or alias name a revision.
    """

    path: str | None
    weight: float
    identity: str
    hub_id: str | None = None
    file: str = ""
    revision: str | None = None
    pinned: bool = False
    unknown: bool = False

    @property
    def name(self) -> str:
        return f"{self.hub_id}/{self.file}" if self.hub_id else str(self.path)


def resolve_loras(entries: Sequence[Mapping[str, Any]], base: Path, cache: FileCache) -> tuple[Lora, ...]:
    """The `loras` of a recipe or an alias, in their order. Relative paths start at `base`. Fetches nothing.

    Raises UsageError for a file that is no LoRA in safetensors, DiffgenError for one that cannot be read.
    """
    return tuple(_resolve(entry, base, cache) for entry in entries)


def _resolve(entry: Mapping[str, Any], base: Path, cache: FileCache) -> Lora:
    weight = float(entry.get("weight", 1.0))
    if entry.get("hub"):
        file = entry.get("weight_name", DEFAULT_NAME)
        revision = entry.get("revision")
        return _at(Lora(None, weight, "", entry["hub"], file, pinned=revision is not None), revision, cache)
    path = base / Path(entry["file"]).expanduser()
    if not path.is_file():
        raise UsageError(f"loras: {path} does not exist", "paths are relative to the recipe")
    return Lora(str(path), weight, _checked_digest(path, cache))


def _at(lora: Lora, revision: str | None, cache: FileCache) -> Lora:
    """A hub LoRA at a revision, with its path and identity if it is on this machine."""
    assert lora.hub_id is not None
    commit = hub.cached_commit(lora.hub_id, revision)
    path = hub.snapshot_folder(lora.hub_id, commit) / lora.file if commit else None
    if path is None or not path.is_file():
        identity = f"{lora.name}@{revision or 'unpinned'}"
        return replace(lora, path=None, identity=identity, revision=revision, unknown=True)
    return replace(lora, path=str(path), identity=_checked_digest(path, cache), revision=commit, unknown=False)


def lora_at(lora: Lora, kept: Mapping[str, str] | None, cache: FileCache) -> Lora:
    """A hub LoRA as the run folder keeps it (`revision`, `identity`), so that its jobs stay what they are without its file.

    The commit is that of the recipe if it pins one. Any other LoRA unchanged.
    """
    if kept is None or lora.hub_id is None:
        return lora
    found = lora if lora.pinned or lora.revision == kept["revision"] else _at(lora, kept["revision"], cache)
    same = found.path is None and found.revision == kept["revision"]
    return replace(found, identity=kept["identity"], unknown=False) if same else found


def kept_loras(loras: Sequence[Lora]) -> dict[str, dict[str, str]]:
    """What a run folder keeps of hub LoRAs, for `lora_at`."""
    return {
        lora.name: {"revision": str(lora.revision), "identity": lora.identity}
        for lora in loras
        if lora.hub_id is not None and lora.path is not None
    }


def require_peft() -> None:
    """Raises DiffgenError if the package that adds LoRAs to a model is missing."""
    if find_spec("peft") is None:
        raise DiffgenError("loras need the package peft", "pip install 'diffgen[lora]'")


def require_lora(lora: Lora, cache: FileCache) -> Lora:
    """The LoRA with its file on this machine. Raises DiffgenError if it cannot be fetched."""
    if lora.path is not None or lora.hub_id is None:
        return lora
    fetch_file(lora.hub_id, lora.file, lora.revision)
    return _at(lora, hub.cached_commit(lora.hub_id, lora.revision), cache)


# Parts of the names of tensors of the relatives of LoRA (LyCORIS) -> what they are called. They are not sums of two factors,
# so diffusers leaves them out, or cannot read them, without saying so.
_NOT_LORAS = {"hada_w": "LoHa", "lokr_w": "LoKr", "oft_": "OFT adapter", "glora": "GLoRA"}


def _checked_digest(path: Path, cache: FileCache) -> str:
    if path.suffix != ".safetensors":
        raise UsageError(f"loras: {path} is not a .safetensors file", "pickled files can run code and are refused")
    names = [key.lower() for key in weights.tensors(path)]
    for mark, kind in _NOT_LORAS.items():
        if any(mark in name for name in names):
            raise UsageError(f"loras: {path} is a {kind}, which cannot be added here", "use a plain LoRA")
    if not any("lora" in name for name in names):
        raise UsageError(f"loras: {path} contains no LoRA", "give weights whose tensors are named lora_…")
    try:
        return cache.known("lora", path, stamp([path]), lambda: file_sha256(path))
    except OSError as error:
        raise DiffgenError(f"loras: {path} cannot be read: {why(error)}", "check the file") from error
