"""Loading with torch: silence, and what counts as running out of memory."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from diffgen.errors import OutOfMemory


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from talking: their remarks on expected types, unused config keys and deprecations
    are about their own insides, and stderr is ours."""
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log

    logs: tuple[Any, ...] = (diffusers_log, transformers_log)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, (verbosity, bars) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()


_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")


def out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no room. torch raises plain RuntimeErrors for all but CUDA's own allocator."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


@contextlib.contextmanager
def memory_errors(count: int) -> Iterator[None]:
    """Turn running out of memory with `count` images at once into OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        # Without its traceback: those frames hold the very tensors that have to go before half of the batch is tried.
        raise OutOfMemory(
            f"no room for {count} images at once", "use a smaller batch, or a smaller resolution.long_side"
        ) from error.with_traceback(None)
