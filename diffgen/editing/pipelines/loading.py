"""From a Model to a diffusers pipeline on a device. Knows nothing about images, prompts or jobs.

Loading downloads nothing: `models.model.require_on_disk` has fetched everything before.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from safetensors import safe_open

from diffgen.editing.pipelines.loras import add_loras
from diffgen.editing.pipelines.offload import place, quantising
from diffgen.errors import DiffgenError
from diffgen.models import weights
from diffgen.models.fetch import pull_command
from diffgen.models.load_network import load_errors, out_of_memory, quiet
from diffgen.models.model import Model, local_folder, pipeline_class
from diffgen.models.pipelines import SPECS, PipelineSpec, class_to_load

_AGAIN = "copy or download the model again"


def load_pipeline(family: str, model: Model, device: str, dtype: str) -> Any:
    """The model as the stock diffusers class that `family` uses for it, on the device, without safety checker and watermark.

    Raises UsageError when the family cannot use the model, DiffgenError when its files do not make that class, or the
    device is too small.
    """
    spec = SPECS[class_to_load(family, pipeline_class(model), model.name)]
    with quiet():
        try:
            pipe = _read(spec, model, dtype)
        except load_errors() as error:
            raise _load_error(error, spec.name, model, device) from error
        _check_parts(pipe, spec, model)
        if model.loras:
            add_loras(pipe, model)
        if not device.startswith("mps") and hasattr(pipe, "unet"):
            import torch

            pipe.unet.to(memory_format=torch.channels_last)
            pipe.vae.to(memory_format=torch.channels_last)
        try:
            place(pipe, model.layout, device)
        except RuntimeError as error:
            raise _load_error(error, spec.name, model, device) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _read(spec: PipelineSpec, model: Model, dtype: str) -> Any:
    """The pipeline in the machine's memory. Raises what diffusers raises."""
    import diffusers
    import torch

    cls = getattr(diffusers, spec.name)
    # Passed as None, or diffusers would load what the index names and we have not fetched.
    unused = {name: None for name in weights.UNUSED if name in inspect.signature(cls.__init__).parameters}
    numbers = getattr(torch, dtype)
    if model.kind == "file":
        # It takes one number type only: the VAE's weights are rounded to it before they become float32 again.
        pipe = cls.from_single_file(
            model.place, config=model.config, dtype=numbers, local_files_only=True, **unused, **spec.loader_options
        )
        pipe.vae.to(torch.float32)
    else:
        folder = _folder(model)
        pipe = cls.from_pretrained(
            str(folder), dtype={"default": numbers, "vae": torch.float32}, variant=weights.half_variant(folder),
            use_safetensors=True, local_files_only=True, trust_remote_code=False,
            **quantising(model.layout, dtype), **unused, **spec.loader_options,
        )  # fmt: skip
    if not (dtype == "float16" and _overflows_in_float16(spec, model)):
        for name in ("decoder", "post_quant_conv"):
            if (part := getattr(pipe.vae, name, None)) is not None:
                part.to(numbers)
    return pipe


def _overflows_in_float16(spec: PipelineSpec, model: Model) -> bool:
    """Whether the VAE's decoder overflows in float16. The encoder always runs in float32: once per source, and
    labels depend on it."""
    folder = Path(model.config) if model.config else local_folder(model)
    path = folder / "vae" / "config.json" if folder else None
    # Of the configs themselves: diffusers takes it for true where they say nothing.
    said = weights.read_json(path).get("force_upcast") if path and path.is_file() else None
    return spec.float32_vae if said is None else bool(said)


def _folder(model: Model) -> Path:
    folder = local_folder(model)
    if folder is None or not folder.is_dir():
        hint = pull_command(model.name, model.revision) if model.kind == "hub" else _AGAIN
        raise DiffgenError(f"model '{model.name}' is not on this machine", hint)
    return folder


def _load_error(error: Exception, cls_name: str, model: Model, device: str) -> DiffgenError:
    from safetensors import SafetensorError

    title = f"model '{model.name}'"
    if out_of_memory(error):
        # Not OutOfMemory, because a smaller batch would not help.
        return DiffgenError(f"{title} does not fit on {device}", "add `memory: 8gb`, or use a smaller model")
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if model.kind == "file" and not model.config:
        return DiffgenError(
            f"{title} cannot be loaded without its config files: {first_line}",
            "give the folder with the pipeline's config files: `model: {file: …, config: FOLDER}`",
        )
    if isinstance(error, SafetensorError) or "safetensors" in first_line.lower():
        return DiffgenError(f"{title}: its weights cannot be read: {first_line}", _AGAIN)
    return DiffgenError(f"{title} cannot be loaded as {cls_name}: {first_line}", _AGAIN)


def _check_parts(pipe: Any, spec: PipelineSpec, model: Model) -> None:
    needed = [name for name in pipe.components if name not in (*weights.UNUSED, *spec.optional_parts)]
    lacking = [name for name in needed if getattr(pipe, name, None) is None]
    if lacking:
        raise DiffgenError(f"model '{model.name}' lacks {', '.join(lacking)}", _AGAIN)
    if model.kind != "file":
        names = {"text_encoder", "text_encoder_2", "text_encoder_3"} - set(model.layout.quantised)
        for name in sorted(names):
            _check_weights(getattr(pipe, name, None), _folder(model) / name, model)


def _check_weights(module: Any, folder: Path, model: Model) -> None:
    """Raises DiffgenError for weights that were not loaded, which transformers fills with random numbers and only logs."""
    if not type(module).__name__.startswith(("CLIP", "T5")):  # others may name weights differently in file and module
        return
    there: dict[str, list[tuple[Path, str]]] = {}
    for file in sorted(folder.glob("*.safetensors")):  # the weights may be here twice, in half precision too
        for key in weights.tensors(file):
            # Some versions of transformers add this prefix, others do not.
            there.setdefault(key.removeprefix("text_model."), []).append((file, key))
    state = {key.removeprefix("text_model."): tensor for key, tensor in module.state_dict().items()}
    tied = {tensor.data_ptr() for key, tensor in state.items() if key in there}
    lacking = sorted(key for key, tensor in state.items() if key not in there and tensor.data_ptr() not in tied)
    if lacking:
        raise DiffgenError(f"model '{model.name}': {folder} lacks {lacking[0]} and {len(lacking) - 1} more", _AGAIN)
    # A version that does not read the other's names loads nothing at all.
    name = min(there.keys() & state.keys())
    if not any(_tensor(file, key).to(state[name]).equal(state[name]) for file, key in there[name]):
        raise DiffgenError(
            f"model '{model.name}': the installed transformers does not load {there[name][0][0]}",
            "pip install -U transformers",
        )


def _tensor(file: Path, key: str) -> Any:
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(key)
