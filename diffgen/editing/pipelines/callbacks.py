"""Watching an edit: step callbacks that decode the latents at a few of the steps. Free where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Called with a caption and with the images of the batch at that step, (H, W, 3) uint8.
Watch = Callable[[str, "list[NDArray[np.uint8]]"], None]
StepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]

MOST = 3  # steps shown while noise is added, and as many while it is removed


def moments(count: int) -> list[int]:
    """At most MOST of 1 … `count`, evenly spread and including the last."""
    return sorted({round(count * k / MOST) for k in range(1, MOST + 1)} - {0})


def watching(watch: Watch, look: Callable[[Any], list[NDArray[np.uint8]]]) -> StepEnd:
    """A step callback that passes to `watch` the images that `look` makes of the model latents."""

    def callback(pipe: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if i + 1 in moments(pipe.num_timesteps):
            watch(f"after step {i + 1} of {pipe.num_timesteps}", look(kwargs["latents"]))
        return kwargs

    return callback


def step_end(callbacks: Sequence[StepEnd]) -> dict[str, StepEnd]:
    """The pipeline's argument to call all of the callbacks in turn; empty where there are none."""

    def callback(pipe: Any, i: int, t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        for one in callbacks:
            kwargs = one(pipe, i, t, kwargs)
        return kwargs

    return {"callback_on_step_end": callback} if callbacks else {}


def from_noise(
    watch: Watch | None, look: Callable[[Any], list[NDArray[np.uint8]]], start: Any, calls_back: bool = True
) -> dict[str, StepEnd]:
    """For edits that start from pure noise, `start`: shows it, and returns the argument that watches the pipeline's steps.

    `calls_back` is False for pipelines without step callbacks.
    """
    if watch is None:
        return {}
    watch("pure noise, at any strength", look(start))
    return step_end([watching(watch, look)] if calls_back else [])
