"""Runs batches in this process. An executor takes (worker, batches, stopping) and yields batches with their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from diffgen.errors import Cancelled
from diffgen.run.worker import BatchWorker
from diffgen.types import Batch, Result

# Batches in progress at once: one on the device, one being decoded, one being checked and encoded.
OVERLAP = 3


def local(
    worker: BatchWorker, batches: Iterable[Batch | None], stopping: Callable[[], bool]
) -> Iterator[tuple[Batch, list[Result]]]:
    """Each batch and its results, in order, up to the first that is cancelled.

    `batches` may give None: then it wants to see the results of one more batch before it goes on. When `stopping` returns
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
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        except Cancelled:
            return
        finally:
            for _, future in waiting:
                future.cancel()


def _first(waiting: deque[tuple[Batch, Future[list[Result]]]]) -> tuple[Batch, list[Result]]:
    batch, future = waiting.popleft()
    return batch, future.result()
