"""Loading networks of diffusers and transformers: silently, without running code from a repository, and completely.

Nothing is downloaded here: see `models.networks` and `models.fetch`.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, OutOfMemory, why
from diffgen.models import weights
from diffgen.models.networks import Network, half_variant


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Stop diffusers and transformers from logging and from asking questions.

    Their remarks on expected types, unused config keys and deprecations concern their own code, and stderr is ours. For a
    repository with code of its own, transformers asks on stdin whether to run it; with a time-out of 0 it raises ValueError.
    """
    import diffusers.utils.logging as diffusers_log
    import transformers.dynamic_module_utils as remote_code
    import transformers.utils.logging as transformers_log

    logs: tuple[Any, ...] = (diffusers_log, transformers_log)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    seconds, remote_code.TIME_OUT_REMOTE_CODE = remote_code.TIME_OUT_REMOTE_CODE, 0
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        remote_code.TIME_OUT_REMOTE_CODE = seconds
        for log, (verbosity, bars) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()


def load_errors() -> tuple[type[Exception], ...]:
    """What `from_pretrained` and `to` raise for files that are broken, or do not make the class."""
    from safetensors import SafetensorError

    return (
        SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError,
        MemoryError,
    )  # fmt: skip


def load_network(
    cls: Any,
    network: Network,
    device: str,
    dtype: str = "float32",
    *,
    hint: str,
    types: Sequence[str] = (),
    idle: str | None = None,
) -> Any:
    """The network's files as the transformers or diffusers model `cls`, on the device, ready to run.

    `types` are the model types (`model_type` of its config) that will do; empty: any that `cls` loads. Weights that the
    files lack are an error, except those whose names match the pattern `idle`: they exist but never run. Raises
    DiffgenError with the cause and `hint`.
    """
    import torch

    def load() -> Any:
        _check_type(network, types)
        model, info = cls.from_pretrained(
            network.folder, dtype=getattr(torch, dtype), variant=half_variant(network), use_safetensors=True,
            local_files_only=True, trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
        # transformers fills these with random numbers and only logs it; diffusers leaves them without memory.
        lacking = [key for key in info["missing_keys"] if not (idle and re.search(idle, key))]
        lacking += [key for key, *_ in info["mismatched_keys"]]
        if lacking:
            raise DiffgenError(f"{network.full_name}: its files do not contain {min(lacking)}", hint)
        return model.to(device).eval()

    return _loaded(load, network, device, hint)


def load_processor(cls: Any, network: Network, *, hint: str) -> Any:
    """The tokenizer or image processor in the network's files, as `cls` of transformers. Raises DiffgenError."""

    def load() -> Any:
        return cls.from_pretrained(network.folder, local_files_only=True, trust_remote_code=False)

    return _loaded(load, network, "cpu", hint)


def _loaded(load: Callable[[], Any], network: Network, device: str, hint: str) -> Any:
    assert network.folder is not None
    with quiet():
        try:
            return load()
        except load_errors() as error:
            if out_of_memory(error):
                raise DiffgenError(
                    f"{network.full_name} does not fit on {device}",
                    "use a smaller one, fewer of them, or another device",
                ) from error
            raise DiffgenError(f"{network.full_name} cannot be loaded: {why(error)}", hint) from error


def _check_type(network: Network, types: Sequence[str]) -> None:
    kind = weights.read_json(Path(str(network.folder)) / "config.json").get("model_type") if types else None
    if types and kind not in types:
        raise ValueError(f"its model_type is {kind}")


_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")


def out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine ran out of memory. torch raises plain RuntimeErrors except from CUDA's allocator."""
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
            f"not enough memory for {count} images at once", "use a smaller batch, or a smaller resolution.long_side"
        ) from error.with_traceback(None)
