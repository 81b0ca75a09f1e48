"""Memory layouts: which parts of a model stay on the device, and which wait in the machine's memory until they are called.

A pure choice from the size of the parts and of the device. Imports no torch, so that `plan` can make it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffgen.models import weights

GIB = 2**30
CARDS = {"8gb": 8.0, "16gb": 16.0, "24gb": 24.0}  # GiB of the device that the modes named after a card may use
WORKING_GIB = 2.0  # beside the weights: CUDA itself and one picture; batches that need more are halved
NF4_RATIO = 0.3  # of half-precision weights: four bits each, their scales, and the layers that are not quantised
# Small parts that are called throughout a run. They stay on the device, beside the largest of the others.
RESIDENT_PARTS = ("vae", "controlnet", "estimator")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model uses the device's memory.

    `offload` is what moves to the device when it is needed: "none" (all is resident), "parts" (a whole part such as the UNet
    while it is called) or "streamed" (block after block, while the one before works). With `vae_in_parts`, the VAE works on
    one picture at a time, and on tiles of a large one. The parts in `quantised` have four bits per weight. `max_gib` limits
    the device memory; None: no limit.
    """

    offload: Literal["none", "parts", "streamed"] = "none"
    vae_in_parts: bool = False
    quantised: tuple[str, ...] = ()
    max_gib: float | None = None

    def __str__(self) -> str:
        words = [
            {"none": "resident", "parts": "one part at a time", "streamed": "streamed block by block"}[self.offload]
        ]
        if self.vae_in_parts:
            words.append("autoencoder in parts")
        if self.quantised:
            words.append(f"{' and '.join(self.quantised)} in four bits")
        if self.max_gib:
            words.append(f"at most {self.max_gib:g} GiB")
        return ", ".join(words)


RESIDENT = Layout()


@dataclass(frozen=True, slots=True)
class Needs:
    """The memory that a model needs, in GiB: by part if its files are here, else the `estimate` of models.yaml, if any."""

    parts: Mapping[str, float]
    estimate: float | None = None

    @property
    def total(self) -> float | None:
        """Memory with all parts resident, plus working memory. None: unknown."""
        return sum(self.parts.values()) + WORKING_GIB if self.parts else self.estimate

    @property
    def resident(self) -> float:
        """What is always on the device, and working memory."""
        return WORKING_GIB + sum(size for name, size in self.parts.items() if name in RESIDENT_PARTS)

    @property
    def movable(self) -> dict[str, float]:
        """The parts that can be offloaded."""
        return {name: size for name, size in self.parts.items() if name not in RESIDENT_PARTS}


def choose_layout(
    requested: str, device: str, free_gib: float, needs: Needs, not_quantisable: str = ""
) -> tuple[Layout, str]:
    """(layout, reason) for a recipe's `memory` on a device with `free_gib` free. The reason is "" if there is no choice.

    "auto" offloads only if the whole model does not fit. Quantised weights change every pixel, so they need a mode named
    after a card, for parts that do not fit on it. `not_quantisable` is why this model cannot be quantised; "": it can.
    """
    if not device.startswith("cuda"):
        return RESIDENT, "" if requested == "auto" else f"{requested}: has no effect on {device}"
    if requested == "resident":
        return RESIDENT, "asked for"
    limit = CARDS.get(requested)
    available = min(limit or math.inf, free_gib)
    whole_layout = Layout(vae_in_parts=limit is not None, max_gib=limit)
    if needs.total is None:
        return whole_layout, f"{requested}: its memory needs are unknown"
    reason = f"{requested}: it needs about {needs.total:.1f} of {available:.0f} GiB"
    if needs.total <= available:
        return whole_layout, reason
    room = available - needs.resident
    large = tuple(name for name, size in needs.movable.items() if size > room)
    if not large:
        return Layout("parts", True, max_gib=limit), reason
    reason += f", and its {' and '.join(large)} alone would not fit"
    if limit is not None and not not_quantisable:
        if all(needs.parts[name] * NF4_RATIO <= room for name in large):
            return Layout("parts", True, large, limit), reason
        not_quantisable = "in four bits too"
    return Layout("streamed", True, max_gib=limit), reason + (f"; {not_quantisable}" if limit is not None else "")


def forecast(requested: str, device: str, needs: Needs, not_quantisable: str = "") -> str:
    """The layout in words while planning, when the device is not known."""
    if device in ("cpu", "mps"):
        return choose_layout(requested, device, 0.0, needs)[1]
    if requested != "auto":
        layout, reason = choose_layout(requested, "cuda", math.inf, needs, not_quantisable)
        return f"on a GPU {layout} ({reason})"
    if needs.total is None:
        return ""
    total = math.ceil(needs.total)
    text = f"auto: on a GPU of {total} GiB or more {RESIDENT}, else one part at a time"
    by_part = math.ceil(needs.resident + max(needs.movable.values(), default=0.0)) if needs.parts else total
    return text if by_part >= total else f"{text}, under {by_part} GiB streamed block by block"


def folder_parts(folder: Path, dtype: str) -> dict[str, float]:
    """GiB of each part in a pipeline's folder, loaded as `dtype`. Raises DiffgenError for broken files."""
    parts = weights.components(weights.read_json(folder / "model_index.json"))
    return {name: network_gib(folder / name, dtype) for name, stem in parts.items() if stem}


def network_gib(folder: Path, dtype: str) -> float:
    """GiB of the network in a folder, loaded as `dtype`, or of an Ultralytics file, which keeps half-precision numbers."""
    if folder.is_file():
        return folder.stat().st_size * (2 if dtype == "float32" else 1) / GIB
    return sum(sum(_sizes(file, dtype).values()) for file in weights.network_weights(folder))


def file_parts(file: Path, dtype: str) -> dict[str, float]:
    """GiB of each part of a single file in the original layout, by the prefixes of its tensors' names."""
    parts: dict[str, float] = {}
    for key, size in _sizes(file, dtype).items():
        for part, prefixes in weights.ORIGINAL_PARTS.items():
            if key.startswith(prefixes):
                parts[part] = parts.get(part, 0.0) + size
    return parts


def _sizes(file: Path, dtype: str) -> dict[str, float]:
    """GiB of each tensor, loaded as `dtype` whatever its type in the file. Reads the header only."""
    size = 4 if dtype == "float32" else 2
    return {key: math.prod(shape) * size / GIB for key, shape in weights.tensors(file).items()}
