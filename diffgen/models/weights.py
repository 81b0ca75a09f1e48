"""A model's files: the parts of a pipeline that we load, which of their files, and whether all of those are there.

One rule for what is fetched and for what is loaded, so that one identity always means the same weights: of each part the
half-precision copy where there is one, else the plain one; whole, or in shards with an index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from diffgen.errors import DiffgenError, why

# Components that we never load or fetch.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
_WEIGHTLESS = ("Tokenizer", "Scheduler", "Processor", "Extractor")
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
PICKLED = "pickled weights (.bin, .ckpt, .pt) can run code and are refused"
HALF = "fp16"  # the name of the half-precision variant, in file names and for `from_pretrained`
NETWORK_STEMS = ("diffusion_pytorch_model", "model")  # what diffusers and transformers call the weights of a network

# The prefixes of a part's tensors in single files of the original layout.
ORIGINAL_PARTS = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.", "text_encoders."),
}


def read_json(path: Path) -> dict[str, Any]:
    """Raises DiffgenError if the file is not a JSON object."""
    hint = "fetch or copy the model again"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DiffgenError(f"{path}: cannot be read as JSON: {why(error)}", hint) from error
    if not isinstance(value, dict):
        raise DiffgenError(f"{path}: expected a JSON object, got {type(value).__name__}", hint)
    return value


def tensors(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, from the header of a safetensors file.

    Raises DiffgenError if the file cannot be read, or is shorter than its header says.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        cause, hint = _what_else(file) or (f"broken safetensors file: {why(error)}", "copy or download it again")
        raise DiffgenError(f"{file}: {cause}", hint) from error


def _what_else(file: Path) -> tuple[str, str] | None:
    """(what it is, what to do) for files that are often named .safetensors but are something else."""
    try:
        with file.open("rb") as opened:
            start = opened.read(16)
    except OSError:
        return None
    if start.startswith(b"version https://"):
        return "a Git LFS pointer, not the weights", "run `git lfs pull` in its folder, or download it again"
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return "a pickle with the suffix .safetensors", f"convert it; {PICKLED}"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not weights", "download it again, from the URL of the file itself"
    return None


def components(index: dict[str, Any]) -> dict[str, str]:
    """Component of a model_index.json that we load -> what its weight files are called; "" if it has no weights."""
    stems = {}
    for name, value in index.items():
        # A component is [library, class]; [null, null] if the model has none.
        if name in UNUSED or not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)):
            continue
        weightless = any(word in value[1] for word in _WEIGHTLESS)
        stems[name] = "" if weightless else NETWORK_STEMS[value[0] == "transformers"]
    return stems


def weight_names(names: Collection[str], stem: str) -> list[str]:
    """The files to load among the `names` in a part's folder: one, or an index and its shards. Empty if it has none.

    All shards are named that a shard's own name counts, `…-00001-of-00003…`, also those not among `names`. Where there are
    an index and a whole file, transformers takes the file and diffusers the index.
    """
    for variant in (f".{HALF}", ""):
        whole, index = f"{stem}{variant}.safetensors", f"{stem}.safetensors.index{variant}.json"
        if whole in names and not (index in names and stem == NETWORK_STEMS[0]):
            return [whole]
        shard = re.compile(rf"{stem}{re.escape(variant)}-\d{{5}}-of-(\d{{5}})\.safetensors")
        counts = {found[1] for name in names if (found := shard.fullmatch(name))}
        if counts or index in names:
            shards = [f"{stem}{variant}-{i:05d}-of-{n}.safetensors" for n in counts for i in range(1, int(n) + 1)]
            return [index, *sorted(shards)]
    return []


def part_weights(folder: Path, stem: str) -> tuple[list[Path], list[str]]:
    """(weight files of a part's folder, names of those that it lacks)."""
    there = {path.name for path in folder.glob(f"{stem}.*") if path.is_file()}
    there |= {path.name for path in folder.glob(f"{stem}-*.safetensors") if path.is_file()}
    wanted = weight_names(there, stem)
    if not wanted:
        return [], [f"{stem}.safetensors"]
    index = [name for name in wanted if name.endswith(".json")]
    if index and index[0] in there:  # its shards may be called anything
        shards = read_json(folder / index[0]).get("weight_map")
        if not isinstance(shards, dict) or not all(
            isinstance(name, str) and "/" not in name for name in shards.values()
        ):
            raise DiffgenError(f"{folder / index[0]}: not an index of shards", "fetch or copy the model again")
        wanted = [*index, *sorted(set(shards.values()))]
        there |= {name for name in wanted if (folder / name).is_file()}
    return (
        [folder / name for name in wanted if name in there and not name.endswith(".json")],
        [name for name in wanted if name not in there],
    )


# Each is a tokenizer's vocabulary. Without one, transformers silently makes an empty tokenizer.
_VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("tokenizer.model",),
)


def missing_parts(folder: Path) -> list[str]:
    """The files that a pipeline's folder lacks; empty if it can be loaded."""
    missing = []
    for name, stem in components(read_json(folder / "model_index.json")).items():
        part = folder / name
        if not part.is_dir():
            missing.append(f"{name}/")
        elif stem:
            lacking = ["config.json"] if not (part / "config.json").is_file() else []
            missing += [f"{name}/{file}" for file in lacking + part_weights(part, stem)[1]]
        elif "tokenizer" in name and not any(all((part / n).is_file() for n in files) for files in _VOCABULARIES):
            missing.append(f"{name}/tokenizer.json")
    return missing or _half_missing(folder)


def _half_missing(folder: Path) -> list[str]:
    """Half-precision weights of parts that have them as pickles only: diffusers, once it loads the variant for one part,
    loads it for every part that has a file of it."""
    lacking = []
    if half_variant(folder):
        for name, stem in components(read_json(folder / "model_index.json")).items():
            there = any(path.name.partition(".")[2].startswith(HALF) for path in (folder / name).iterdir())
            if stem and there and not any(f".{HALF}" in file.name for file in part_weights(folder / name, stem)[0]):
                lacking.append(f"{name}/{stem}.{HALF}.safetensors")
    return lacking


def half_variant(folder: Path) -> str | None:
    """The variant that `from_pretrained` is to load from a pipeline's folder: "fp16" if a part has it, else None."""
    for name, stem in components(read_json(folder / "model_index.json")).items():
        if stem and any(f".{HALF}" in file.name for file in part_weights(folder / name, stem)[0]):
            return HALF
    return None


def wanted_files(files: Collection[str], index: dict[str, Any]) -> list[str]:
    """The files of a repository to fetch: configs, tokenizers, and one copy of the weights."""
    wanted = [f for f in files if f in ("model_index.json", "diffgen.json")]
    for name, stem in components(index).items():
        inside = [f.removeprefix(f"{name}/") for f in files if f.startswith(f"{name}/") and f.count("/") == 1]
        texts = [f for f in inside if f.endswith((".json", ".txt", ".model", ".jinja")) and ".index." not in f]
        chosen = [f for f in weight_names(inside, stem) if f in inside] if stem else []
        wanted += [f"{name}/{f}" for f in texts + chosen]
    return wanted


def network_weights(folder: Path) -> list[Path]:
    """The weight files of a folder with one network (a ControlNet, a CLIP model); empty if it lacks one, or its config."""
    if (folder / "config.json").is_file():
        for stem in NETWORK_STEMS:
            files, missing = part_weights(folder, stem)
            if files and not missing:
                return files
    return []


def wanted_network_files(files: Collection[str]) -> list[str]:
    """`wanted_files` of a repository with one network: configs, vocabulary, and one copy of the weights."""
    top = [f for f in files if "/" not in f]
    texts = [f for f in top if f.endswith((".json", ".txt", ".model")) and ".index." not in f]
    weights = next((found for stem in NETWORK_STEMS if (found := weight_names(top, stem))), [])
    return texts + [f for f in weights if f in top]
