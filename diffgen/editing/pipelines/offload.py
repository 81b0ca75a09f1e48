"""Applying a memory layout to a pipeline: CPU offload, 4-bit weights, VAE in parts."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from diffgen.models.memory import GIB, RESIDENT_PARTS, Layout, choose_layout
from diffgen.models.model import Model, needs


def pick_layout(requested: str, device: str, dtype: str, model: Model) -> tuple[Layout, str]:
    """(layout, reason) for this device. `requested` is the recipe's `memory`; the reason is "" if there is no choice."""
    import torch

    free = torch.cuda.mem_get_info(device)[0] / GIB if device.startswith("cuda") else 0.0
    return choose_layout(requested, device, free, needs(model, dtype), not_quantisable(model))


def not_quantisable(model: Model) -> str:
    """Why the model's weights cannot be loaded in four bits; "" if they can."""
    if find_spec("bitsandbytes") is None:
        return "quantising to four bits needs bitsandbytes: pip install 'diffgen[memory]'"
    if model.loras:
        return "LoRAs are fused into the weights, and four bits would round them away"
    return "a single file is loaded whole" if model.kind == "file" else ""


def quantising(layout: Layout, dtype: str) -> dict[str, Any]:
    """The argument that makes `from_pretrained` quantise the layout's parts; empty without such parts.

    NF4: Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023.
    """
    if not layout.quantised:
        return {}
    import torch
    from diffusers import PipelineQuantizationConfig

    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": getattr(torch, dtype)}
    config = PipelineQuantizationConfig(
        quant_backend="bitsandbytes_4bit", quant_kwargs=nf4, components_to_quantize=list(layout.quantised)
    )
    return {"quantization_config": config}


def place(pipe: Any, layout: Layout, device: str) -> None:
    """Move the pipeline to the device as the layout says. Raises torch's errors if it does not fit."""
    import torch

    if layout.vae_in_parts:
        pipe.vae.enable_slicing()
        # AutoencoderTiny needs little memory, and fails when it tiles an image that fits into one tile.
        if type(pipe.vae).__name__ != "AutoencoderTiny":
            pipe.vae.enable_tiling()
    if layout.max_gib is not None:  # behave as on such a card: halve batches, leave the rest to other processes
        total = torch.cuda.get_device_properties(device).total_memory / GIB
        torch.cuda.set_per_process_memory_fraction(min(1.0, layout.max_gib / total), device)
    if layout.offload == "none":
        pipe.to(device)
        return
    if layout.offload == "streamed":
        _stream(pipe, device)
        return
    pipe._exclude_from_cpu_offload = [*pipe._exclude_from_cpu_offload, *RESIDENT_PARTS]
    # diffusers moves the parts in this chain even if they are excluded.
    chain = pipe.model_cpu_offload_seq.split("->")
    pipe.model_cpu_offload_seq = "->".join(name for name in chain if name not in RESIDENT_PARTS)
    pipe.enable_model_cpu_offload(device=device)


def _stream(pipe: Any, device: str) -> None:
    """On a GPU a stream of its own copies each block while the one before works, so that large batches hide the copies.

    The layers of language models lie too deep to be found as blocks, so those are streamed layer by layer.
    """
    import torch
    from diffusers.hooks import apply_group_offloading

    streams = device.startswith("cuda")
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        if name in RESIDENT_PARTS:
            part.to(device)
            continue
        blocks = name in ("unet", "transformer")
        apply_group_offloading(
            part, torch.device(device), torch.device("cpu"), "block_level" if blocks else "leaf_level",
            num_blocks_per_group=1 if blocks else None, non_blocking=streams, use_stream=streams,
        )  # fmt: skip
