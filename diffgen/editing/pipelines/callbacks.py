"""Step callbacks that decode the latents at a few of the steps, for a watcher. They cost nothing without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Called with a caption and the batch's images at that step, (H, W, 3) uint8.
Watch = Callable[[str, "list[NDArray[np.uint8]]"], None]
StepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]

MAX_SHOWN = 3  # steps shown while noise is added, and as many while it is removed


def shown_steps(count: int) -> list[int]:
    """At most MAX_SHOWN of the steps 1 … `count`, evenly spread and including the last."""
    return sorted({round(count * k / MAX_SHOWN) for k in range(1, MAX_SHOWN + 1)} - {0})


def watching(watch: Watch, decode: Callable[[Any], list[NDArray[np.uint8]]]) -> StepEnd:
    """A step callback that passes the decoded latents of the `shown_steps` to `watch`."""

    def callback(pipe: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if i + 1 in shown_steps(pipe.num_timesteps):
            watch(f"after step {i + 1} of {pipe.num_timesteps}", decode(kwargs["latents"]))
        return kwargs

    return callback


def step_end(callbacks: Sequence[StepEnd]) -> dict[str, StepEnd]:
    """The pipeline argument that calls all callbacks in turn; empty without callbacks."""

    def call_all(pipe: Any, i: int, t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        for callback in callbacks:
            kwargs = callback(pipe, i, t, kwargs)
        return kwargs

    return {"callback_on_step_end": call_all} if callbacks else {}


def from_noise(
    watch: Watch | None, decode: Callable[[Any], list[NDArray[np.uint8]]], start: Any, calls_back: bool = True
) -> dict[str, StepEnd]:
    """For edits that start from pure noise: show the latents `start`, and return the argument that watches the steps.

    `calls_back` is False for pipelines without step callbacks.
    """
    if watch is None:
        return {}
    watch("pure noise, at any strength", decode(start))
    return step_end([watching(watch, decode)] if calls_back else [])
