"""Where the time of a run goes: how long the device is busy, and how long each other part takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from diffgen.run.progress import rate

ON_DEVICE = ("edit", "look", "maps")  # one at a time; the other parts overlap with these and with each other
MODEL = "edit"


class Timings:
    """Seconds by part. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seconds: dict[str, float] = {}
        self._first: float | None = None
        self._last = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time of the block to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + ended - started
                self._first = started if self._first is None else min(self._first, started)
                self._last = max(self._last, ended)

    def facts(self, images: int, accepted: int) -> dict[str, Any] | None:
        """The run's speed, JSON-ready; None before anything was made.

        From the first picture read to the last image written: `images_per_second`, `seconds_per_accepted`, the shares of the
        time in which the device worked (`device_busy`) and in which it did nothing but run the model (`of_bare_model`, 1 is
        the speed of the bare model), and the seconds of each part, summed over threads (`parts`).
        """
        with self._lock:
            if self._first is None or not images:
                return None
            wall = max(self._last - self._first, 1e-9)
            return {
                "images": images,
                "seconds": round(wall, 2),
                "images_per_second": round(images / wall, 4),
                "seconds_per_accepted": round(wall / accepted, 3) if accepted else None,
                "device_busy": round(sum(self._seconds.get(name, 0.0) for name in ON_DEVICE) / wall, 3),
                "of_bare_model": round(self._seconds.get(MODEL, 0.0) / wall, 3),
                "parts": {
                    name: round(seconds, 3)
                    for name, seconds in sorted(self._seconds.items(), key=lambda part: -part[1])
                },
            }


def speed_line(facts: dict[str, Any]) -> str:
    each = facts["seconds_per_accepted"]
    paid = "" if each is None else f", {each:.2f} s per accepted image"
    return (
        f"speed     {rate(facts['images_per_second'])}{paid}; device busy {facts['device_busy']:.0%} of the time, "
        f"{facts['of_bare_model']:.0%} with the model"
    )


def profile_text(facts: dict[str, Any]) -> str:
    """The parts, largest first. Those of the device add up to at most the time that passed."""
    lines = [f"{'part':<10} {'seconds':>9} {'ms an image':>12} {'of the time':>12}"]
    for name, seconds in facts["parts"].items():
        where = " (device)" if name in ON_DEVICE else ""
        share = seconds / facts["seconds"]
        lines.append(
            f"{name:<10} {seconds:>9.2f} {1e3 * seconds / facts['images']:>12.1f} {share:>11.0%} {where}".rstrip()
        )
    return "\n".join(lines)
