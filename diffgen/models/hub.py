"""Hub models on this machine: where their files are, whether they are complete, and how to fetch them.

Only the `fetch` functions use the network and import huggingface_hub, which takes half a second; `plan` must answer at once.
The layout of the cache, `models--OWNER--NAME/{refs/NAME, snapshots/COMMIT}`, is documented and stable.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from diffgen.errors import DiffgenError, why

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")

# Components that we never load or fetch.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
_WEIGHTLESS = ("Tokenizer", "Scheduler", "Processor", "Extractor")


def cache_folder() -> Path:
    """The Hub cache. Reads the same variables in the same order as huggingface_hub."""
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
    """The commit of a branch, tag or commit hash (None: main) on this machine; None if it is not here."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (_repo_folder(hub_id) / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def index_folder(hub_id: str, commit: str) -> Path | None:
    """The snapshot folder of a commit if it has model_index.json, with or without weights."""
    folder = _repo_folder(hub_id) / "snapshots" / commit
    return folder if (folder / "model_index.json").is_file() else None


def snapshot(hub_id: str, commit: str) -> Path | None:
    """The snapshot folder of a commit if it has everything that we load."""
    folder = index_folder(hub_id, commit)
    return folder if folder and not missing_parts(folder) else None


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
        raise DiffgenError(f"{file}: broken safetensors file: {why(error)}", "copy or download it again") from error


# Each is a tokenizer's vocabulary. Without one, transformers silently makes an empty tokenizer.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")


def components(index: dict[str, Any]) -> dict[str, bool]:
    """Component of a model_index.json that we load -> whether it has weights."""
    # A component is [library, class]; [null, null] if the model has none.
    classes = {name: value[1] for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {
        name: not any(word in cls for word in _WEIGHTLESS)
        for name, cls in classes.items()
        if name not in UNUSED and cls and isinstance(cls, str)
    }


def missing_parts(folder: Path) -> list[str]:
    """The files that a pipeline folder lacks; empty if it can be loaded."""
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
    """ "fp16" if a component has only `*.fp16.safetensors`, else None."""
    for name, has_weights in components(read_json(folder / "model_index.json")).items():
        names = [path.name for path in (folder / name).glob("*.safetensors")] if has_weights else []
        if names and all(".fp16." in n for n in names):
            return "fp16"
    return None


def fetch_command(hub_id: str, revision: str | None) -> str:
    """A command that fetches what we load. Its patterns skip top-level checkpoints, which repeat the weights."""
    pinned = f" --revision {revision}" if revision else ""
    patterns = ("*.json", "*/*.txt", "*/*.jinja", "*/*.safetensors")
    return f"hf download {hub_id}{pinned} " + " ".join(f"--include '{pattern}'" for pattern in patterns)


def wanted_files(files: Sequence[str], index: dict[str, Any]) -> list[str]:
    """The files of a repository to fetch: configs, tokenizers, and one copy of the weights (half precision if offered)."""
    wanted = [f for f in files if f in ("model_index.json", "diffgen.json")]
    for name, has_weights in components(index).items():
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
    """The path of one file of a repository, downloaded unless it is here. Raises DiffgenError if it cannot be fetched."""
    commit = cached_commit(hub_id, revision)
    if commit and (path := _repo_folder(hub_id) / "snapshots" / commit / name).is_file():
        return path
    command = f"hf download {hub_id} {name}" + (f" --revision {revision}" if revision else "")
    with _hub_errors(f"'{hub_id}'", hub_id, revision, command, "file of that name", name):
        from huggingface_hub import hf_hub_download

        logger.warning("fetching %s/%s", hub_id, name)
        return Path(hf_hub_download(hub_id, name, revision=revision))


def fetch(hub_id: str, revision: str | None, name: str, weights: bool = True) -> Path:
    """Download the files that are not here and return the snapshot folder, which is named after its commit.

    Without `weights`, only the pipeline's index and configs. Raises DiffgenError if they cannot be fetched.
    """
    title = f"model '{name}' ({hub_id})" if name != hub_id else f"model '{name}'"

    def choose(files: Sequence[str], index: Path) -> list[str]:
        chosen = wanted_files(files, read_json(index))
        return chosen if weights else [f for f in chosen if f.endswith(".json")]

    command = fetch_command(hub_id, revision)
    with _hub_errors(title, hub_id, revision, command, "diffusers pipeline", "model_index.json"):
        return _download(title, hub_id, revision, "model_index.json", choose, log=weights)


# The names that diffusers and transformers give the weights of one network: whole, in shards, or in half precision.
_NETWORK = re.compile(r"(diffusion_pytorch_model|model)(\.fp16)?(-\d+-of-\d+)?\.safetensors")


def network_weights(folder: Path) -> list[Path]:
    """The safetensors files of a folder with one network (a ControlNet, a CLIP model); empty if it has none."""
    if not (folder / "config.json").is_file():
        return []
    files = sorted(path for path in folder.glob("*.safetensors") if _NETWORK.fullmatch(path.name) and path.is_file())
    return [path for path in files if ".fp16" not in path.name] or files


def network_snapshot(hub_id: str, commit: str) -> Path | None:
    """The snapshot folder of a repository with one network, if it has config and weights."""
    folder = _repo_folder(hub_id) / "snapshots" / commit
    return folder if network_weights(folder) else None


def network_command(hub_id: str, revision: str | None) -> str:
    """A command that fetches one network."""
    pinned = f" --revision {revision}" if revision else ""
    return f"hf download {hub_id}{pinned} --include '*.json' --include '*.txt' --include '*.safetensors'"


def fetch_network(hub_id: str, revision: str | None, title: str) -> Path:
    """`fetch` for a repository with one network: configs, vocabulary, and one copy of the weights."""

    def choose(files: Sequence[str], _: Path) -> list[str]:
        weights = [f for f in files if _NETWORK.fullmatch(f)]
        configs = [f for f in files if f.endswith((".json", ".txt")) and "/" not in f]
        return configs + ([f for f in weights if ".fp16" in f] or weights)

    with _hub_errors(title, hub_id, revision, network_command(hub_id, revision), "network", "config.json"):
        return _download(title, hub_id, revision, "config.json", choose)


def _download(
    title: str,
    hub_id: str,
    revision: str | None,
    file: str,
    choose: Callable[[Sequence[str], Path], list[str]],
    log: bool = True,
) -> Path:
    """Download `file`, then what `choose` picks from the repository's files and that file; return the snapshot folder."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    info = HfApi().model_info(hub_id, revision=revision, timeout=10)
    if info.sha is None:
        raise DiffgenError(f"{title}: the hub gives no commit for it", "set `revision:` in the recipe")
    marker = Path(hf_hub_download(hub_id, file, revision=info.sha))
    files = choose([f.rfilename for f in info.siblings or []], marker)
    if log:
        logger.warning("fetching %s, commit %s", title, info.sha[:12])
    return Path(snapshot_download(hub_id, revision=info.sha, allow_patterns=files))


@contextlib.contextmanager
def _hub_errors(title: str, hub_id: str, revision: str | None, command: str, kind: str, file: str) -> Iterator[None]:
    """Turn errors of huggingface_hub into DiffgenErrors. A repository with the expected `kind` of content has the `file`."""
    if is_offline():
        raise DiffgenError(
            f"{title} is not on this machine, and HF_HUB_OFFLINE is set",
            f"fetch it where there is a network: {command}",
        )

    from huggingface_hub import errors

    # The HTTP library of huggingface_hub has changed before. Its errors are the bases of the hub's own.
    unreachable = cast("tuple[type[Exception], ...]", (*errors.HfHubHTTPError.__bases__, OSError))
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(title, command, error) from error
    except errors.GatedRepoError as error:
        raise DiffgenError(
            f"{title}: you must accept its licence first",
            f"accept it on https://huggingface.co/{hub_id}, then `hf auth login`, then: {command}",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DiffgenError(f"{title} has no revision '{revision}'", "correct or remove the revision") from error
    except errors.EntryNotFoundError as error:
        raise DiffgenError(f"{title} has no {file}", f"use the id of a repository with a {kind}") from error
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
