"""Items to batches of equal settings and working size, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterable, Set

from diffgen.dataset.geometry import working_canvas
from diffgen.types import Batch, Item, Settings


def working_size(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """(width, height) in pixels at which the model sees a source of `size`."""
    return working_canvas(*size, settings).size


def cut_batches(items: Iterable[Item], batch_size: int) -> list[Batch]:
    """Batches in plan order: one batch shares settings and working size, and holds each job once.

    Cut from the whole plan, before what is done is taken away, so that a resumed run makes the same batches.
    """
    open_groups: dict[tuple[str, tuple[int, int]], list[Item]] = {}
    seen: set[str] = set()
    batches = []
    for item in items:
        if item.job.id in seen:
            continue
        seen.add(item.job.id)
        group = open_groups.setdefault(
            (item.job.settings.digest, working_size((item.source.width, item.source.height), item.job.settings)), []
        )
        group.append(item)
        if len(group) == batch_size:
            batches.append(Batch(tuple(group)))
            group.clear()
    batches += [Batch(tuple(group)) for group in open_groups.values() if group]
    return batches


def pending_batches(batches: Iterable[Batch], done: Set[str], tried: Set[str] = frozenset()) -> list[Batch]:
    """What is left of the batches.

    A batch is run again whole where all that it lacks was `tried` before (it failed, or its image was deleted): made in
    other company, an image would differ in its last bits. What is new (another selection, an edited label) runs without
    what is done, which would cost the device's time for nothing.
    """
    pending = []
    for batch in batches:
        left = [item for item in batch.items if item.job.id not in done]
        if left:
            again = all(item.job.id in tried for item in left)
            pending.append(batch if again else Batch(tuple(left)))
    return pending
