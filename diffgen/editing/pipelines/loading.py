"""From a Model to a diffusers pipeline on a device. Knows nothing about images, prompts or jobs.

Loading never touches the network: `models.model.require_on_disk` has fetched everything before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffgen.editing.pipelines.loras import add_loras
from diffgen.editing.pipelines.offload import place, quantising
from diffgen.errors import DiffgenError
from diffgen.models import hub
from diffgen.models.load_network import out_of_memory, quiet
from diffgen.models.model import Model, local_folder

_AGAIN = "copy or download the model again"


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
