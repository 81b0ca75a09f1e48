"""Fetching models from the Hugging Face hub. The only module that uses the network."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from diffgen.errors import DiffgenError, UsageError, why
from diffgen.models import hub
from diffgen.models.weights import (
    PICKLED,
    missing_parts,
    network_weights,
    read_json,
    wanted_files,
    wanted_network_files,
)

logger = logging.getLogger(__name__)


class Unreachable(DiffgenError):
    """The hub does not answer, or not to the end; `what` happened."""

    def __init__(self, message: str, hint: str, what: str) -> None:
        super().__init__(message, hint)
        self.what = what


def pull_command(name: str, revision: str | None = None) -> str:
    """The command that fetches what a run loads of a model or network, and nothing else."""
    return f"diffgen models pull {name}{f'@{revision}' if revision and '@' not in name else ''}"


def fetch_file(hub_id: str, name: str, revision: str | None) -> Path:
    """The path of one file of a repository, downloaded unless it is here. Raises DiffgenError if it cannot be fetched."""
    commit = hub.cached_commit(hub_id, revision)
    if commit and (path := hub.snapshot_folder(hub_id, commit) / name).is_file():
        return path
    command = f"hf download {hub_id} {name}" + (f" --revision {revision}" if revision else "")
    with _hub_errors(f"'{hub_id}'", hub_id, revision, command, "file of that name", name):
        from huggingface_hub import hf_hub_download

        logger.warning("fetching %s/%s", hub_id, name)
        return Path(hf_hub_download(hub_id, name, revision=revision))


# What kind of repository is wanted -> the file that such a one has.
INDEX = {"diffusers pipeline": "model_index.json", "network": "config.json"}


def fetch(
    hub_id: str, revision: str | None, title: str, command: str, kind: str | None = None, weights: bool = True
) -> Path:
    """Download what is not here of a repository, at the commit that `revision` is on the hub now.

    `kind` is one of INDEX; None: whichever it is. Without `weights`, only configs. `title` and `command` are for messages.
    Returns the snapshot folder, which is named after its commit. Raises DiffgenError if it cannot be fetched, is of
    another kind, or has no weights that we load.
    """
    with _hub_errors(title, hub_id, revision, command, kind or "diffusers pipeline"):
        folder, kind = _download(title, hub_id, revision, kind, weights)
    if weights and (lacking := _lacking(folder, kind)):
        raise DiffgenError(
            f"{title}: the hub has no {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}",
            f"use a revision or another repository with .safetensors weights; {PICKLED}",
        )
    hub.remember_commit(hub_id, revision, folder.name)
    return folder


def _lacking(folder: Path, kind: str) -> list[str]:
    if kind == "network":
        return [] if network_weights(folder) else ["model.safetensors"]
    return missing_parts(folder) if (folder / INDEX[kind]).is_file() else [INDEX[kind]]


def _download(title: str, hub_id: str, revision: str | None, kind: str | None, weights: bool) -> tuple[Path, str]:
    """(snapshot folder, kind)."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    info = HfApi().model_info(hub_id, revision=revision, timeout=10)
    if info.sha is None:
        raise DiffgenError(f"{title}: the hub reports no commit for it", "set `revision:` in the recipe")
    folder = hub.snapshot_folder(hub_id, info.sha)
    files = [f.rfilename for f in info.siblings or []]
    if kind is None:
        kind = next((name for name, file in INDEX.items() if file in files), "diffusers pipeline")
    if not _lacking(folder, kind):
        return folder, kind
    index = Path(hf_hub_download(hub_id, INDEX[kind], revision=info.sha))
    wanted = wanted_network_files(files) if kind == "network" else wanted_files(files, read_json(index))
    if weights:
        logger.warning("fetching %s, commit %s", title, info.sha[:12])
    # The small files first: where an interrupted download has left all weights, it has left all of these too.
    large = [f for f in wanted if f.endswith(".safetensors")]
    small = [f for f in wanted if f not in large] if weights else [f for f in wanted if _is_config(f)]
    for chosen in (small, large if weights else []):
        if chosen:
            snapshot_download(hub_id, revision=info.sha, allow_patterns=[_literal(f) for f in chosen])
    return folder, kind


def _is_config(name: str) -> bool:
    return "tokenizer" not in name and name.endswith(".json")


def _literal(name: str) -> str:
    """A pattern that only this name matches."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextlib.contextmanager
def _hub_errors(
    title: str, hub_id: str, revision: str | None, command: str, kind: str, file: str | None = None
) -> Iterator[None]:
    """Turn errors of huggingface_hub into DiffgenErrors. A repository of the expected `kind` has the `file`."""
    if hub.is_offline():
        raise DiffgenError(
            f"{title} is not on this machine, and HF_HUB_OFFLINE is set",
            f"with network access, run: {command}",
        )

    from huggingface_hub import errors

    # The HTTP library of huggingface_hub has changed before. Its errors are among the bases of the hub's own.
    http = cast("tuple[type[Exception], ...]", tuple(set(errors.HfHubHTTPError.__bases__) - {OSError}))
    login = f"`hf auth login`, then: {command}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DiffgenError(
            f"{title}: you must accept its licence first", f"accept it on https://huggingface.co/{hub_id}, then {login}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DiffgenError(f"{title} has no revision '{revision}'", "correct or remove the revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(title, command, error.__cause__ or error) from error
    except errors.EntryNotFoundError as error:
        raise DiffgenError(
            f"{title} has no {file or INDEX[kind]}", f"use the id of a repository with a {kind}"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(
            f"{title}: {why(error)}", "write OWNER/NAME; a folder is found relative to the recipe"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DiffgenError(
            f"{title} is not on the hub, or is private", f"check the id; for a private model {login}"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise DiffgenError(f"{title}: the hub refuses your token ({status})", login) from error
        raise _unreachable(title, command, error, f"the hub answered with {status}" if status else "") from error
    except http as error:
        raise _unreachable(title, command, error) from error
    except RuntimeError as error:  # of hf_xet, which transfers large files
        raise _unreachable(title, command, error, f"its download broke off ({why(error)})") from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError):
            raise DiffgenError(
                f"{title} cannot be stored in {hub.cache_folder()}: {why(error)}",
                "free disk space, or set HF_HUB_CACHE to another folder",
            ) from error
        raise _unreachable(title, command, error, f"its download broke off ({why(error)})") from error


def _unreachable(title: str, command: str, error: BaseException, what: str = "") -> Unreachable:
    what = what or f"the hub cannot be reached ({type(error).__name__})"
    return Unreachable(f"{title} is not on this machine and {what}", f"with network access, run: {command}", what)
