"""run.json, the lock, and what may be a run folder."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, UsageError, why

FORMAT = 1

STATE = "run.json"
PATIENCE_SECONDS = 0.2  # with the lock of another process

# Of run.json, where it is written: what is read from it before anything else could notice.
_KINDS = {"environments": dict, "revisions": dict | None, "batch_size": int | None, "limit": int | None}


def is_run_folder(folder: Path) -> bool:
    return (folder / STATE).is_file()


def is_locked(folder: Path) -> bool:
    """Whether a process has the run folder open to write: a run is going on. Takes the lock for a moment to find out."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def check_folder(folder: Path, *, make: bool = False) -> None:
    """Raises DiffgenError for what can be no run folder, as it holds what is not ours. With `make`, it is there then."""
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return  # a run will make it
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{error.filename} is not a folder", "choose another run folder, or move away what is in its place"
        ) from None
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
    """run.json. Raises UsageError when the folder is not one of ours, or of a later version."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} is not a run folder", "give the folder that 'diffgen run' wrote") from None
    except (OSError, ValueError) as error:
        raise DiffgenError(
            f"{folder / STATE}: cannot be read: {why(error)}", "restore the file, or start in a new folder"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DiffgenError(
            f"{folder / STATE}: of another format than {FORMAT}", "use the diffgen that wrote it, or a new folder"
        )
    for key, kinds in _KINDS.items():
        if not isinstance(state.get(key), kinds):
            raise DiffgenError(f"{folder / STATE}: {key} is damaged", "restore the file, or start in a new folder")
    return state
