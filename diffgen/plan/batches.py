"""Cuts items into batches of equal settings and working size, and drops what is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from diffgen.dataset.geometry import working_canvas
from diffgen.types import Batch, Item, Settings

LANE = 64  # batches


def working_size(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """(width, height) in pixels at which the model sees a source of `size`."""
    return working_canvas(*size, settings).size


def cut_batches(items: Iterable[Item], batch_size: int) -> list[Batch]:
    """Batches in plan order. The items of a batch share settings and working size; each job is in one batch only.

    Cut the whole plan and drop finished jobs afterwards (`pending_batches`): then a resumed run makes the same batches.
    """
    open_groups: dict[tuple[str, tuple[int, int]], list[Item]] = {}
    seen: set[str] = set()
    batches = []
    for item in items:
        if item.job.id in seen:
            continue
        seen.add(item.job.id)
        size = working_size((item.source.width, item.source.height), item.job.settings)
        group = open_groups.setdefault((item.job.settings.digest, size), [])
        group.append(item)
        if len(group) == batch_size:
            batches.append(Batch(tuple(group)))
            group.clear()
    batches += [Batch(tuple(group)) for group in open_groups.values() if group]
    return batches


def cut_lanes(batches: Sequence[Batch]) -> Iterator[list[Item]]:
    """The items of each lane: LANE batches of the whole plan. What a lane needs beyond them depends on them alone."""
    for first in range(0, len(batches), LANE):
        yield [item for batch in batches[first : first + LANE] for item in batch.items]


def pending_batches(batches: Iterable[Batch], done: Set[str], tried: Set[str] = frozenset()) -> list[Batch]:
    """The batches that still have jobs to run; `done` and `tried` are job ids.

    If every missing job was `tried` before (it failed, or its image was deleted), the whole batch runs again: the last
    bits of an image depend on the other images of its batch. New jobs (a larger selection, an edited label) run without
    the finished ones, which would only cost device time.
    """
    pending = []
    for batch in batches:
        left = [item for item in batch.items if item.job.id not in done]
        if left:
            again = all(item.job.id in tried for item in left)
            pending.append(batch if again else Batch(tuple(left)))
    return pending
