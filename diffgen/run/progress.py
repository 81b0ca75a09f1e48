"""Reports a run's progress on stderr: a bar on a terminal; elsewhere a line of text or JSON every half minute."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

EVERY_SECONDS = 30.0

Clock = Callable[[], float]


class Progress:
    """Reports nothing: the base of the classes that do."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Called at the end of a run, also after an error."""

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        """Called when a round starts and after each batch. `made` of the invocation's `total` images are finished; of
        these `accepted` passed the checks."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Images per second, and the estimated seconds left; None if unknown or finished."""

    per_second: float
    seconds_left: float | None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
        return f"{rate(self.per_second)}{left}"


class Stopwatch:
    """Measures the speed from the last update with `made` = 0, so it excludes loading the model."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock()

    def speed(self, made: int, total: int) -> Speed:
        now = self._clock()
        if not made:
            self._started = now
        per_second = made / max(now - self._started, 1e-9)
        left = (total - made) / per_second if per_second > 0 and made < total else None
        return Speed(per_second, left)


class Lines(Progress):
    """At most one line per interval, and one at the end: for pipes and CI logs; with `as_json` for machines."""

    def __init__(
        self, stream: TextIO, clock: Clock = time.monotonic, *, as_json: bool = False, every: float = EVERY_SECONDS
    ) -> None:
        self._stream, self._every = stream, every
        self._clock = clock
        self._as_json = as_json
        self._stopwatch = Stopwatch(clock)
        self._last = clock()

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        speed = self._stopwatch.speed(made, total)
        now = self._clock()
        if now - self._last < self._every and made < total:
            return
        self._last = now
        text = _json_line if self._as_json else _plain_line
        self._stream.write(f"{text(made, total, accepted, condition, speed)}\n")
        self._stream.flush()


def _plain_line(made: int, total: int, accepted: int, condition: str, speed: Speed) -> str:
    share = f", {accepted / made:.0%} accepted" if made else ""
    return f"{made}/{total} images{share}, {speed}, {condition}"


def _json_line(made: int, total: int, accepted: int, condition: str, speed: Speed) -> str:
    facts: dict[str, Any] = {"made": made, "total": total, "accepted": accepted, "condition": condition}
    facts["images_per_second"] = round(speed.per_second, 3)
    facts["seconds_left"] = None if speed.seconds_left is None else round(speed.seconds_left)
    return json.dumps({"progress": facts})


class Bar(Progress):
    """A rich progress bar of the terminal's width."""

    def __enter__(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.fields[condition]}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            console=Console(stderr=True),
            expand=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("run", total=None, condition="loading", facts="")
        self._stopwatch = Stopwatch(time.monotonic)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        speed = self._stopwatch.speed(made, total)
        facts = f"{accepted / made:.0%} accepted, {speed}" if made else ""
        self._bar.update(self._task, completed=made, total=total, condition=condition[:12], facts=facts)


def choose(quiet: bool, as_json: bool = False, often: bool = False) -> Progress:
    """The progress report that suits stderr: a terminal or not. `often` is for a process that adds several of them up."""
    if often:
        return Lines(sys.stderr, as_json=True, every=1.0)
    if quiet:
        return Progress()
    return Bar() if sys.stderr.isatty() else Lines(sys.stderr, as_json=as_json)


def rate(per_second: float) -> str:
    """The speed as text; below 0.1 images per second it is given per minute."""
    return f"{per_second:.2f} images/s" if per_second >= 0.1 or not per_second else f"{60 * per_second:.1f} images/min"


def duration(seconds: float) -> str:
    """Seconds as text, in seconds, minutes or hours."""
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{hours:.1f} h"
