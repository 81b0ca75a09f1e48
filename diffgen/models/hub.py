"""Hub models on this machine: where their files lie, whether they are complete, and how to get them.

Looking never touches the network and never imports huggingface_hub (half a second, and `plan` must answer at once): the
layout of the cache, `models--OWNER--NAME/{refs/NAME, snapshots/COMMIT}`, is documented and stable. Only `fetch` asks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from diffgen.errors import DiffgenError, why

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")

# Components that we never load: their absence is no fault, their files are not fetched.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
_WEIGHTLESS = ("Tokenizer", "Scheduler", "Processor", "Extractor")


def cache_folder() -> Path:
    """The Hub cache, by the same variables and in the same order as huggingface_hub."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(name):
            return Path(value).expanduser()
    if value := os.environ.get("HF_HOME"):
        return Path(value).expanduser() / "hub"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache") / "huggingface" / "hub"


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _repo_folder(hub_id: str) -> Path:
    return cache_folder() / ("models--" + hub_id.replace("/", "--"))


def cached_commit(hub_id: str, revision: str | None) -> str | None:
    """The commit that a branch, a tag or a commit (None: main) names on this machine; None when unknown here."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (_repo_folder(hub_id) / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def described(hub_id: str, commit: str) -> Path | None:
    """The folder of that commit when its index is in it, be there weights or not."""
    folder = _repo_folder(hub_id) / "snapshots" / commit
    return folder if (folder / "model_index.json").is_file() else None


def snapshot(hub_id: str, commit: str) -> Path | None:
    """The folder of that commit when everything that we load is in it."""
    folder = described(hub_id, commit)
    return folder if folder and not missing_parts(folder) else None


def read_json(path: Path) -> dict[str, Any]:
    """Raises DiffgenError when the file is not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DiffgenError(f"{path}: cannot be read as JSON: {why(error)}", "fetch or copy the model again") from error
    if not isinstance(value, dict):
        raise DiffgenError(
            f"{path}: expected a JSON object, got {type(value).__name__}", "fetch or copy the model again"
        )
    return value


def tensors(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by name. Reads its header only.

    Raises DiffgenError when the file cannot be read, or is shorter than its header says.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DiffgenError(f"{file}: broken safetensors file: {why(error)}", "copy or download it again") from error


# Any of these is a vocabulary. Without one transformers makes an empty tokenizer and says nothing.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")


def components(index: dict[str, Any]) -> dict[str, bool]:
    """Component names of a model_index.json that we load -> whether they have weights."""
    found = {}
    for name, value in index.items():
        if (
            name not in UNUSED
            and isinstance(value, list)
            and len(value) == 2
            and value[1]
            and isinstance(value[1], str)
        ):
            found[name] = not any(word in value[1] for word in _WEIGHTLESS)
    return found


def missing_parts(folder: Path) -> list[str]:
    """What a pipeline folder lacks, in words; empty when it can be loaded."""
    missing = []
    for name, has_weights in components(read_json(folder / "model_index.json")).items():
        part = folder / name
        if not part.is_dir():
            missing.append(f"{name}/")
        elif has_weights and not any(path.is_file() for path in part.glob("*.safetensors")):
            missing.append(f"{name}/*.safetensors")
        elif "tokenizer" in name and not any(next(part.glob(pattern), None) for pattern in _VOCABULARIES):
            missing.append(f"{name}/tokenizer.json")
    return missing


def half_variant(folder: Path) -> str | None:
    """ "fp16" when some weights are there as `*.fp16.safetensors` only, else None (the plain files are complete)."""
    for name, has_weights in components(read_json(folder / "model_index.json")).items():
        names = [path.name for path in (folder / name).glob("*.safetensors")] if has_weights else []
        if names and all(".fp16." in n for n in names):
            return "fp16"
    return None


def fetch_command(hub_id: str, revision: str | None) -> str:
    """A command that fetches what we load. Top-level checkpoints (the same weights again) do not match the patterns."""
    pinned = f" --revision {revision}" if revision else ""
    patterns = ("*.json", "*/*.txt", "*/*.jinja", "*/*.safetensors")
    return f"hf download {hub_id}{pinned} " + " ".join(f"--include '{pattern}'" for pattern in patterns)


def wanted_files(files: Sequence[str], index: dict[str, Any]) -> list[str]:
    """Of the files of a repository, those to fetch: configs, tokenizers, and weights once (half precision if offered)."""
    parts = components(index)
    wanted = [f for f in files if f in ("model_index.json", "diffgen.json")]
    for name, has_weights in parts.items():
        inside = [f for f in files if f.startswith(f"{name}/") and f.count("/") == 1]
        wanted += [
            f for f in inside if f.endswith((".json", ".txt", ".model", ".jinja")) and not f.endswith(".index.json")
        ]
        if has_weights:
            weights = [f for f in inside if f.endswith((".safetensors", ".safetensors.index.json"))]
            half = [f for f in weights if ".fp16" in f]
            plain = [f for f in weights if "." not in Path(f).name.split(".safetensors")[0].split("-of-")[0]]
            wanted += half or plain
    return wanted


def fetch_file(hub_id: str, name: str, revision: str | None) -> Path:
    """One file of a repository, downloaded if it is not here yet. Raises DiffgenError when it cannot be had."""
    commit = cached_commit(hub_id, revision)
    if commit and (here := _repo_folder(hub_id) / "snapshots" / commit / name).is_file():
        return here
    command = f"hf download {hub_id} {name}" + (f" --revision {revision}" if revision else "")
    if is_offline():
        raise DiffgenError(
            f"{hub_id}/{name} is not on this machine, and HF_HUB_OFFLINE is set",
            f"fetch it where there is a network: {command}",
        )

    from huggingface_hub import errors, hf_hub_download

    logger.warning("fetching %s/%s", hub_id, name)
    try:
        return Path(hf_hub_download(hub_id, name, revision=revision))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise DiffgenError(f"{hub_id}/{name} cannot be fetched ({type(error).__name__})", f"try: {command}") from error


def fetch(hub_id: str, revision: str | None, name: str, weights: bool = True) -> Path:
    """Download what is not here yet and return the snapshot folder (named by its commit).

    Without `weights` only the pipeline's index and configs. Raises DiffgenError when it cannot be had.
    """
    title = f"model '{name}' ({hub_id})" if name != hub_id else f"model '{name}'"
    with _reaching(title, hub_id, revision, fetch_command(hub_id, revision), "diffusers pipeline", "model_index.json"):
        from huggingface_hub import hf_hub_download, snapshot_download

        commit, files = _listed(title, hub_id, revision)
        index = Path(hf_hub_download(hub_id, "model_index.json", revision=commit))
        files = wanted_files(files, read_json(index))
        if not weights:
            files = [f for f in files if f.endswith(".json")]
        else:
            logger.warning("fetching %s, commit %s", title, commit[:12])
        return Path(snapshot_download(hub_id, revision=commit, allow_patterns=files))


# The names that diffusers and transformers give the weights of one network, whole, in shards, or in half precision.
_NETWORK = re.compile(r"(diffusion_pytorch_model|model)(\.fp16)?(-\d+-of-\d+)?\.safetensors")


def network_weights(folder: Path) -> list[Path]:
    """The safetensors files of a folder that holds one network (a ControlNet, a CLIP model); empty when it holds none."""
    if not (folder / "config.json").is_file():
        return []
    found = sorted(path for path in folder.glob("*.safetensors") if _NETWORK.fullmatch(path.name) and path.is_file())
    return [path for path in found if ".fp16" not in path.name] or found


def network_snapshot(hub_id: str, commit: str) -> Path | None:
    """The folder of that commit of a repository with one network, when config and weights are in it."""
    folder = _repo_folder(hub_id) / "snapshots" / commit
    return folder if network_weights(folder) else None


def network_command(hub_id: str, revision: str | None) -> str:
    """A command that fetches one network."""
    pinned = f" --revision {revision}" if revision else ""
    return f"hf download {hub_id}{pinned} --include '*.json' --include '*.txt' --include '*.safetensors'"


def fetch_network(hub_id: str, revision: str | None, title: str) -> Path:
    """The same as `fetch` for a repository that is one network: its configs, its vocabulary and its weights once."""
    with _reaching(title, hub_id, revision, network_command(hub_id, revision), "network", "config.json"):
        from huggingface_hub import hf_hub_download, snapshot_download

        commit, files = _listed(title, hub_id, revision)
        hf_hub_download(hub_id, "config.json", revision=commit)
        weights = [f for f in files if _NETWORK.fullmatch(f)]
        weights = [f for f in weights if ".fp16" in f] or weights
        logger.warning("fetching %s, commit %s", title, commit[:12])
        configs = [f for f in files if f.endswith((".json", ".txt")) and "/" not in f]
        return Path(snapshot_download(hub_id, revision=commit, allow_patterns=[*configs, *weights]))


def _listed(title: str, hub_id: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit that a revision names on the hub, and its files."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(hub_id, revision=revision, timeout=10)
    if info.sha is None:
        raise DiffgenError(f"{title}: the hub names no commit for it", "give `revision:` in the recipe")
    return info.sha, [f.rfilename for f in info.siblings or []]


@contextlib.contextmanager
def _reaching(title: str, hub_id: str, revision: str | None, command: str, what: str, file: str) -> Iterator[None]:
    """What goes wrong with the hub inside, as DiffgenErrors: a `what` is known by its `file`."""
    if is_offline():
        raise DiffgenError(
            f"{title} is not on this machine, and HF_HUB_OFFLINE is set",
            f"fetch it where there is a network: {command}",
        )

    from huggingface_hub import errors

    # The HTTP library below huggingface_hub has changed before; its errors are the bases of the hub's own.
    unreachable = cast("tuple[type[Exception], ...]", (*errors.HfHubHTTPError.__bases__, OSError))
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(title, command, error) from error
    except errors.GatedRepoError as error:
        raise DiffgenError(
            f"{title} asks you to accept its licence first",
            f"accept it on https://huggingface.co/{hub_id}, then `hf auth login`, then: {command}",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DiffgenError(f"{title} has no revision '{revision}'", "correct or remove the revision") from error
    except errors.EntryNotFoundError as error:
        raise DiffgenError(
            f"{title} is no {what}: it has no {file}", f"use the id of a repository that is a {what}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DiffgenError(
            f"{title} is not on the hub, or is private",
            f"check the id; for a private model `hf auth login`, then: {command}",
        ) from error
    except unreachable as error:
        raise _unreachable(title, command, error) from error


def _unreachable(title: str, command: str, error: Exception) -> DiffgenError:
    return DiffgenError(
        f"{title} is not on this machine and the hub cannot be reached ({type(error).__name__})",
        f"fetch it where there is a network: {command}",
    )
