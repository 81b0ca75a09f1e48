"""What can go wrong, as the user sees it: one message saying where and what, one hint saying what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DiffgenError(Exception):
    """The job cannot go on. `exit_code` is what the shell sees (see the README's table)."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DiffgenError):
    """The recipe or the command line is wrong; nothing was done."""

    exit_code = 2


def why(error: Exception) -> str:
    """The cause of an error of Python's or a library's, on one line: without error number, path and traceback."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start})"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(".")


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is spelt most like `word`; None if none is similar."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: ". Did you mean 'x'?" if a known one is similar, else nothing."""
    near = closest(word, known)
    return f". Did you mean '{near}'?" if near else ""


class SourceError(DiffgenError):
    """One source cannot be used (image does not decode, label is broken). Final: a repaired file is a new job."""


class TransientError(DiffgenError):
    """One batch failed for a reason that may pass (memory, a file that is away). Tried again by the next run."""


class OutOfMemory(TransientError):
    """The device has no room for this batch; the worker halves it."""
