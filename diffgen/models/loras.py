"""The recipe's LoRAs: files, weights, and their identity in job ids. Imports neither torch nor diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError, why
from diffgen.files import file_sha256, stamp
from diffgen.models import weights
from diffgen.models.fetch import fetch_file


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA file and the `weight` at which it is added (1: as trained)."""

    path: str
    weight: float
    digest: str  # sha256 of the file


def resolve_loras(entries: Sequence[Mapping[str, Any]], base: Path, cache: FileCache) -> tuple[Lora, ...]:
    """The recipe's `loras`, in their order. Relative paths start at `base`.

    A hub file that is not on this machine is fetched, because LoRAs are small and their identity is their content. Raises
    UsageError for a file that is no LoRA in safetensors, DiffgenError for one that cannot be fetched or read.
    """
    return tuple(_resolve(entry, base, cache) for entry in entries)


# Parts of the names of tensors of the relatives of LoRA (LyCORIS) -> what they are called. They are not sums of two factors,
# so diffusers leaves them out, or cannot read them, without saying so.
_NOT_LORAS = {"hada_w": "LoHa", "lokr_w": "LoKr", "oft_": "OFT adapter", "glora": "GLoRA"}


def _resolve(entry: Mapping[str, Any], base: Path, cache: FileCache) -> Lora:
    if entry.get("hub"):
        path = fetch_file(entry["hub"], entry["weight_name"], entry.get("revision"))
    else:
        path = base / Path(entry["file"]).expanduser()
        if not path.is_file():
            raise UsageError(f"loras: {path} does not exist", "paths are relative to the recipe")
    if path.suffix != ".safetensors":
        raise UsageError(f"loras: {path} is not a .safetensors file", "pickled files can run code and are refused")
    names = [key.lower() for key in weights.tensors(path)]
    for mark, kind in _NOT_LORAS.items():
        if any(mark in name for name in names):
            raise UsageError(f"loras: {path} is a {kind}, which cannot be added here", "use a plain LoRA")
    if not any("lora" in name for name in names):
        raise UsageError(f"loras: {path} contains no LoRA", "give weights whose tensors are named lora_…")
    try:
        digest = cache.known("lora", path, stamp([path]), lambda: file_sha256(path))
    except OSError as error:
        raise DiffgenError(f"loras: {path} cannot be read: {why(error)}", "check the file") from error
    return Lora(str(path), float(entry["weight"]), digest)
