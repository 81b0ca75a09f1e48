"""Where a model's parts lie while it runs: on the device, or in the machine's own memory until each is called.

A pure choice, made from what the parts weigh and what the device has. Imports no torch, so that plans can tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffgen.models import hub

GIB = 2**30
CARDS = {"8gb": 8.0, "16gb": 16.0}  # GiB that the modes named after a card may take of the device
ROOM = 2.0  # GiB beside the weights: CUDA's own, and one picture in work; batches that need more are halved
FOUR_BITS = 0.3  # of half-precision weights: four bits each, their scales, and the layers that stay as they are
# Small, and called from here and there: always on the device, beside the largest of the others.
STAYING = ("vae", "controlnet", "estimator")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model is laid out.

    `offload` says what moves to the device when it is called: nothing, as all is there; a part (text encoder, UNet …); a
    layer.
    With `vae_in_parts` the autoencoder works on one picture at a time, and on tiles of a large one. The parts in `quantised`
    have four bits a weight. `most` is how many GiB of the device it may take; None: all.
    """

    offload: Literal["none", "model", "sequential"] = "none"
    vae_in_parts: bool = False
    quantised: tuple[str, ...] = ()
    most: float | None = None

    def __str__(self) -> str:
        words = {"none": "resident", "model": "one part at a time", "sequential": "one layer at a time"}
        return ", ".join(
            [
                words[self.offload],
                *(["autoencoder in parts"] if self.vae_in_parts else []),
                *([f"{' and '.join(self.quantised)} in four bits"] if self.quantised else []),
                *([f"at most {self.most:g} GiB"] if self.most else []),
            ]
        )


RESIDENT = Layout()


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model needs, in GiB: by part where its files are here; else, where models.yaml says it, about all in all."""

    parts: Mapping[str, float]
    estimate: float | None = None

    @property
    def whole(self) -> float | None:
        """To be resident, with room to work."""
        return sum(self.parts.values()) + ROOM if self.parts else self.estimate

    @property
    def beside(self) -> float:
        """What is on the device whatever else is, with room to work."""
        return ROOM + sum(size for name, size in self.parts.items() if name in STAYING)

    @property
    def moving(self) -> dict[str, float]:
        """The parts that may be moved there and off again."""
        return {name: size for name, size in self.parts.items() if name not in STAYING}


def choose_layout(
    requested: str, device: str, device_gib: float, needs: Needs, whole_weights: str = ""
) -> tuple[Layout, str]:
    """The layout for a recipe's `memory` on a device with `device_gib` of memory, and why; "" where nothing is to choose.

    "auto" moves parts only where all of them do not fit. Quantised weights, which change every pixel, come only with a mode
    named after a card, for parts that do not fit it, unless `whole_weights` says why they cannot be had.
    """
    if not device.startswith("cuda"):
        return RESIDENT, "" if requested == "auto" else f"{requested}: means nothing on {device}"
    if requested == "resident":
        return RESIDENT, "asked for"
    asked = CARDS.get(requested)
    card = min(asked or math.inf, device_gib)
    if needs.whole is None:
        return Layout(vae_in_parts=asked is not None, most=asked), f"{requested}: nothing tells what it needs"
    reason = f"{requested}: it needs about {needs.whole:.1f} of {card:.0f} GiB"
    if needs.whole <= card:
        return Layout(vae_in_parts=asked is not None, most=asked), reason
    room = card - needs.beside
    large = tuple(name for name, size in needs.moving.items() if size > room)
    if not large:
        return Layout("model", True, most=asked), reason
    reason += f", its {' and '.join(large)} alone too much"
    if asked is not None and not whole_weights:
        if all(needs.parts[name] * FOUR_BITS <= room for name in large):
            return Layout("model", True, large, asked), reason
        whole_weights = "in four bits too"
    because = f"; {whole_weights}" if asked is not None else ""
    return Layout("sequential", True, most=asked), reason + because


def forecast(requested: str, device: str, needs: Needs, whole_weights: str = "") -> str:
    """The same in words while planning, when nobody has looked what device there is."""
    if device in ("cpu", "mps"):
        return choose_layout(requested, device, 0.0, needs)[1]
    if requested != "auto":
        layout, reason = choose_layout(requested, "cuda", math.inf, needs, whole_weights)
        return f"on a GPU {layout} ({reason})"
    if needs.whole is None:
        return ""
    whole = math.ceil(needs.whole)
    text = f"auto: on a GPU of {whole} GiB or more {RESIDENT}, else one part at a time"
    least = math.ceil(needs.beside + max(needs.moving.values(), default=0.0)) if needs.parts else whole
    return text if least >= whole else f"{text}, under {least} GiB one layer at a time"


def folder_parts(folder: Path, dtype: str) -> dict[str, float]:
    """GiB of each part of a pipeline's folder, once loaded as `dtype`. Raises DiffgenError for broken files."""
    names = [name for name, weighs in hub.components(hub.read_json(folder / "model_index.json")).items() if weighs]
    return {name: network_gib(folder / name, dtype) for name in names}


def network_gib(folder: Path, dtype: str) -> float:
    """GiB of the one network in a folder, once loaded as `dtype`."""
    return sum(sum(_sizes(file, dtype).values()) for file in hub.network_weights(folder))


def file_parts(file: Path, dtype: str) -> dict[str, float]:
    """The same of a single file in the original layout, by the beginnings of its tensors' names."""
    parts = dict.fromkeys(_ORIGINAL.values(), 0.0)
    for key, size in _sizes(file, dtype).items():
        for start, part in _ORIGINAL.items():
            if key.startswith(start):
                parts[part] += size
    return {part: size for part, size in parts.items() if size}


_ORIGINAL = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.": "text_encoder",
    "conditioner.embedders.": "text_encoder",
}


def _sizes(file: Path, dtype: str) -> dict[str, float]:
    """GiB by tensor: whatever type they are stored in, they are loaded as `dtype`. Reads the file's header only."""
    size = 4 if dtype == "float32" else 2
    return {key: math.prod(shape) * size / GIB for key, shape in hub.tensors(file).items()}
