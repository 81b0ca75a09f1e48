"""Runs batches in this process. An executor takes (worker, batches, stopping) and yields results in batch order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from diffgen.errors import Cancelled
from diffgen.run.worker import BatchWorker
from diffgen.types import Batch, Result

# Batches in progress at once: one on the device, one being decoded, one being checked and encoded.
OVERLAP = 3


def local(worker: BatchWorker, batches: Iterable[Batch], stopping: Callable[[], bool]) -> Iterator[list[Result]]:
    """The results of each batch, in order, up to the first that is cancelled.

    When `stopping` returns True, no new batch starts. The one on the device is finished; see BatchWorker for the others.
    """
    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(OVERLAP, thread_name_prefix="batch") as pool:
        try:
            for batch in batches:
                if stopping():
                    break
                waiting.append(pool.submit(worker, batch))
                if len(waiting) >= OVERLAP:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except Cancelled:
            return
        finally:
            for future in waiting:
                future.cancel()
