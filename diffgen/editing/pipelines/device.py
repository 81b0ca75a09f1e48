"""Choosing the device and dtype."""

from __future__ import annotations

from diffgen.errors import UsageError


def pick_device(requested: str) -> tuple[str, str]:
    """(device, reason). `requested` is "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises UsageError for an unknown device, or one that torch cannot use.
    """
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
                f"device '{requested}' is not available: torch sees {count} CUDA devices", "use `device: auto` or cpu"
            )
        return requested, f"asked for: {_cuda_name(int(number or 0))}"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not available: torch sees no Apple GPU", "use `device: auto` or cpu")
    return requested, "asked for"


def _cuda_name(index: int) -> str:
    import torch

    gpu = torch.cuda.get_device_properties(index)
    return f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"


def pick_dtype(requested: str, device: str) -> tuple[str, str]:
    """(dtype, reason). `requested` is "auto", "float32", "float16" or "bfloat16"; UsageError for any other."""
    if requested != "auto":
        if requested not in ("float32", "float16", "bfloat16"):
            raise UsageError(f"dtype '{requested}' is not known", "use auto, float32, float16 or bfloat16")
        return requested, "asked for"
    if not device.startswith("cuda"):
        # On a CPU without hardware support, half precision is several times slower.
        return "float32", f"auto: {device}"
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "auto: the GPU supports it"
    return "float16", "auto: the GPU has no bfloat16"
