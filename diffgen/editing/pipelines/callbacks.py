"""An edit seen on its way: its latents decoded at a few of its steps. Costs nothing where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Told what is seen, and the images of the batch (H, W, 3) uint8 as they are then.
Watch = Callable[[str, "list[NDArray[np.uint8]]"], None]
StepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]

MOST = 3  # moments on the way there, and as many on the way back


def moments(count: int) -> list[int]:
    """At most MOST of 1 … `count`, evenly spread, the last among them."""
    return sorted({round(count * k / MOST) for k in range(1, MOST + 1)} - {0})


def watching(watch: Watch, look: Callable[[Any], list[NDArray[np.uint8]]]) -> StepEnd:
    """A pipeline's callback that shows `watch` what `look` makes of the model latents."""

    def callback(pipe: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if i + 1 in moments(pipe.num_timesteps):
            watch(f"after step {i + 1} of {pipe.num_timesteps}", look(kwargs["latents"]))
        return kwargs

    return callback


def step_end(callbacks: Sequence[StepEnd]) -> dict[str, StepEnd]:
    """The pipeline's argument that calls all of them in turn; none for none."""

    def callback(pipe: Any, i: int, t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        for one in callbacks:
            kwargs = one(pipe, i, t, kwargs)
        return kwargs

    return {"callback_on_step_end": callback} if callbacks else {}


def from_noise(
    watch: Watch | None, look: Callable[[Any], list[NDArray[np.uint8]]], start: Any, calls_back: bool = True
) -> dict[str, StepEnd]:
    """For edits that begin at pure noise, `start`: shows it, and gives the argument that watches the pipeline's steps."""
    if watch is None:
        return {}
    watch("pure noise, at any strength", look(start))
    return step_end([watching(watch, look)] if calls_back else [])
