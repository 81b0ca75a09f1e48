"""The Hugging Face cache on this machine: where a repository's files are, and which commit a branch or tag is.

Reads files only: imports neither huggingface_hub, which takes half a second, nor anything else that `plan` would wait for.
The layout, `models--OWNER--NAME/{refs/NAME, snapshots/COMMIT}`, is documented and stable.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from diffgen.files import write_atomically
from diffgen.models.weights import components, missing_parts, network_weights, read_json

COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder() -> Path:
    """The Hub cache. Reads the same variables in the same order as huggingface_hub."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(name):
            return _expanded(value)
    if value := os.environ.get("HF_HOME"):
        return _expanded(value) / "hub"
    home = os.environ.get("XDG_CACHE_HOME")
    return (_expanded(home) if home else Path.home() / ".cache") / "huggingface" / "hub"


def _expanded(value: str) -> Path:
    return Path(os.path.expandvars(value)).expanduser()


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _repo_folder(hub_id: str) -> Path:
    return cache_folder() / ("models--" + hub_id.replace("/", "--"))


def _ref(hub_id: str, revision: str | None) -> Path:
    return _repo_folder(hub_id) / "refs" / (revision or "main")


def snapshot_folder(hub_id: str, commit: str) -> Path:
    """Where the files of a commit are, if they are here."""
    return _repo_folder(hub_id) / "snapshots" / commit


def cached_commit(hub_id: str, revision: str | None) -> str | None:
    """The commit of a branch, tag or commit hash (None: main) on this machine; None if it is not here."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    try:
        commit = _ref(hub_id, revision).read_text().strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def remember_commit(hub_id: str, revision: str | None, commit: str) -> None:
    """Let `cached_commit` know what the hub calls `revision` now (None: main). huggingface_hub does so too, but before the
    files are here; until they are, the commit before is the one that can be loaded."""
    if not (revision and COMMIT.fullmatch(revision)):
        path = _ref(hub_id, revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, commit)


def index_folder(hub_id: str, commit: str) -> Path | None:
    """The snapshot folder of a commit if it has model_index.json and the configs of its parts, with or without weights."""
    folder = snapshot_folder(hub_id, commit)
    index = folder / "model_index.json"
    if not index.is_file():
        return None
    parts = [name for name, stem in components(read_json(index)).items() if stem]
    return folder if all((folder / name / "config.json").is_file() for name in parts) else None


def snapshot(hub_id: str, commit: str) -> Path | None:
    """The snapshot folder of a commit if it has everything that we load."""
    folder = index_folder(hub_id, commit)
    return folder if folder and not missing_parts(folder) else None


def network_snapshot(hub_id: str, commit: str) -> Path | None:
    """The snapshot folder of a repository with one network, if it has config and weights."""
    folder = snapshot_folder(hub_id, commit)
    return folder if network_weights(folder) else None
