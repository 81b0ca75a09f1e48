"""Work shared out among copies of this process. Reading headers is Python's own work: threads would only take turns."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TypeVar

T = TypeVar("T")

CHUNK = 64


def can_fork() -> bool:
    """Elsewhere a new process starts from nothing, and a caller's script without a main guard would start it again."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def forked(work: Callable[[int], T], jobs: Sequence[int]) -> Iterator[tuple[int, T]]:
    """(job, work(job)) in no order. What a copy does not deliver (it was killed, or `work` raised) is left out.

    Copies only write, so one whose parent is gone ends at its next write.
    """
    context = multiprocessing.get_context("fork")
    copies = min(8, os.cpu_count() or 1)
    readers: list[Connection] = []
    started = []
    try:
        for i in range(copies):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_copy, args=(work, jobs[i::copies], reader, writer), daemon=True)
            try:
                process.start()
            except OSError:  # no more processes allowed: what is left out is the caller's
                reader.close()
                writer.close()
                break
            writer.close()
            readers.append(reader)
            started.append(process)
        while readers:
            ready = wait(readers)
            for reader in [one for one in readers if one in ready]:
                try:
                    yield from reader.recv()
                except (EOFError, OSError):
                    readers.remove(reader)
                    reader.close()
    finally:
        for process in started:
            process.terminate() if readers else process.join()


def _copy(work: Callable[[int], T], jobs: Sequence[int], reader: Connection, writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends, and with it the pipe
    reader.close()
    try:
        for start in range(0, len(jobs), CHUNK):
            writer.send([(job, work(job)) for job in jobs[start : start + CHUNK]])
    except BrokenPipeError:
        os._exit(1)
