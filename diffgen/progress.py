"""How far a run is, on stderr: a bar on a terminal, one plain line every half minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TextIO

EVERY_SECONDS = 30.0


class Progress(Protocol):
    """Told after each batch. `made` of `total` images of this invocation, `accepted` of those."""

    def __enter__(self) -> Progress: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, made: int, total: int, accepted: int, condition: str) -> None: ...


class Silent:
    """Says nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        pass


class Lines(Silent):
    """One line every `EVERY_SECONDS`, and one at the end: for pipes and CI logs."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started = self._last = clock()

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        now = self._clock()
        if now - self._last < EVERY_SECONDS and made < total:
            return
        self._last = now
        rate = made / max(now - self._started, 1e-9)
        left = f", {_duration((total - made) / rate)} left" if made < total and rate > 0 else ""
        share = f", {accepted / made:.0%} accepted" if made else ""
        self._stream.write(f"{made}/{total} images{share}, {rate:.2f} images/s{left}\n")
        self._stream.flush()


class Bar(Silent):
    """A rich progress bar."""

    def __enter__(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.fields[condition]:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task("run", total=None, condition="loading", rate="")
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        rate = made / max(time.monotonic() - self._started, 1e-9)
        share = f"{accepted / made:.0%} accepted, " if made else ""
        self._bar.update(
            self._task, completed=made, total=total, condition=condition[:12], rate=f"{share}{rate:.2f} images/s"
        )


def choose(quiet: bool) -> Progress:
    """The one that fits where stderr goes."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines(sys.stderr)


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{hours:.1f} h"
