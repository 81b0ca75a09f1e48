"""log.txt of a run folder: what was said while images were made, and which could not be made."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from diffgen.errors import DiffgenError, printable
from diffgen.version import __version__

LOG = "log.txt"

Say = Callable[[str], None]


def both(first: Say, second: Say) -> Say:
    """Says a line by both."""

    def say(line: str) -> None:
        first(line)
        second(line)

    return say


@contextmanager
def logged(folder: Path, worker: str) -> Iterator[Say]:
    """A function that adds a line to the folder's log; an error that ends the block is also logged."""

    def add(text: str) -> None:
        _add(folder / LOG, worker, text)

    add(f"diffgen {__version__}, Python {platform.python_version()}, {platform.node()}, process {os.getpid()}")
    try:
        yield add
    except DiffgenError as error:
        add(f"error: {error.message}")
        raise
    except BaseException:
        add(traceback.format_exc())
        raise


def _add(path: Path, worker: str, text: str) -> None:
    """Add lines with the time and the worker's name: workers may share the log. What cannot be written is dropped, as a log
    must not end a run."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    lines = "".join(f"{now} {worker} {printable(line)}\n" for line in text.splitlines())
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, lines.encode("utf-8", "backslashreplace"))
        finally:
            os.close(handle)
