"""Where batches run: (make_worker, batches) → results as they come, in batch order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from diffgen.run.worker import Work
from diffgen.types import Batch, Result

# Batches under way at once: one on the device, one being decoded, one being checked and encoded.
OVERLAP = 3


def local(worker: Work, batches: Iterable[Batch], stopping: Callable[[], bool]) -> Iterator[list[Result]]:
    """This process. `stopping` is asked before each new batch; what is under way is finished and yielded."""
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
        finally:
            for future in waiting:
                future.cancel()
