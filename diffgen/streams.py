"""Standard streams that cannot end a night's work: closed from the start, full, or no longer read by anybody."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any


def secure_streams() -> None:
    """Make this process's stdout and stderr safe to write to. For a process that is ours alone: it replaces both.

    What nobody reads is dropped. stdout still raises OSError when it is full, as results would be missing there; stderr
    never raises. Characters that the encoding lacks are escaped, such as those of file names that are not UTF-8.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a closed stream's number would be given to the next file that is opened, and be written into
    os.close(handle)
    sys.stdout = _Guarded(sys.stdout, 1, lambda error: error.errno == errno.EPIPE)
    sys.stderr = _Guarded(sys.stderr, 2, lambda error: True)


class _Guarded(io.TextIOWrapper):
    """A text stream that leads to the null device after an error that it may ignore."""

    def __init__(self, stream: Any, number: int, may_ignore: Callable[[OSError], bool]) -> None:
        raw = io.FileIO(number, "w", closefd=False) if stream is None else None
        buffer = io.BufferedWriter(raw) if raw is not None else stream.detach()
        encoding = "utf-8" if stream is None else stream.encoding
        super().__init__(buffer, encoding, "backslashreplace", line_buffering=True)
        self._number, self._may_ignore = number, may_ignore

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._ignore(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._ignore(error)

    def _ignore(self, error: OSError) -> None:
        if not self._may_ignore(error):
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._number)
        os.close(null)
