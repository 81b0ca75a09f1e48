"""From a Model to a diffusers pipeline on a device. Knows nothing about images, prompts or jobs.

Loading never touches the network: `models.require_on_disk` has fetched everything before.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen import hub
from diffgen.editors import check_class
from diffgen.editors.lora import add_loras
from diffgen.editors.placing import place, quantising
from diffgen.errors import DiffgenError, OutOfMemory, UsageError
from diffgen.models import Model, local_folder, pipeline_class

_AGAIN = "copy or download the model again"


def pick_device(requested: str) -> tuple[str, str]:
    """The device to use and why. `requested` is "auto", "cpu", "cuda", "cuda:1" or "mps"."""
    import torch

    if requested == "auto":
        if torch.cuda.is_available():
            return "cuda", f"auto: {_cuda_name(0)}"
        if torch.backends.mps.is_available():
            return "mps", "auto: Apple GPU"
        return "cpu", "auto: no GPU that torch can use"
    kind, _, number = requested.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise UsageError(f"device '{requested}' is not known", "use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            raise UsageError(
                f"device '{requested}' is not here: torch sees {count} CUDA devices", "use `device: auto` or cpu"
            )
        return requested, f"asked for: {_cuda_name(int(number or 0))}"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not here: torch sees no Apple GPU", "use `device: auto` or cpu")
    return requested, "asked for"


def _cuda_name(index: int) -> str:
    import torch

    found = torch.cuda.get_device_properties(index)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB"


def pick_dtype(requested: str, device: str) -> tuple[str, str]:
    """The dtype to use and why. `requested` is "auto", "float32", "float16" or "bfloat16"."""
    if requested != "auto":
        if requested not in ("float32", "float16", "bfloat16"):
            raise UsageError(f"dtype '{requested}' is not known", "use auto, float32, float16 or bfloat16")
        return requested, "asked for"
    if not device.startswith("cuda"):
        # Half precision without hardware for it is several times slower on a CPU.
        return "float32", f"auto: {device}"
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "auto: the GPU has it"
    return "float16", "auto: the GPU has no bfloat16"


def load_pipeline(cls_name: str, model: Model, device: str, dtype: str) -> Any:
    """The model as the stock diffusers class `cls_name`, on the device, silent, without safety checker and watermark.

    Raises DiffgenError when the files do not make that class, or the device is too small.
    """
    import diffusers
    import torch
    from safetensors import SafetensorError

    cls = getattr(diffusers, cls_name)
    xl = "XL" in cls_name
    weights: Any = getattr(torch, dtype)
    if dtype == "float16" and xl:
        # SDXL's VAE overflows in float16 and then decodes to black.
        weights = {"default": torch.float16, "vae": torch.float32}
    options = _options(cls_name)
    broken = (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError)
    with quiet():
        try:
            if model.kind == "file":
                # from_single_file takes one dtype only.
                pipe = cls.from_single_file(
                    model.place, config=model.config, dtype=getattr(torch, dtype), local_files_only=True, **options
                )
                if isinstance(weights, dict):
                    pipe.vae.to(torch.float32)
            else:
                folder = _folder(model)
                pipe = cls.from_pretrained(
                    str(folder), dtype=weights, variant=hub.half_variant(folder), use_safetensors=True,
                    local_files_only=True, **quantising(model.layout, dtype), **options,
                )  # fmt: skip
        except broken as error:
            raise _load_error(error, cls_name, model, device) from error
        _check_parts(pipe, cls_name, model)
        if model.loras:
            add_loras(pipe, model)
        if not device.startswith("mps") and hasattr(pipe, "unet"):
            pipe.unet.to(memory_format=torch.channels_last)
            pipe.vae.to(memory_format=torch.channels_last)
        try:
            place(pipe, model.layout, device)
        except RuntimeError as error:
            raise _load_error(error, cls_name, model, device) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _options(cls_name: str) -> dict[str, Any]:
    if "XL" in cls_name:
        # The watermark would be laid over latents; made images are marked as synthetic in their metadata instead.
        return {"add_watermarker": False}
    if cls_name.startswith("StableDiffusion") and not cls_name.startswith("StableDiffusion3"):
        return {"safety_checker": None, "requires_safety_checker": False}
    return {}


def _folder(model: Model) -> Path:
    folder = local_folder(model)
    if folder is None or not folder.is_dir():
        hint = hub.fetch_command(model.place, model.revision) if model.kind == "hub" else _AGAIN
        raise DiffgenError(f"model '{model.name}' is not on this machine", hint)
    return folder


def _load_error(error: Exception, cls_name: str, model: Model, device: str) -> DiffgenError:
    from safetensors import SafetensorError

    title = f"model '{model.name}'"
    if isinstance(error, DiffgenError):
        return error
    if out_of_memory(error):
        # Not OutOfMemory: a smaller batch would not help.
        return DiffgenError(f"{title} does not fit on {device}", "add `memory: 8gb`, or use a smaller model")
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if model.kind == "file" and not model.config:
        return DiffgenError(
            f"{title} cannot be loaded without its configs: {first_line}",
            "give a folder with the pipeline's configs: `model: {file: …, config: FOLDER}`",
        )
    if isinstance(error, SafetensorError) or "safetensors" in first_line.lower():
        return DiffgenError(f"{title}: its weights cannot be read: {first_line}", _AGAIN)
    return DiffgenError(f"{title} cannot be loaded as {cls_name}: {first_line}", _AGAIN)


# Parts that a model may lack: the SDXL refiner has only the second text encoder, Stable Diffusion 3 may go without T5.
_OPTIONAL = {"StableDiffusionXL": ("text_encoder", "tokenizer"), "StableDiffusion3": ("text_encoder_3", "tokenizer_3")}


def _check_parts(pipe: Any, cls_name: str, model: Model) -> None:
    optional = next((names for start, names in _OPTIONAL.items() if cls_name.startswith(start)), ())
    needed = [name for name in pipe.components if name not in (*hub.UNUSED, *optional)]
    lacking = [name for name in needed if getattr(pipe, name, None) is None]
    if lacking:
        raise DiffgenError(f"model '{model.name}' lacks {', '.join(lacking)}", _AGAIN)
    if model.kind != "file":
        names = {"text_encoder", "text_encoder_2", "text_encoder_3"} - set(model.layout.quantised)
        for name in sorted(names):
            _check_weights(getattr(pipe, name, None), _folder(model) / name, model)


def _check_weights(module: Any, folder: Path, model: Model) -> None:
    """transformers fills weights that the files lack with random numbers, and only logs it."""
    if not type(module).__name__.startswith(("CLIP", "T5")):  # of others, module and file may name weights differently
        return
    # The prefix came and went between versions of transformers.
    there = {key.removeprefix("text_model.") for file in folder.glob("*.safetensors") for key in hub.tensors(file)}
    state = {key.removeprefix("text_model."): tensor for key, tensor in module.state_dict().items()}
    tied = {tensor.data_ptr() for key, tensor in state.items() if key in there}
    lacking = sorted(key for key, tensor in state.items() if key not in there and tensor.data_ptr() not in tied)
    if lacking:
        raise DiffgenError(f"model '{model.name}': {folder} lacks {lacking[0]} and {len(lacking) - 1} more", _AGAIN)


def choose_class(model: Model, classes: dict[str, str]) -> str:
    """The class that edits with this model. `classes` maps the class its files name to the class that the editor uses."""
    own = pipeline_class(model)
    check_class(replace(model, pipeline=own))
    return classes[own]


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
