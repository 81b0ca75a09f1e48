"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 as a wish to stop, and the exit codes of work that was stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# A job scheduler's warning, SIGUSR1, asks to be called again, as --max-minutes does.
STOP_CODES = {"max-minutes": 4, "SIGUSR1": 4, "SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


@contextmanager
def interruptible(notify: Callable[[str], None], what: str) -> Iterator[list[str]]:
    """Signals add their name to the list, which the work looks at; a second one exits at once. A SIGHUP that is ignored
    (nohup) stays so. `what` says what becomes of the work in hand. All work must be safe to end at any time."""
    stop: list[str] = []

    def handle(number: int, _: Any) -> None:
        name = signal.Signals(number).name
        if any(reason != "max-minutes" for reason in stop):
            os._exit(STOP_CODES[name])
        stop.insert(0, name)
        notify(f"{name}: {what}; repeat it to stop at once, run the same command again to resume")

    handlers = {}
    with suppress(ValueError):  # not the main thread: the caller handles signals
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                handlers[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
