"""Runs batches in this process. An executor takes (worker, batches, stopping) and yields batches with their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from diffgen.errors import Cancelled
from diffgen.run.worker import BatchWorker
from diffgen.types import Batch, Result

# Batches in progress at once: one on the device, one ready for it, one being read, one being measured and encoded.
OVERLAP = 4


def local(
    worker: BatchWorker, batches: Iterable[Batch | None], stopping: Callable[[], bool]
) -> Iterator[tuple[Batch, list[Result]]]:
    """Each batch with its results, in order; cancelled batches are left out.

    If `batches` yields None, it needs the results of one more batch before it can continue. When `stopping` returns
    True, no new batch starts. The one on the device is finished; see BatchWorker for the others.
    """
    waiting: deque[tuple[Batch, Future[list[Result]]]] = deque()
    with ThreadPoolExecutor(OVERLAP, thread_name_prefix="batch") as pool:
        try:
            for batch in batches:
                if stopping():
                    break
                if batch is not None:
                    waiting.append((batch, pool.submit(worker, batch)))
                if waiting and (batch is None or len(waiting) >= OVERLAP):
                    yield from _first(waiting)
            while waiting:
                yield from _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _first(waiting: deque[tuple[Batch, Future[list[Result]]]]) -> Iterator[tuple[Batch, list[Result]]]:
    batch, future = waiting.popleft()
    try:
        results = future.result()
    except Cancelled:  # a later batch may have reached the device before it, and is finished
        return
    yield batch, results
