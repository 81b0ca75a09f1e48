"""Adding LoRAs to a loaded pipeline. They are fused into its weights, so that steps take no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, why
from diffgen.models.load_network import quiet
from diffgen.models.loras import require_peft
from diffgen.models.model import Model


def add_loras(pipe: Any, model: Model) -> None:
    """Fuse the model's LoRAs into the pipeline's parts, each with its weight.

    Raises DiffgenError if one does not fit the model, or if peft is missing.
    """
    require_peft()
    if not hasattr(pipe, "load_lora_weights"):
        raise DiffgenError(f"model '{model.name}' ({type(pipe).__name__}) does not support LoRAs", "remove `loras:`")
    names = [f"lora{i}" for i in range(len(model.loras))]
    with quiet():
        for name, lora in zip(names, model.loras, strict=True):
            assert lora.path is not None  # a run has fetched it
            _load(pipe, name, Path(lora.path), model)
        parts = sorted({part for part, adapters in pipe.get_list_adapters().items() if adapters})
        pipe.set_adapters(names, [lora.weight for lora in model.loras])
        pipe.fuse_lora(components=parts, adapter_names=names)
        pipe.unload_lora_weights()


def _load(pipe: Any, name: str, path: Path, model: Model) -> None:
    # diffusers and peft raise these for the weights of another model.
    misfits = (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError)
    cause: Exception | None = None
    try:
        pipe.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=name, use_safetensors=True, local_files_only=True
        )
        if any(name in adapters for adapters in pipe.get_list_adapters().values()):
            return
    except misfits as error:
        cause = error
    reason = why(cause) if cause else "it has no weights for this model's parts"
    raise DiffgenError(
        f"loras: {path} does not fit model '{model.name}': {reason}", "use a LoRA that was trained on this model"
    ) from cause
