"""run.json, the lock, and the check whether a folder can be a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, UsageError, why
from diffgen.files import write_atomically
from diffgen.types import EDIT_VERSION

FORMAT = 2  # what is written; folders of format 1 had all records in records.jsonl
FORMATS = (1, 2)

STATE = "run.json"
STATE_LOCK = "run.json.lock"  # while one of several workers writes it
LOCK_WAIT_SECONDS = 0.2
STATE_LOCK_SECONDS = 10.0  # after which whoever writes run.json is taken for dead
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
    # run.json is the first file of a run folder, but another worker may have written it during the listing.
    if names - {"lock", STATE_LOCK, f".{STATE}.tmp"} and not os.path.lexists(folder / STATE):
        raise UsageError(
            f"{folder} holds files that diffgen did not make",
            "choose an empty or new folder; nothing was touched",
        )


def read_state(folder: Path) -> dict[str, Any]:
    """Read run.json. Raises UsageError when it is not a run folder, DiffgenError when run.json cannot be used."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise UsageError(
                f"{folder}: nothing was made there yet", "run the recipe first: diffgen run RECIPE"
            ) from None
        raise UsageError(f"{folder} is not a run folder", "give a folder that 'diffgen run' wrote") from None
    except (OSError, ValueError) as error:
        raise DiffgenError(
            f"{folder / STATE}: cannot be read: {why(error)}", "restore the file, or start in a new folder"
        ) from None
    if not isinstance(state, dict) or state.get("format") not in FORMATS:
        raise DiffgenError(
            f"{folder / STATE}: its format is not {FORMAT}",
            "use the version of diffgen that wrote it, or a new folder",
        )
    version = state.get("edit_version", 2 if state["format"] == 1 else None)
    if version not in range(2, EDIT_VERSION + 1):
        raise DiffgenError(
            f"{folder / STATE}: its edit_version is {version}, but this diffgen supports 2 to {EDIT_VERSION}",
            "use the version of diffgen that wrote it, or a new folder",
        )
    for key, types in _STATE_TYPES.items():
        if not isinstance(state.get(key), types):
            raise DiffgenError(f"{folder / STATE}: {key} is damaged", "restore the file, or start in a new folder")
    return state


class RunState:
    """run.json of an open run folder: `state` are its values. With `shared`, several processes may write it, in turn."""

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.folder, self.shared = folder, shared
        self.state: dict[str, Any] = {}

    def open_state(self) -> None:
        """Read run.json, or write the first one. Raises the errors of `read_state`."""
        with self._state_lock():
            if is_run_folder(self.folder):
                self.state = read_state(self.folder)
            else:
                self.state = {"format": FORMAT, "edit_version": EDIT_VERSION, "environments": {}}
                self._write_state()

    @contextmanager
    def changing_state(self) -> Iterator[dict[str, Any]]:
        """The values of run.json, to be changed inside the block; written afterwards if they changed."""
        with self._state_lock():
            if self.shared:
                self.state = read_state(self.folder)
            before = json.dumps(self.state, sort_keys=True)
            yield self.state
            if json.dumps(self.state, sort_keys=True) != before:
                self._write_state()

    def settle(self, **choices: Any) -> dict[str, Any]:
        """Keep each choice (batch size, threads) at its first value for the folder's lifetime; returns those values."""
        with self.changing_state() as state:
            for key, value in choices.items():
                state.setdefault(key, value)
            return {key: state[key] for key in choices}

    def note(self, **facts: Any) -> None:
        """Write facts about the folder (limit, hub commits) to run.json, replacing older values."""
        if any(self.state.get(key) != value for key, value in facts.items()):
            with self.changing_state() as state:
                state |= facts

    def environment(self, details: dict[str, Any]) -> str:
        """The key under which run.json keeps these details: the machine and versions that make the next records."""
        key = f"{zlib.crc32(json.dumps(details, sort_keys=True).encode()):08x}"
        if key not in self.state["environments"]:
            with self.changing_state() as state:
                state["environments"][key] = details
        return key

    def _write_state(self) -> None:
        write_atomically(self.folder / STATE, json.dumps(self.state, indent=1, sort_keys=True) + "\n")

    @contextmanager
    def _state_lock(self) -> Iterator[None]:
        """Several workers write run.json in turn."""
        if not self.shared:
            yield
            return
        path = self.folder / STATE_LOCK
        deadline = time.monotonic() + STATE_LOCK_SECONDS
        while True:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                break
            except FileExistsError:
                if time.monotonic() >= deadline:  # whoever had it is dead: it is held for a moment only
                    path.unlink(missing_ok=True)
                    deadline += STATE_LOCK_SECONDS
                time.sleep(0.05)
            except OSError as error:
                raise DiffgenError(f"{path}: cannot be made: {why(error)}", "choose another run folder") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
