"""Errors as the user sees them: a message (where and what) and a hint (what to do)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DiffgenError(Exception):
    """The command cannot continue. `exit_code` is that of the process (see docs/exit-codes.md)."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DiffgenError):
    """The recipe or the command line is wrong; nothing was done."""

    exit_code = 2


def why(error: Exception) -> str:
    """The cause of an error from Python or a library, on one line, without error number, path and traceback."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start})"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(".")


def printable(text: str, keep: str = "") -> str:
    """Text for a terminal: every character that is not printable is escaped, but those of `keep`. Names of files and of
    classes come from elsewhere, and could hold the terminal's own commands."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word with the most similar spelling; None if none is similar."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: ". Did you mean 'x'?", or "" if no known word is similar."""
    near = closest(word, known)
    return f". Did you mean '{near}'?" if near else ""


class SourceError(DiffgenError):
    """One source cannot be used (its image does not decode, its label is broken). Final: a repaired file is a new job."""


class TransientError(DiffgenError):
    """One batch failed for a reason that may pass (memory, a missing file). The next run tries it again."""


class Cancelled(Exception):
    """The run is stopping, and this batch has not reached the device."""


class NotFinite(TransientError):
    """The model's numbers became infinite or NaN for this image: the number type cannot hold them."""


class OutOfMemory(TransientError):
    """The batch does not fit in the device's memory; the worker halves it."""
