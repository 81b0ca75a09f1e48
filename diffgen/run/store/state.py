"""run.json, the lock, and the check whether a folder can be a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, UsageError, why
from diffgen.types import EDIT_VERSION

FORMAT = 2  # what is written; folders of format 1 had all records in records.jsonl
FORMATS = (1, 2)

STATE = "run.json"
LOCK_WAIT_SECONDS = 0.2
HELD = (errno.EWOULDBLOCK, errno.EACCES)  # what flock answers when another process has the lock

# Types of the values in run.json, checked on reading so that a damaged file gives a clear message.
_STATE_TYPES = {
    "environments": dict,
    "revisions": dict | None,
    "loras": dict | None,
    "batch_size": int | None,
    "limit": int | None,
    "edit_version": int | None,
    "labelled": dict | None,
}


def is_run_folder(folder: Path) -> bool:
    return (folder / STATE).is_file()


def is_locked(folder: Path) -> bool:
    """Whether a process is writing to the run folder. Takes the lock for a moment to find out."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in HELD
    finally:
        os.close(handle)
    return False


def check_folder(folder: Path, *, create: bool = False) -> None:
    """Raises DiffgenError when `folder` is a file, not writable, or holds files that diffgen did not make.

    With `create`, a missing folder is made.
    """
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return  # a run will make it
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{error.filename} is not a folder", "choose another run folder, or move the file") from None
    except OSError as error:
        raise DiffgenError(
            f"{folder}: cannot write there: {why(error)}", "choose another run folder (--output)"
        ) from None
    if names - {"lock", f".{STATE}.tmp"} and STATE not in names:
        raise UsageError(
            f"{folder} holds files that diffgen did not make",
            "choose an empty or new folder; nothing was touched",
        )


def read_state(folder: Path) -> dict[str, Any]:
    """Read run.json. Raises UsageError when it is not a run folder, DiffgenError when run.json cannot be used."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} is not a run folder", "give a folder that 'diffgen run' wrote") from None
    except (OSError, ValueError) as error:
        raise DiffgenError(
            f"{folder / STATE}: cannot be read: {why(error)}", "restore the file, or start in a new folder"
        ) from None
    if not isinstance(state, dict) or state.get("format") not in FORMATS:
        raise DiffgenError(
            f"{folder / STATE}: has another format than {FORMAT}",
            "use the version of diffgen that wrote it, or a new folder",
        )
    version = state.get("edit_version", 2 if state["format"] == 1 else None)
    if version not in range(2, EDIT_VERSION + 1):
        raise DiffgenError(
            f"{folder / STATE}: its edit_version is {version}, and this diffgen knows 2 to {EDIT_VERSION}",
            "use the version of diffgen that wrote it, or a new folder",
        )
    for key, types in _STATE_TYPES.items():
        if not isinstance(state.get(key), types):
            raise DiffgenError(f"{folder / STATE}: {key} is damaged", "restore the file, or start in a new folder")
    return state
