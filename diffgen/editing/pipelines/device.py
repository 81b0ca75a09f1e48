"""Choosing the device and dtype."""

from __future__ import annotations

from diffgen.errors import UsageError
from diffgen.models.pipelines import SPECS


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


def check_dtype(requested: str, pipeline: str | None) -> None:
    """Raises UsageError for an unknown number type, or one that a model of the class `pipeline` overflows in."""
    if requested not in ("auto", "float32", "float16", "bfloat16"):
        raise UsageError(f"dtype '{requested}' is not known", "use auto, float32, float16 or bfloat16")
    if requested == "float16" and _overflows(pipeline):
        raise UsageError(f"dtype: float16: a {pipeline} overflows in it", "use `dtype: auto`, bfloat16 or float32")


def _overflows(pipeline: str | None) -> bool:
    """Whether the class overflows in float16.

    U-Nets are trained and published in float16, which has three bits more than bfloat16 and a smaller range. Transformers
    that were trained in bfloat16 leave that range, and T5 is clipped in it: black or washed-out pictures.
    """
    return pipeline in SPECS and SPECS[pipeline].flow


def pick_dtype(requested: str, device: str, pipeline: str | None = None) -> tuple[str, str]:
    """(dtype, reason) for a model of the class `pipeline`; None: not known yet.

    `requested` is "auto", "float32", "float16" or "bfloat16". Raises the errors of `check_dtype`.
    """
    check_dtype(requested, pipeline)
    if requested != "auto":
        return requested, "asked for"
    if not device.startswith("cuda"):
        # On a CPU without hardware support, half precision is several times slower.
        return "float32", f"auto: {device}"
    import torch

    if not _overflows(pipeline):
        return "float16", "auto: as U-Nets are trained"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "auto: as this model was trained"
    return "bfloat16", "auto: this model overflows in float16; this GPU emulates bfloat16, slowly"
